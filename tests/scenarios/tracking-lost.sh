#!/bin/bash
# dm-era's metadata fails: the volume goes on without it, and nobody ever believes its history again.
# lab: timeout=300
VOLUME_MB=16 JOURNAL_MB=32
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

# metadata TARGET...: what stands for the metadata volume from now on.
metadata() {
    on primary bash -c "dmsetup suspend --noflush --nolockfs meta; echo '0 32768 $*' | dmsetup load meta; dmsetup resume meta"
}
writes() { on primary dd if=/dev/zero of=/dev/mapper/vm1 bs=64k count=16 oflag=direct conv=notrunc,fsync status=none; }
mode() { on primary ftdm status vm1 | cut -d' ' -f4; }

step "a stack whose metadata can be made to fail"
make_volumes
on primary ftdm remove vm1
on primary dmsetup create meta --table "0 32768 linear /dev/vg/vm1_meta 0"
table="0 $((VOLUME_MB * 2048)) ft /dev/mapper/meta /dev/vg/vm1 128"
on primary ftdm create vm1 --table "$table"
start_daemons
wait_state primary "in sync"
expect_code 4 on primary ftdm bypass vm1

step "the metadata fails under the daemon: writes go on, and the state says so"
metadata error
eventually 30 is_state primary "tracking lost"
expect_equal "$(mode)" passthrough
writes
status primary .reason
expect_code 6 on primary ftdm written-since vm1 1
expect_code 6 on primary ftdm create vm1 --table "$table"

step "the metadata comes back, and is told"
metadata linear /dev/vg/vm1_meta 0
eventually 30 on primary bash -c 'dd if=/dev/vg/vm1_meta bs=4k count=1 iflag=direct status=none | grep -qa "tracking lost"'
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB" || fail "the primary's daemon did not stop cleanly"
on primary ftdm remove vm1
new_history() { on primary dd if=/dev/zero of=/dev/vg/vm1_meta bs=4k count=1 oflag=direct conv=fsync status=none; }
expect_code 6 on primary ftdm create vm1 --table "$table"
new_history
on primary ftdm create vm1 --table "$table"

step "given up while it can still be told: refused for good, also after a power cut"
on primary ftdm bypass vm1 --force
expect_equal "$(mode)" passthrough
writes
power_off primary
power_on primary
on primary dmsetup create meta --table "0 32768 linear /dev/vg/vm1_meta 0"
expect_code 6 on primary ftdm create vm1 --table "$table"
new_history
on primary ftdm create vm1 --table "$table"
writes
expect_equal "$(mode)" tracking

step "the same when it is taken down in order"
on primary ftdm bypass vm1 --force
on primary ftdm remove vm1
expect_code 6 on primary ftdm create vm1 --table "$table"
