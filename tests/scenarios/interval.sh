#!/bin/bash
# lab: timeout=300
# Interval mode: a block travels once in an interval, however often it was written, nothing is captured between, a
# checkpoint comes at once when asked for, the roles are exchanged under load and back, and a power cut within an interval leaves the backup at exactly the last epoch.
VOLUME_MB=64
EPOCH=4s
POLICY='mode = "interval"'
EXTRA='[audit]
digest-file = "/share/digests"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

committed() { status primary .epochs.committed; }
shipped() { status primary '.primary | .bytes_shipped + .base_bytes_shipped'; }
is_tracking() { on primary ftdm status vm1 | grep -q ' tracking '; }
is_beyond() { (($(committed) > $1)); }

step "refused: an interval of half a second"
config primary primary 10.9.0.1 10.9.0.2
on primary sed 's/^epoch = .*/epoch = "500ms"/' /etc/ftdm/vm1.toml > "$SHARE/short.toml"
expect_code 2 on primary ftship run /share/short.toml

protect
eventually 30 is_tracking
expect_code 4 on primary ftship checkpoint vm1 --quiesced
expect_code 4 on primary ftship verify vm1

step "a megabyte, written again and again, and 64 blocks of which a sixteenth was written"
on primary ftship checkpoint vm1 --wait
eventually 30 is_tracking
before=$(shipped)
on primary bash -c 'for i in {1..8}; do dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=16 seek=100 oflag=direct \
    conv=notrunc,fsync status=none; done
    for ((i = 200; i < 264; i++)); do dd if=/dev/urandom of=/dev/mapper/vm1 bs=4k count=1 seek=$((i * 16)) oflag=direct \
    conv=notrunc status=none; done'
epoch=$(on primary ftship checkpoint vm1 --wait)
eventually 30 is_tracking
bytes=$(($(shipped) - before)) changed=$((80 * 64 * 1024))
echo "$((changed / 1024)) KiB in blocks of 64 KiB have changed, $((bytes / 1024)) KiB were shipped"
((bytes >= 80 * 4096)) || fail "not everything was shipped"
((bytes < changed + changed / 16)) || fail "blocks travel more than once"
expect_equal "$(status primary .primary.last_sync.rounds)" 1 "rounds of an interval of which little is expected"

step "half a megabyte, written all the time"
before=$(shipped) epoch=$(committed)
background primary bash -c 'while :; do dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=8 seek=100 oflag=direct \
    conv=fsync status=none; echo >> /share/rounds; done'
eventually 60 is_beyond $((epoch + 1))
kill_background "$JOB" KILL
wait_background "$JOB" || true
rounds=$(wc -l < "$SHARE/rounds") epochs=$(($(committed) - epoch))
bytes=$(($(shipped) - before))
echo "$((rounds / 2)) MB written in $epochs intervals, $((bytes / 1024)) KiB shipped"
((rounds > 4 * epochs)) || fail "only $rounds rounds in $epochs intervals: nothing was written twice"
# Each interval: the half megabyte, once more what the capture saw of it, and frames.
((bytes < (epochs + 1) * 1280 * 1024)) || fail "blocks travel more than once"

step "a checkpoint does not wait for the interval"
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=4 seek=300 oflag=direct conv=fsync status=none
epoch=$(on primary ftship checkpoint vm1 --wait)
eventually 30 is_tracking
expect_equal "$(digest primary /dev/mapper/vm1)" "$(recorded "$epoch")" "the volume since epoch $epoch"

step "the roles are exchanged under load, and back"
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3000 --rate 60
is_open() { (($(on primary dmsetup info -c --noheadings -o open vm1) > 0)); }
eventually 30 is_open
on primary ftship switch vm1 --stall
! wait_background "$JOB" || fail "the writer was told that everything went well"
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/vg/vm1)" "what was acknowledged, and what the new primary holds"
wait_state backup "in sync" 60
on backup dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=4 seek=500 oflag=direct conv=fsync status=none
on backup ftship switch vm1
wait_state primary "in sync" 60
eventually 30 is_tracking
expect_equal "$(digest primary /dev/mapper/vm1)" "$(digest backup /dev/vg/vm1)" "the volumes, exchanged back"
epoch=$(committed)

step "a power cut within an interval"
background primary bash -c 'while :; do dd if=/dev/urandom of=/dev/mapper/vm1 bs=4k count=32 seek=$((RANDOM % 8192)) \
    oflag=direct status=none; done'
eventually 60 is_beyond "$epoch"
epoch=$(committed)
sleep 1
power_off primary
promote_recorded_after "$epoch"
