#!/bin/bash
# lab: timeout=400
# Writes or flushes fail below the backup's journal, its volume and its state: the daemon says `failed` and
# names the device, acknowledges nothing more, and does not promote; the primary's volume goes on. With the
# device mended and the daemon restarted, nothing acknowledged is missing.
# Long enough for wrong acknowledgements: it is not the apply that is to find a bad journal.
APPLY_DELAY=3s
. "$LAB_REPOSITORY/tests/scenarios/faults/backup.bash"
make_volumes
for device in vm1 vm1_journal vm1_state; do
    over "bad-$device" "$device"
    exchange "/dev/vg/$device" "/dev/mapper/bad-$device"
done
start_daemons
wait_state primary "in sync" 60
follow
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3000 --rate 30

# expect_failed DEVICE: it has failed, because of that device, and nothing is acknowledged any more.
expect_failed() {
    wait_state backup failed
    status backup .reason | grep -q "bad-$1" || fail "$1: it says: $(status backup .reason)"
    expect_code 4 on backup ftship promote vm1
    wait_state primary degraded
    ACKNOWLEDGED=$(acknowledged)
    expect_fail on primary ftship checkpoint vm1 --wait --timeout 5
    expect_equal "$(acknowledged)" "$ACKNOWLEDGED" "$1: the last acknowledged epoch"
    on primary timeout 20 dd if=/dev/zero of=/dev/mapper/vm1 bs=4k count=16 oflag=direct conv=notrunc,fsync status=none
    is_state backup failed || fail "$1: it is $(status backup .state) by itself"
}

# failing DEVICE TARGET [BEFORE AFTER]: commands before and after the device turns bad.
failing() {
    step "$2 below $1"
    local before
    before=$(acknowledged)
    eventually 120 goes_on "$before"
    ${3-}
    table "bad-$1" "$1" "$2"
    ${4-}
    expect_failed "$1"
    # Without it a whole copy that was asked for begins again at once, and a promote is rightly refused.
    link down
    mend "bad-$1" "$1"
    restart_killed
    expect_promoted "$ACKNOWLEDGED" "$1"
    link up
    renew_backup
}
# dm-flakey answers every write and flush with an error; dm-error reads as well.
failing vm1_journal "flakey % 0 0 3600 1 error_writes"
failing vm1 "error"
failing vm1_state "flakey % 0 0 3600 1 error_writes" degrade_cut_off resync_now
# One that says ok and keeps nothing: the slot is read back.
failing vm1_state "flakey % 0 0 3600 1 drop_writes" degrade_cut_off resync_now

step "it begins again by itself once the device is sound"
before=$(acknowledged)
eventually 120 goes_on "$before"
table bad-vm1_journal vm1_journal "flakey % 0 0 3600 1 error_writes"
expect_failed vm1_journal
mend bad-vm1_journal vm1_journal
before=$(acknowledged)
eventually 180 goes_on "$before"

step "a promote whose state cannot be written"
before=$(acknowledged)
eventually 120 goes_on "$before"
table bad-vm1_state vm1_state error
expect_fail on backup ftship promote vm1 --timeout 30
wait_state backup failed
last=$(acknowledged)
expect_fail on backup python3 -c 'import os; os.open("/dev/mapper/bad-vm1", os.O_RDWR | os.O_EXCL)'
mend bad-vm1_state vm1_state
restart_killed
expect_promoted "$last" "after a promote that failed"
