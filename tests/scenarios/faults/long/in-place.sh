#!/bin/bash
# lab: timeout=900
# A sync in place that is broken off three times, by the link, by the backup's power and by the primary's, while the
# primary writes: it is taken up each time from the same base, and ends in sync at the cost of what changed since.
VOLUME_MB=384 JOURNAL_MB=32 CHANGED_MB=${CHANGED_MB-96}
POLICY='roll-interval = "1s"
resync-target = "0s"'
EXTRA='[audit]
digest-file = "/share/digests"
[limits]
timeout = "2s"
pause-limit = "1s"
[watchdog]
pause-timeout = "5s"
timeout = "5s"'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"

boot_and_run() { # HOST
    boot "$1"
    background "$1" ftship run vm1
}
# So little that it cannot outgrow a round.
start_writers() {
    background primary bash -c 'while :; do dd if=/dev/urandom of=/dev/mapper/vm1 bs=4k count=8 seek=$((RANDOM % 1024)) \
        oflag=direct conv=notrunc,fsync status=none; sleep 0.2; done'
    WRITERS=$JOB
}
sync_now() { status primary ".primary.sync.$1" 2> /dev/null; }
# is_half_way: an eighth to all of the round is out, in place.
is_half_way() {
    local carrier bytes left
    read -r carrier bytes left < <(status primary '.primary.sync | "\(.carrier) \(.bytes) \(.left)"' 2> /dev/null) || return 1
    if [[ $(status primary .state) == "in sync" ]]; then fail "the sync was over before it could be broken off"; fi
    [[ $carrier == in-place ]] && ((left > 0 && left < bytes * 7 / 8))
}
# broken_off WHAT: a sync in place is under way, from the base that there was at first.
broken_off() {
    eventually 120 is_half_way
    expect_equal "$(sync_now base)" "$BASE" "the base of the sync that $1 breaks off"
    echo "at $(status primary '.primary.sync | tostring')"
    step "$1"
}
is_inconsistent() { [[ $(status backup .state 2> /dev/null) == inconsistent ]]; }

protect
sleep 2.5
BASE=$(on primary ftship checkpoint vm1 --wait)
is_applied() { (($(status backup .epochs.applied) >= BASE)); }
eventually 60 is_applied

step "no link, and $CHANGED_MB MB change, with a journal of $JOURNAL_MB MB"
link down
wait_state primary degraded
BASE=$(status primary .epochs.committed)
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count="$CHANGED_MB" seek=16 oflag=direct conv=notrunc,fsync status=none
start_writers
link up
broken_off "the link is cut"
link down
wait_state primary degraded 60
is_inconsistent || fail "the backup is $(status backup .state)"
expect_code 4 on backup ftship promote vm1
link up
broken_off "the backup loses its power"
power_off backup
wait_state primary degraded 60
boot_and_run backup
BACKUP_JOB=$JOB
broken_off "the primary loses its power"
settle primary
power_off primary
boot_and_run primary
PRIMARY_JOB=$JOB
start_writers
wait_state primary "in sync" 300
status primary '.primary.last_sync | tostring'
expect_equal "$(status primary '.primary.last_sync | "\(.carrier) \(.base)"')" "in-place $BASE" "the last sync"
copied=$(status primary .primary.last_sync.bytes)
((copied <= (CHANGED_MB + 12) << 20)) || fail "$copied bytes were copied, $CHANGED_MB MB had changed"
kill_background "$WRITERS" KILL
wait_background "$WRITERS" || true
epoch=$(on primary ftship checkpoint vm1 --wait)
promote_recorded_after "$epoch"
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the backup's volume"
