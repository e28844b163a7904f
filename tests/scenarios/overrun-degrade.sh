#!/bin/bash
# lab: timeout=200
# `overrun = "degrade"`: when the log passes its watermark the volume is taken off it within one suspend, and
# writes go on at the speed that they have without any capture.
VOLUME_MB=48 JOURNAL_MB=64 LOG_SIZE="16 MiB"
EXTRA='[limits]
window = 2
timeout = "60s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
. "$(dirname "${BASH_SOURCE[0]}")/watchdog.bash"
make_volumes
# rate: MB/s of 32 MB written directly.
rate() {
    on primary bash -c 'begun=$(date +%s%N)
        dd if=/dev/zero of=/dev/mapper/vm1 bs=256k count=128 oflag=direct conv=notrunc status=none
        echo $((32 * 1000000000 / ($(date +%s%N) - begun)))'
}
before=$(rate)
start_daemons
wait_state primary "in sync" 60
write_on 5
step "no link: the log fills"
link down
during=$(rate)
wait_state primary degraded
status primary .reason
expect_fail on primary dmsetup info vm1@log
longest=$(longest_stall)
after=$(rate)
echo "before $before MB/s, while the log filled $during MB/s, after $after MB/s; the longest stall was $longest ms"
((longest <= 500 + NOISE_MS)) || fail "the switch made a write wait for $longest ms"
((after * 3 >= before)) || fail "writes are slow after the switch"
link up
