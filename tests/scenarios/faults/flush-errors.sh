#!/bin/bash
# lab: timeout=400 disks=3
# Flushes alone fail below the backup's journal, its volume and its state; writes succeed. The daemon says `failed`,
# names the device and acknowledges nothing more, also when flushes work again; and when the power is cut then,
# which loses what no flush made durable, nothing acknowledged is missing.
APPLY_DELAY=1s
. "$LAB_REPOSITORY/tests/scenarios/faults/crash.bash"
# The volume is on disk 0, the journal on disk 1, the state on disk 2.
second_disks() {
    on backup vgcreate -q -y third /dev/vdc
    on backup lvcreate -q -y -W n -n vm1_state -L 4M third
    exchange /dev/vg/vm1_state /dev/third/vm1_state
}
begin second_disks

# failing DISK DEVICE [BEFORE AFTER]: commands before and after that disk's flushes begin to fail.
failing() {
    NAME="flushes of $2 fail"
    step "$NAME"
    local last
    ${3-}
    disk_flushes backup "$1" fail
    ${4-}
    wait_state backup failed 60
    last=$(acknowledged)
    status backup .reason | grep "$2" > /dev/null || fail "$NAME: it says: $(status backup .reason)"
    disk_stats backup | grep "^disk=$1 .* failed-flushes=[1-9]" > /dev/null || fail "$NAME: none did"
    disk_flushes backup "$1" work
    expect_code 4 on backup ftship promote vm1
    expect_fail on primary ftship checkpoint vm1 --wait --timeout 3
    expect_equal "$(acknowledged)" "$last" "$NAME: the last acknowledged epoch"
    is_state backup failed || fail "$NAME: it is $(status backup .state) by itself"
    # Else the primary goes on with the sync that was asked for, over what is to be promoted.
    link down
    power_off backup
    wait_background "$BACKUP_JOB" || true
    revive backup power
    expect_promoted "$last" "$NAME"
    link up
    renew_backup
}
failing 1 second/vm1_journal
failing 0 vg/vm1
failing 2 third/vm1_state degrade_cut_off resync_now
