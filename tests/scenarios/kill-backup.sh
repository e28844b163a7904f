#!/bin/bash
# lab: timeout=400
# SIGKILL of the backup's daemon in the middle of epochs, then restart and promote: nothing acknowledged
# is missing, and the primary's volume never stopped.
VOLUME_MB=32
EXTRA='[audit]
digest-file = "/share/digests"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
protect
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 300 --rate 100
WRITERS=$JOB
for round in 1 2 3; do
    step "round $round"
    sleep "0.$((RANDOM % 10))"
    acknowledged=$(on primary ftship checkpoint vm1 --wait)
    kill_background "$BACKUP_JOB" KILL
    wait_background "$BACKUP_JOB" || true
    wait_state primary degraded
    on primary ftship status vm1
    expect_code 1 on primary ftship checkpoint vm1
    on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=4k count=1 oflag=direct conv=notrunc status=none
    start_backup
    step "the primary copies what changed by itself"
    wait_state primary "in sync" 60
    expect_equal "$(status primary .primary.last_sync.carrier)" staged "the carrier"
    expect_code 4 on backup ftship checkpoint vm1
    expect_code 4 on primary ftship promote vm1
    promote_recorded_after "$acknowledged"
    expect_equal "$(on backup ftship promote vm1)" "$EPOCH_PROMOTED" "a second promote's answer"
    renew_backup
done
kill_background "$WRITERS"
