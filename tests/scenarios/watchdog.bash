# What the scenarios of the watchdog share. Source it after pair.bash.
# shellcheck shell=bash

# Longest stop of the volume that is allowed, in milliseconds.
ALLOWED_MS=${ALLOWED_MS-1000}

# start_primary: the daemon, with the fault points (where it was built with them) fed by $SHARE/fault.
start_primary() {
    background primary env FTDM_FAULT=/share/fault ftship run vm1
    PRIMARY_JOB=$JOB
}

# write_on: writers on the volume for the rest of the scenario, one of which notes how long it had to wait.
write_on() {
    : > "$SHARE/stalls"
    chmod 666 "$SHARE/stalls"
    background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3000 --rate "${1-60}"
    WRITERS=$JOB
    background primary ftdm-workload stalls /dev/mapper/vm1 --notes /share/stalls --seconds 3000
    STALLS=$JOB
    # What the machine itself does to a writer is nobody's fault here.
    sleep 2
    NOISE_MS=$(longest_stall)
    echo "without any fault the longest stall is $NOISE_MS ms"
    # Two seconds do not show what else the machine may do to two hosts that share its processors.
    if ((NOISE_MS < 400)); then NOISE_MS=400; fi
}

# longest_stall: since it was asked last, in milliseconds; 0 when none was noticeable.
longest_stall() {
    local longest seen
    seen=$(cat "$LAB_DIR/stalls.seen" 2>/dev/null || echo 0)
    wc -l < "$SHARE/stalls" > "$LAB_DIR/stalls.seen"
    longest=$(tail -n "+$((seen + 1))" "$SHARE/stalls" | sort -n | tail -n 1)
    echo "${longest:-0}"
}

# expect_flow WHAT: writes flow, and none of those since the last time waited too long.
expect_flow() {
    on primary timeout 3 dd if=/dev/zero of=/dev/mapper/vm1 bs=4k count=1 oflag=direct conv=notrunc status=none ||
        fail "$1: writes do not flow"
    sleep 0.1
    local longest
    longest=$(longest_stall)
    ((longest <= ALLOWED_MS + NOISE_MS)) || fail "$1: a write waited for $longest ms"
    echo "$1: the longest stall was $longest ms"
}

# meet_fault POINT SIGNAL [COMMAND...]: arms the point, and waits until it was met.
meet_fault() {
    longest_stall > /dev/null
    echo "$1 $2" > "$SHARE/fault.new"
    chmod 666 "$SHARE/fault.new"
    mv "$SHARE/fault.new" "$SHARE/fault"
    "${@:3}"
    eventually 20 test ! -e "$SHARE/fault"
}

# promote_recorded: promotes, and compares with what was recorded in the pause of that epoch's cut.
promote_recorded() {
    promote
    expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED" | tail -n 1)" "volume of epoch $EPOCH_PROMOTED"
    stop_backup
    on backup ftship format --force vm1
    start_backup
}

# degradations: how often the primary's daemon has said that it is degraded. The state itself may be another
# one by the time that somebody asks: a backup that is inconsistent is synced again at once.
degradations() { job_errors "$PRIMARY_JOB" | grep -c 'state: degraded' || true; }

more_degradations() { (($(degradations) > $1)); }

# stopped_at POINT [COMMAND...]: SIGSTOP there, SIGCONT after STOPPED_SECONDS: where the volume runs, the
# watchdog takes longer to act.
stopped_at() {
    step "SIGSTOP $1"
    local before
    before=$(degradations)
    meet_fault "$1" STOP "${@:2}"
    sleep "${STOPPED_SECONDS-1}"
    expect_flow "SIGSTOP $1"
    kill_background "$PRIMARY_JOB" CONT
    eventually 30 more_degradations "$before"
    expect_flow "SIGCONT $1"
}

# killed_at POINT [COMMAND...]
killed_at() {
    step "SIGKILL $1"
    meet_fault "$1" KILL "${@:2}"
    sleep 0.3
    expect_flow "SIGKILL $1"
    wait_background "$PRIMARY_JOB" || true
    expect_fail on primary dmsetup info vm1@log
    start_primary
    eventually 20 is_served
}

is_served() { on primary ftship status vm1 > /dev/null; }

# again: in sync by itself.
again() { wait_state primary "in sync" 60; }

# restart_backup: SIGKILL of the backup's daemon, which ends the capture on the primary, and a new one.
restart_backup() {
    kill_background "$BACKUP_JOB" KILL
    wait_background "$BACKUP_JOB" || true
    start_backup
}

# degrade_primary: in the middle of a capture; it is connected again.
degrade_primary() {
    local before
    before=$(degradations)
    restart_backup
    eventually 20 more_degradations "$before"
    eventually 20 bash -c "'$LAB' ctl on primary ftship status vm1 --json | jq -e .connected >/dev/null"
}

# degrade_cut_off: with the link down, so that nothing is resynchronised before `resync_now`.
degrade_cut_off() {
    local before
    before=$(degradations)
    link down
    eventually 20 more_degradations "$before"
}

# resync_now: connected again, and copied whole over what the backup has, which its state is to say first.
resync_now() {
    link up
    eventually 30 full_sync_begun
}

full_sync_begun() { on primary ftship full-sync vm1 || is_state backup failed; }

# full_sync: a whole copy, unless one is under way.
full_sync() { on primary ftship full-sync vm1 || true; }
