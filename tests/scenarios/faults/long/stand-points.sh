#!/bin/bash
# lab: timeout=1200
# `capture = "era"`: SIGKILL and SIGSTOP of the primary's daemon at every point of a pause in which the changes of two
# volumes are read: both run again within a second, the pair is in sync by itself, and what is promoted then is one
# recorded instant of both. Needs the feature faults.
VOLUME_MB=8 SECOND_MB=8 JOURNAL_MB=32 LOG_SIZE="16 MiB" EPOCH=1s
POLICY='mode = "interval"
capture = "era"'
EXTRA='[audit]
digest-file = "/share/digests"'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
. "$LAB_REPOSITORY/tests/scenarios/watchdog.bash"

is_past() { is_state primary "in sync" && (($(status primary .epochs.committed) > $1)); }

# both_flow WHAT
both_flow() {
    on primary timeout 3 dd if=/dev/zero of=/dev/mapper/vm1_b bs=4k count=1 oflag=direct conv=notrunc status=none ||
        fail "$1: writes to the second volume do not flow"
    expect_flow "$1"
}

# ends_in_sync WHAT: an epoch is committed that was cut after this; both volumes are what was recorded of one.
ends_in_sync() {
    local before
    before=$(status primary .epochs.cut)
    eventually 90 is_past "$before"
    promote
    ((EPOCH_PROMOTED > before)) || fail "$1: promoted at epoch $EPOCH_PROMOTED, epoch $before had been cut long before"
    expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED")" "$1: vm1 of epoch $EPOCH_PROMOTED"
    expect_equal "$(digest backup /dev/vg/vm1_b)" "$(recorded "$EPOCH_PROMOTED" 2)" "$1: vm1_b of epoch $EPOCH_PROMOTED"
    stop_backup
    on backup ftship format --force vm1
    start_backup
    wait_state primary "in sync" 90
}

make_group
start_backup
start_primary
wait_state primary "in sync" 90
background primary ftdm-workload churn /dev/mapper/vm1_b --seed "$LAB_SEED" --seconds 3000 --rate 20
write_on 20
for point in stand-suspended stand-rolled stand-read stand-verified; do
    step "SIGKILL $point"
    meet_fault $point KILL
    sleep 0.3
    both_flow "SIGKILL $point"
    wait_background "$PRIMARY_JOB" || true
    start_primary
    eventually 20 is_served
    ends_in_sync "SIGKILL $point"

    step "SIGSTOP $point"
    meet_fault $point STOP
    sleep 1
    both_flow "SIGSTOP $point"
    kill_background "$PRIMARY_JOB" CONT
    both_flow "SIGCONT $point"
    ends_in_sync "SIGSTOP $point"
done
