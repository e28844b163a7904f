#!/bin/bash
# lab: timeout=400
# Logical volumes of other sizes than the pair agreed on: a larger backup serves, and shows the agreed size after a
# promote. A logical volume that is enlarged, on either side, changes nothing after a boot. A smaller one, and logical
# blocks of another size, are refused at the first meeting, with both named.
VOLUME_MB=32 JOURNAL_MB=32
EXTRA='[audit]
digest-file = "/share/digests"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

size_of() { on "$1" blockdev --getsize64 "${2-/dev/mapper/vm1}"; }
mib() { echo $(($1 << 20)); }
# set_up HOST: the stack as the configuration has it, as after each boot.
set_up() {
    on "$1" ftship setup --remove vm1
    on "$1" ftship setup vm1
}
add_metadata() {
    sed -i 's|^device = "/dev/vg/vm1"|&\nmetadata = "/dev/vg/vm1_meta"|' "$SHARE/config/$1.toml"
    install_config "$1"
}
write_some() { on primary ftdm-workload churn /dev/mapper/vm1 --seed "$1" --seconds 2 --rate 200 > /dev/null; }

step "the backup's logical volume is larger"
make_volumes
add_metadata primary
add_metadata backup
on backup ftship setup --remove vm1
on backup lvremove -q -y vg/vm1 vg/vm1_meta
on backup lvcreate -q -y -W n -n vm1 -L 48M vg
make_meta backup vm1
on backup ftship setup vm1
expect_equal "$(size_of backup)" "$(mib 48)" "before the pair has met"
start_daemons
wait_state primary "in sync" 60
write_some 1

step "a switch there and back, without a restart since the sync: it shows the agreed size"
is_role() { [[ $(status "$1" .role 2>/dev/null) == "$2" ]]; }
on primary ftship switch vm1
eventually 30 is_role backup primary
wait_state backup "in sync" 60
expect_equal "$(size_of backup)" "$(mib 32)" "the promoted disk"
on backup ftship switch vm1
eventually 30 is_role primary primary
wait_state primary "in sync" 60

step "both are enlarged, the primary first: after a boot the VM has its disk as it was"
stop_primary() {
    kill_background "$PRIMARY_JOB" TERM
    wait_background "$PRIMARY_JOB" || fail "the primary's daemon did not stop cleanly"
}
on primary lvextend -q -L 40M vg/vm1
on primary ftship status vm1 | grep "the pair agreed on $(mib 32)" || fail "nothing is said of the larger volume"
stop_primary
set_up primary
expect_equal "$(size_of primary)" "$(mib 32)" "the VM's disk"
background primary ftship run vm1
PRIMARY_JOB=$JOB
wait_state primary "in sync" 60
on backup lvextend -q -L 64M vg/vm1
stop_backup
set_up backup
expect_equal "$(size_of backup)" "$(mib 32)" "the backup's stack"
start_backup
wait_state primary "in sync" 60
write_some 2
epoch=$(on primary ftship checkpoint vm1 --wait)

step "promoted: exactly the epoch, in the agreed size, and the old primary is its backup"
power_off primary
promote
((EPOCH_PROMOTED >= epoch)) || fail "acknowledged epoch $epoch is lost: promoted at epoch $EPOCH_PROMOTED"
expect_equal "$(size_of backup)" "$(mib 32)" "the promoted disk"
expect_equal "$(digest backup /dev/mapper/vm1)" "$(recorded "$EPOCH_PROMOTED")" "volume of epoch $EPOCH_PROMOTED"
on backup dd if=/dev/urandom of=/dev/mapper/vm1 oflag=direct bs=1M count=2 seek=30 status=none
power_on primary
install_config primary
on primary ftship setup vm1
background primary ftship run vm1
PRIMARY_JOB=$JOB
wait_state backup "in sync" 90
on backup ftship checkpoint vm1 --wait
expect_equal "$(digest primary /dev/mapper/vm1)" "$(digest backup /dev/mapper/vm1)" "the old primary's volume"
