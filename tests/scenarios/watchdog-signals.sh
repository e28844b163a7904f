#!/bin/bash
# lab: timeout=200
# SIGSTOP and SIGKILL of the primary's daemon at any moment, most of them within a cut, and SIGKILL of its
# watchdog: the volume runs again within a second, what is promoted was recorded, a new watchdog comes.
VOLUME_MB=16 JOURNAL_MB=32 EPOCH=40ms
EXTRA='[audit]
digest-file = "/share/digests"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
. "$(dirname "${BASH_SOURCE[0]}")/watchdog.bash"
make_volumes
start_daemons
wait_state primary "in sync" 60
write_on 30
step "SIGKILL of the watchdog: another one is started, and replication goes on"
old=$(on primary pgrep -f "^[^ ]*ftship watchdog")
on primary kill -KILL "$old"
eventually 10 bash -c "'$LAB' ctl on primary pgrep -f '^[^ ]*ftship watchdog' | grep -vx $old >/dev/null"
on primary ftship checkpoint vm1 --wait
expect_equal "$(status primary .state)" "in sync"
for round in 1 2; do
    step "SIGSTOP, round $round"
    sleep "0.$((RANDOM % 10))"
    longest_stall > /dev/null
    degraded=$(degradations)
    kill_background "$PRIMARY_JOB" STOP
    sleep 1.2
    expect_flow "SIGSTOP"
    sleep 3
    kill_background "$PRIMARY_JOB" CONT
    eventually 30 more_degradations "$degraded"
    expect_flow "SIGCONT"
    again
done
for round in 1 2; do
    step "SIGKILL, round $round"
    sleep "0.$((RANDOM % 10))"
    longest_stall > /dev/null
    kill_background "$PRIMARY_JOB" KILL
    sleep 0.3
    expect_flow "SIGKILL"
    wait_background "$PRIMARY_JOB" || true
    eventually 5 expect_fail on primary dmsetup info vm1@log
    start_primary
    promote_recorded
    wait_state primary "in sync" 60
done
step "a clean end takes the watchdog along"
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB" || fail "the primary's daemon did not stop cleanly"
eventually 5 expect_fail on primary pgrep -f "^[^ ]*ftship watchdog"
