#!/bin/bash
# `ftdm create` and `remove`: what they build, what they refuse, and that a refusal changes nothing.
on primary lvcreate -q -y -W n -n vm1 -L 64M vg
on primary lvcreate -q -y -W n -n vm1_meta -L 16M vg
on primary lvcreate -q -y -W n -n tiny -L 4M vg
on primary lvcreate -q -y -W n -n other -L 16M vg
table="0 131072 ft /dev/vg/vm1_meta /dev/vg/vm1 128"
tables() { on primary dmsetup table | sed '/^vg-/d' | sort; }

step "create, twice, and what it says of itself"
on primary ftdm create vm1 --table "$table"
built=$(tables)
on primary ftdm create vm1 --table "$table"
expect_equal "$(tables)" "$built" "the tables after a second create"
on primary ftdm ls | grep -q vm1
on primary ftdm table vm1
on primary ftdm status vm1
on primary ftdm info vm1
expect_equal "$(on primary cat /sys/block/"$(on primary basename "$(on primary readlink -f /dev/mapper/vm1)")"/queue/discard_max_bytes)" 0 "discards on the visible device"
expect_fail on primary blkdiscard -o 0 -l 1048576 /dev/mapper/vm1

step "refusals"
expect_code 4 on primary ftdm create vm1 --table "0 131072 ft /dev/vg/vm1_meta /dev/vg/vm1 256"
expect_code 4 on primary ftdm create vm2 --table "$table"
expect_equal "$(tables)" "$built" "the tables after refusals"
on primary mkfs.ext4 -q /dev/mapper/vm1
on primary mount /dev/mapper/vm1 /mnt
expect_code 4 on primary ftdm remove vm1
on primary umount /mnt
on primary ftdm remove vm1
expect_equal "$(tables)" "" "the tables after remove"
expect_code 1 on primary ftdm remove vm1
expect_code 1 on primary ftdm status vm1
for wrong in "0 131072 ft /dev/vg/vm1_meta /dev/vg/vm1" "0 131072 ft /dev/vg/vm1_meta /dev/vg/vm1 7" \
    "$table"$'\n131072 8 zero' "8 131072 ft /dev/vg/vm1_meta /dev/vg/vm1 128"; do
    expect_code 2 on primary ftdm create vm1 --table "$wrong"
done
expect_code 1 on primary ftdm create vm1 --table nonsense
for name in control bad/name vm1@era; do
    expect_fail on primary ftdm create "$name" --table "$table"
done
on primary dmsetup version
refused() { local code=0; on primary ftdm create vm1 --table "$1" || code=$?; ((code != 0 && code != 2)) || fail "taken, or not understood: $1"; }
refused "0 262144 ft /dev/vg/vm1_meta /dev/vg/vm1 128"
refused "0 131072 ft /dev/vg/vm1 /dev/vg/vm1 128"
refused "0 131072 ft /dev/vg/nothing /dev/vg/vm1 128"
refused "0 131072 ft /dev/null /dev/vg/vm1 128"
on primary mkfs.ext4 -q /dev/vg/other
refused "0 131072 ft /dev/vg/other /dev/vg/vm1 128"
on primary e2fsck -fn /dev/vg/other
on primary mount /dev/vg/vm1 /mnt
refused "$table"
on primary umount /mnt
expect_equal "$(tables)" "" "the tables after refusals"

step "the era history survives a reboot"
on primary ftdm create vm1 --table "$table"
before=$(on primary ftdm status vm1)
power_off primary
power_on primary
on primary ftdm create vm1 --table "$table"
echo "$before"
on primary ftdm status vm1
on primary ftdm remove vm1

step "metadata of another shape is refused"
refused "0 131072 ft /dev/vg/vm1_meta /dev/vg/vm1 256"
on primary ftdm metadata-size 131072 128
