#!/bin/bash
# lab: timeout=900
# Writers that are faster than the link for a while: the log overruns, replication degrades, and while they go on it is
# tried again ever more rarely; when they write at a rate that can be shipped it is in sync by itself, and stays so.
VOLUME_MB=96 JOURNAL_MB=256 LOG_SIZE="8 MiB"
SECONDS_OVER=${SECONDS_OVER-60}
EXTRA='[audit]
digest-file = "/share/digests"
[limits]
timeout = "5s"'
. "$(dirname "${BASH_SOURCE[0]}")/../pair.bash"
. "$(dirname "${BASH_SOURCE[0]}")/../watchdog.bash"

protect
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3000 --rate 30
STEADY=$JOB
sleep 3
is_state primary "in sync" || fail "the steady writers alone are too much: $(status primary .reason)"

step "more than can be shipped, for $SECONDS_OVER s"
before=$(degradations)
background primary bash -c 'while :; do dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=64 seek=16 oflag=direct \
    conv=notrunc status=none; echo >> /share/rounds; done'
FLOOD=$JOB
eventually 60 more_degradations "$before"
status primary .reason
sleep "$SECONDS_OVER"
kill_background "$FLOOD" KILL
wait_background "$FLOOD" || true
during=$(($(degradations) - before))
echo "$(wc -l < "$SHARE/rounds") times 64 MB were written; degraded $during times in $SECONDS_OVER s"
# 0.2 s, doubled up to 5 s: 5 in the first 6 s, then at most one in 5 s.
((during <= 7 + SECONDS_OVER / 5)) || fail "replication flaps"

step "the steady writers go on: in sync by itself, and steadily"
wait_state primary "in sync" 120
after=$(degradations)
committed=$(status primary .epochs.committed)
sleep 15
expect_equal "$(degradations)" "$after" "degradations while the writers are steady"
is_state primary "in sync" || fail "the state is $(status primary .state)"
(($(status primary .epochs.committed) > committed + 10)) || fail "hardly any epochs are committed"
epoch=$(on primary ftship checkpoint vm1 --wait)
promote_recorded_after "$epoch"
