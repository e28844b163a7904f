#!/bin/bash
# lab: timeout=400
# A group of two volumes, both of which change while there is no link: what is resynchronised is what changed on either,
# and from the first epoch on the backup holds one instant of both.
VOLUME_MB=48 SECOND_MB=64 JOURNAL_MB=96 LOG_SIZE="32 MiB" EPOCH=150ms
POLICY='roll-interval = "1s"
resync-target = "0s"'
EXTRA='[audit]
digest-file = "/share/digests"
[limits]
timeout = "2s"'
. "$(dirname "${BASH_SOURCE[0]}")/../pair.bash"

write_mb() { # VOLUME COUNT AT
    on primary dd if=/dev/urandom of="/dev/mapper/$1" bs=1M count="$2" seek="$3" oflag=direct conv=notrunc,fsync status=none
}

make_group
start_daemons
wait_state primary "in sync" 90
background primary ftdm-workload pairs /dev/mapper/vm1 /dev/mapper/vm1_b --group vm1 --notes /share/notes
PAIRS=$JOB
noted() { [[ -s $SHARE/notes ]] && (($(wc -l < "$SHARE/notes") >= ${1-3})); }
eventually 90 noted
sleep 2.5
step "no link: both volumes change"
link down
wait_state primary degraded
kill_background "$PAIRS" KILL 2> /dev/null || true
wait_background "$PAIRS" || true
write_mb vm1 6 16
write_mb vm1_b 9 32
noted_before=$(wc -l < "$SHARE/notes")
# Writers while it is resynchronised, who cannot be in step with each other.
for name in vm1 vm1_b; do
    background primary bash -c "while :; do dd if=/dev/urandom of=/dev/mapper/$name bs=4k count=4 \
        seek=\$((9000 + RANDOM % 256)) oflag=direct conv=notrunc status=none; sleep 0.05; done"
done
link up
wait_state primary "in sync" 120
status primary '.primary.last_sync | tostring'
expect_equal "$(status primary .primary.last_sync.carrier)" staged "the carrier"
copied=$(status primary .primary.last_sync.bytes)
((copied >= 15 << 20)) || fail "only $copied bytes were copied: both volumes changed, by 15 MB"
((copied <= 24 << 20)) || fail "$copied bytes were copied, 15 MB and little more had changed"

step "the primary loses its power under writers"
power_off primary
promote
echo "promoted at epoch $EPOCH_PROMOTED; $noted_before notes"
on backup ftdm-workload check-pairs /dev/vg/vm1 /dev/vg/vm1_b --notes /share/notes --epoch "$EPOCH_PROMOTED"
expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED")" "first volume of epoch $EPOCH_PROMOTED"
expect_equal "$(digest backup /dev/vg/vm1_b)" "$(recorded "$EPOCH_PROMOTED" 2)" "second volume of epoch $EPOCH_PROMOTED"
