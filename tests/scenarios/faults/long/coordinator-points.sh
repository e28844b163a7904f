#!/bin/bash
# lab: timeout=3000 disks=2
# A coordinator commits, and either host is killed or loses its power, or the link goes, at every point of that: the
# backup then promotes to exactly the epoch that the coordinator names, the last of which it has the memory and
# the word that it is staged; what was confirmed as committed is still so. Needs the feature faults.
# Epochs end by the coordinator's word, too: those of the timer alone would soon fill the window.
POLICY='commit = "external"' TIMEOUT=4s EPOCH=1s
. "$LAB_REPOSITORY/tests/scenarios/faults/crash.bash"

# follow: the coordinator, for the rest of the case. It notes what it knows in $SHARE/coordinator: `staged N`,
# `memory N` some time later or not at all, and after two of three of these `committed N`; where no epoch can be had it commits what it
# knows, since there may be no room in the window.
follow() {
    stop_coordinator
    : > "$SHARE/coordinator"
    chmod 666 "$SHARE/coordinator"
    # shellcheck disable=SC2016
    background primary bash -c 'RANDOM=$1
        note() { echo "$@" >> /share/coordinator; }
        while true; do
            if epoch=$(timeout 5 ftship checkpoint vm1 --wait=staged 2>/dev/null); then
                note staged "$epoch"
                if ((RANDOM % 3 == 0)); then continue; fi
                sleep "0.$((RANDOM % 3))"
                note memory "$epoch"
                memory=$epoch
                if ((RANDOM % 3 == 0)); then continue; fi
            else sleep 0.2
            fi
            timeout 5 ftship commit vm1 --epoch "${memory-0}" > /dev/null 2>&1 && note committed "$memory"
        done' coordinator $((LAB_SEED + CASES))
    COORDINATOR=$JOB
}

stop_coordinator() {
    if [[ -n ${COORDINATOR-} ]]; then
        kill_background "$COORDINATOR" KILL || true
        wait_background "$COORDINATOR" || true
    fi
    COORDINATOR=
}

# known WHAT: the last epoch of which the coordinator knows that; 0 when there is none.
known() { awk -v what="$1" '$1 == what { epoch = $2 } END { print epoch + 0 }' "$SHARE/coordinator"; }

acknowledged() { known memory; }

renew_backup() {
    stop_backup
    on backup ftship format --force vm1 > /dev/null
    settle backup
    start_backup
    follow
    eventually 120 goes_on 0
}

begin_promote() {
    stop_coordinator
    background backup ftship promote vm1 --epoch "$(known memory)" --timeout 20
}

judge() {
    stop_coordinator
    local chosen committed now
    chosen=$(known memory) committed=$(known committed)
    now=$(status backup .epochs.committed)
    echo "$NAME: staged $(known staged), memory $chosen, committed $committed; the backup has staged $(status backup .epochs.staged), committed $now"
    ((now >= committed)) || fail "$NAME: epoch $committed was committed, the backup says $now"
    ((now <= chosen)) || fail "$NAME: the backup has committed epoch $now by itself, the coordinator is at $chosen"
    # A promote that was begun is the coordinator's word already.
    if [[ $NAME != *"(promote)" ]]; then expect_code 4 on backup ftship promote vm1; fi
    if ((committed > 0)); then expect_code 4 on backup ftship promote vm1 --epoch $((committed - 1)); fi
    expect_code 4 on backup ftship promote vm1 --epoch $((chosen + 1000))
    expect_equal "$(on backup ftship promote vm1 --epoch "$chosen")" "$chosen" "$NAME: the epoch promoted to"
    expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$chosen" | tail -n 1)" "$NAME: volume of epoch $chosen"
}

begin
# The lists are to be split.
# shellcheck disable=SC2086
for how in kill power; do
    crash_at backup $how epoch commit-received $BACKUP_EPOCH_POINTS
    crash_at backup $how promote $BACKUP_PROMOTE_POINTS
    crash_at primary $how epoch commit-sent $PRIMARY_EPOCH_POINTS
done
crash_at backup link epoch commit-received superblock-written journal-synced staged-sent
crash_at primary link epoch commit-sent staged-received
echo "$CASES cases"
