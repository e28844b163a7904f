#!/bin/bash
# lab: timeout=400
# The journal is a thin volume whose pool runs out of space under it: as a failed write. The backup's disks
# get slow: epochs get longer, nothing fails, and the primary's writers do not feel it.
APPLY_DELAY=200ms LOG_SIZE="48 MiB"
. "$LAB_REPOSITORY/tests/scenarios/faults/backup.bash"
make_volumes
on backup lvcreate -q -y --type thin-pool -n pool -L 48M --poolmetadatasize 4M -Z n vg
on backup lvchange -q --errorwhenfull y vg/pool
on backup lvcreate -q -y --type thin -n thin_journal -V 32M --thinpool pool vg
exchange /dev/vg/vm1_journal /dev/vg/thin_journal
on backup ftship format --force vm1
start_daemons
wait_state primary "in sync" 60
follow
write_on 8

step "the pool below the journal runs out of space"
before=$(acknowledged)
eventually 120 goes_on "$before"
# From here on every write to the journal needs new space.
on backup lvcreate -q -y -s -n thin_snapshot vg/thin_journal
on backup lvcreate -q -y --type thin -n filler -V 48M --thinpool pool vg
on backup bash -c "dd if=/dev/zero of=/dev/vg/filler bs=64k oflag=direct status=none || true"
wait_state backup failed 60
status backup .reason | grep -q "thin_journal" || fail "it says: $(status backup .reason)"
wait_state primary degraded
last=$(acknowledged)
expect_flow "no space"
on backup lvremove -q -y vg/filler vg/thin_snapshot
restart_killed
expect_promoted "$last" "after it got space"

step "slow disks"
stop_backup
exchange /dev/vg/thin_journal /dev/mapper/slow-vm1_journal
exchange /dev/vg/vm1 /dev/mapper/slow-vm1
for device in vm1 vm1_journal; do over "slow-$device" "$device"; done
on backup ftship format --force vm1
start_backup
wait_state primary "in sync" 60
table slow-vm1_journal vm1_journal "delay % 0 0 % 0 250"
table slow-vm1 vm1 "delay % 0 0 % 0 20"
longest_stall > /dev/null
degraded=$(degradations)
for n in 1 2 3; do
    before=$(acknowledged)
    eventually 60 more_acknowledged "$before"
done
sleep 5
expect_flow "slow disks"
expect_equal "$(degradations)" "$degraded" "how often the primary degraded"
lag=$(status primary '.primary.commit_lag_ms.p50 | floor')
((lag >= 250)) || fail "epochs were committed after $lag ms, on a disk that takes 250"
wait_state primary "in sync"
for device in vm1 vm1_journal; do mend "slow-$device" "$device"; done
restart_killed
expect_promoted "$(acknowledged)" "slow disks"
