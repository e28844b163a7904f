#!/bin/bash
# lab: timeout=200
# `overrun = "throttle"`: a link that is slower than the writers makes them wait, replication goes on; when
# the backup makes no progress at all they wait for as long as the lease, then replication degrades.
VOLUME_MB=96 JOURNAL_MB=64 LOG_SIZE="32 MiB"
EXTRA='[limits]
window = 2
log-watermark = 50
timeout = "60s"
overrun = "throttle"
throttle-lease = "1500ms"'
. "$(dirname "${BASH_SOURCE[0]}")/../pair.bash"
. "$(dirname "${BASH_SOURCE[0]}")/../watchdog.bash"
protect
write_on 5
burst() { on primary timeout 60 dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count="$1" oflag=direct conv=notrunc status=none; }
step "the backup pauses for short times: writes wait, nothing degrades"
background primary bash -c "for i in 1 2 3 4; do dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=500 oflag=direct conv=notrunc status=none; done"
BURST=$JOB
for _ in 1 2 3 4 5 6; do
    link down
    sleep 0.5
    link up
    sleep 0.7
done
wait_background "$BURST"
holds=$(status primary .primary.holds)
expect_equal "$(status primary .state)" "in sync" "after a link that comes and goes"
((holds > 0)) || fail "writes never had to wait"
echo "writes were held $holds times, the longest stall was $(longest_stall) ms"
on primary ftship checkpoint vm1 --wait
step "no link at all: the lease ends, and writes go on at full speed"
link down
burst 1200
wait_state primary degraded
status primary .reason
longest=$(longest_stall)
((longest <= 1500 + 1000 + NOISE_MS)) || fail "writes waited for $longest ms, the lease is 1500 ms"
((longest >= 500)) || fail "writes did not wait at all: $longest ms"
echo "the longest stall was $longest ms"
expect_fail on primary dmsetup info vm1@log
burst 160
link up
step "the daemon is stopped while it holds the writes: the watchdog does not wait for the lease"
again
link down
background primary timeout 60 dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=1200 oflag=direct conv=notrunc status=none
BURST=$JOB
is_held() { on primary dmsetup info vm1 | grep -q SUSPENDED; }
longest_stall > /dev/null
eventually 20 is_held
kill_background "$PRIMARY_JOB" STOP
sleep 1.5
expect_flow "SIGSTOP while writes are held"
kill_background "$PRIMARY_JOB" CONT
wait_state primary degraded
wait_background "$BURST"
link up
