#!/bin/bash
# An ft device among others: every name, dmsetup's verbs on it, and what is refused while a process serves it.
on primary lvcreate -q -y -W n -n vm-100-disk-0 -L 16M vg
on primary lvcreate -q -y -W n -n meta -L 8M vg
table="0 32768 ft /dev/vg/meta /dev/vg/vm-100-disk-0 128"
devices() { on primary dmsetup info -c --noheadings -o name | sed '/^vg-/d' | sort | xargs; }

step "names: what Proxmox and OpenStack use, spaces, unicode, the longest; hidden layers collide with nothing"
long=$(printf 'n%.0s' {1..127})
for name in vm-100-disk-0 web-01 "a b" "ü" "$long" -x; do
    on primary ftdm create --table "$table" -- "$name"
    on primary bash -c "ftdm table -- '$name' | grep '^0 32768 ft '"
    on primary ftdm remove -- "$name"
    expect_equal "$(devices)" "" "devices after the removal of $name"
done
on primary lvcreate -q -y -W n -n era -L 4M vg
on primary ftdm create vg --table "$table"
on primary test -e /dev/vg/era
on primary ftdm remove vg
on primary lvremove -q -y vg/era
on primary ftdm create vm-era --table "0 8 zero"
on primary ftdm create vm --table "$table"
on primary ftdm remove vm
on primary ftdm info vm-era > "$SHARE/info"
on primary ftdm remove vm-era
for name in control . ..; do
    expect_fail on primary ftdm create "$name" --table "$table"
done
expect_code 1 on primary ftdm create control --table "0 8 zero"
on primary dmsetup version

step "one line that recreates it, with its number; hidden layers show only if they are asked for"
on primary ftdm create vm1 -j "$(on primary awk '$2 == "device-mapper" { print $1 }' /proc/devices)" -m 77 --table "$table"
concise=$(on primary ftdm table --concise vm1)
expect_equal "$(on primary ftdm ls --target ft | cut -f1)" vm1 "ft devices"
expect_equal "$(on primary ftdm ls | grep -c vm1)" 1 "devices that ls shows"
expect_equal "$(on primary ftdm ls --all | grep -c vm1)" 2 "devices that ls --all shows"
on primary ftdm info -c vm1@era | grep vm1@era
on primary ftdm remove vm1
on primary ftdm create --concise "$concise"
expect_equal "$(on primary ftdm table --concise vm1)" "$concise" "the same, from its concise form"

step "what would lose tracking is refused, and changes nothing"
before=$(on primary dmsetup table)
for verb in "suspend vm1" "suspend vm1@era" "clear vm1" "wipe_table vm1" "rename vm1 vm2" "message vm1 0 checkpoint" \
    "message vm1@era 0 checkpoint" "remove vm1@era" "remove --force vm1" "remove_all" "remove_all --force" \
    "load vm1 --table '0 8 zero'" "load vm1 --table '0 16384 ft /dev/vg/meta /dev/vg/vm-100-disk-0 128'"; do
    expect_code 4 on primary bash -c "ftdm $verb"
done
on primary ftdm load vm1 --table "$table"
expect_equal "$(on primary dmsetup table)" "$before" "tables after refusals"
expect_equal "$(on primary dmsetup info -c --noheadings -o suspended vm1)" Active "vm1"

step "a process that has a hidden layer open, as a daemon has: the visible device stays"
on primary bash -c 'exec 8< "/dev/dm-$(dmsetup info -c --noheadings -o minor vm1@era)"; ftdm remove vm1; echo $? > /share/code'
expect_equal "$(cat "$SHARE/code")" 4 "the code of a removal under a daemon"
expect_equal "$(on primary dmsetup table)" "$before" "tables after it"
on primary ftdm remove vm1
expect_equal "$(devices)" "" "devices after the removal"

step "created without a table, loaded, resumed"
on primary ftdm create vm1 --notable
on primary ftdm load vm1 --table "$table"
on primary ftdm resume vm1
on primary ftdm status vm1 | grep ' ft tracking '
minor=$(on primary dmsetup info -c --noheadings -o minor vm1)
expect_equal "$(on primary cat "/sys/block/dm-$minor/queue/discard_max_bytes")" 0 "discards"
on primary ftdm remove vm1
expect_equal "$(devices)" "" "devices after the removal"
