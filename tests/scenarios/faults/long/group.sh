#!/bin/bash
# lab: timeout=1500
# A group of two volumes through what may befall it: a full sync under writers, quiesced cuts, writes held back for
# want of room, a daemon stopped and killed within a cut, discards of one volume, tracking lost on one. After each the
# promoted volumes are those of one epoch, from one instant. Needs the feature faults.
VOLUME_MB=16 SECOND_MB=24 LOG_SIZE="32 MiB" EPOCH=150ms DISCARDS=pass META_B=/dev/mapper/meta_b
BARE_BACKUP=yes
EXTRA='[audit]
digest-file = "/share/digests"
[limits]
window = 2
overrun = "throttle"
throttle-lease = "2s"
log-watermark = 50
timeout = "30s"
void-cuts = 1000'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
. "$LAB_REPOSITORY/tests/scenarios/watchdog.bash"
JUDGED=0

# The records are in the first MiB of either volume; writers and discards have the rest.
make_rest() {
    on primary dmsetup create rest --table "0 $((VOLUME_MB * 2048 - 2048)) linear /dev/mapper/vm1 2048"
    on primary dmsetup create rest_b --table "0 $((SECOND_MB * 2048 - 2048)) linear /dev/mapper/vm1_b 2048"
}

# start_writers [RATE]: all over the rest of both.
start_writers() {
    local name
    CHURNS=()
    for name in rest rest_b; do
        background primary ftdm-workload churn /dev/mapper/$name --seed $((LAB_SEED + JUDGED)) --seconds 3000 --rate "${1-20}"
        CHURNS+=("$JOB")
    done
}

stop_writers() {
    local job
    for job in "${CHURNS[@]}"; do kill_background "$job"; wait_background "$job" || true; done
}

# start_records: anew on both volumes, with new notes.
start_records() {
    for volume in vm1 vm1_b; do
        on primary dd if=/dev/zero of=/dev/mapper/$volume bs=1M count=1 oflag=direct conv=notrunc,fsync status=none
    done
    on primary ftship checkpoint vm1 --wait > /dev/null
    NOTES=notes.$JUDGED
    : > "$SHARE/$NOTES"
    chmod 666 "$SHARE/$NOTES"
    background primary ftdm-workload pairs /dev/mapper/vm1 /dev/mapper/vm1_b --group vm1 --notes "/share/$NOTES"
    RECORDS=$JOB
    eventually 60 test -s "$SHARE/$NOTES"
}

# more_notes: a checkpoint is acknowledged that was asked for after this call.
more_notes() {
    local before
    before=$(wc -l < "$SHARE/$NOTES")
    # shellcheck disable=SC2317
    has_more() { (($(wc -l < "$SHARE/$NOTES") > before + 1)); }
    eventually 60 has_more
}

stop_records() {
    kill_background "$RECORDS" KILL || true
    wait_background "$RECORDS" || true
}

# judge WHAT: promotes under the writers, and compares; then the backup is synced anew.
judge() {
    promote
    on backup ftdm-workload check-pairs /dev/vg/vm1 /dev/vg/vm1_b --notes "/share/$NOTES" --epoch "$EPOCH_PROMOTED"
    expect_equal "$(digest backup /dev/vg/vm1_b)" "$(recorded "$EPOCH_PROMOTED" 2 | tail -n 1)" "$1: second volume of epoch $EPOCH_PROMOTED"
    # What was discarded may read otherwise.
    if [[ -z ${DISCARDED-} ]]; then
        expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED" | tail -n 1)" "$1: first volume of epoch $EPOCH_PROMOTED"
    fi
    JUDGED=$((JUDGED + 1))
    echo "$1: judged at epoch $EPOCH_PROMOTED"
    stop_records
}

renew() {
    stop_backup
    on backup ftship format --force vm1 > /dev/null
    start_backup
    eventually 120 in_sync_again
}

in_sync_again() { is_state primary "in sync"; }

# expect_both_flow WHAT: writes to either volume end at once.
expect_both_flow() {
    local volume longest
    for volume in rest rest_b; do
        on primary timeout 3 dd if=/dev/zero of=/dev/mapper/$volume bs=4k count=1 oflag=direct conv=notrunc status=none ||
            fail "$1: writes to $volume do not flow"
    done
    sleep 0.1
    longest=$(longest_stall)
    ((longest <= ${2-$ALLOWED_MS} + NOISE_MS)) || fail "$1: a write waited for $longest ms"
    echo "$1: the longest stall was $longest ms"
}

step "a full sync under writers"
make_group
make_rest
start_writers 60
start_backup
start_primary
eventually 120 in_sync_again
stop_writers
start_writers
start_records
more_notes
judge "full sync"
renew

step "quiesced cuts: of both volumes, or not at all"
stop_writers
epoch=$(on primary ftship checkpoint vm1 --quiesced --wait)
for place in 1 2; do
    volume=vm1
    if ((place == 2)); then volume=vm1_b; fi
    expect_equal "$(recorded "$epoch" $place | tail -n 1)" "$(digest primary /dev/mapper/$volume)" "what was recorded of $volume"
done
for name in rest rest_b; do
    background primary ftdm-workload churn /dev/mapper/$name --seed "$LAB_SEED" --seconds 3000 --rate 100
    sleep 1
    expect_code 4 on primary ftship checkpoint vm1 --quiesced --wait
    kill_background "$JOB"
    wait_background "$JOB" || true
done
epoch=$(on primary ftship checkpoint vm1 --quiesced --wait)
promote
for place in 1 2; do
    volume=vm1
    if ((place == 2)); then volume=vm1_b; fi
    expect_equal "$(digest backup /dev/vg/$volume)" "$(recorded "$epoch" $place | tail -n 1)" "$volume after a quiesced cut"
done
renew

step "no room in one log: both volumes wait, and go on"
: > "$SHARE/stalls"
chmod 666 "$SHARE/stalls"
for volume in rest rest_b; do
    background primary ftdm-workload stalls /dev/mapper/$volume --notes /share/stalls --seconds 3000
done
sleep 2
NOISE_MS=$(longest_stall)
if ((NOISE_MS < 400)); then NOISE_MS=400; fi
start_writers
start_records
burst() { on primary timeout 100 dd if=/dev/urandom of=/dev/mapper/rest_b bs=64k count="$1" oflag=direct conv=notrunc status=none; }
background primary bash -c 'for i in 1 2 3 4 5; do dd if=/dev/urandom of=/dev/mapper/rest_b bs=64k count=300 oflag=direct conv=notrunc status=none; done'
BURST=$JOB
holds() { status primary .primary.holds; }
for _ in 1 2 3 4 5 6 7 8; do
    link down
    sleep 0.4
    link up
    sleep 1
done
wait_background "$BURST"
(($(holds) > 0)) || fail "writes never had to wait"
echo "held $(holds) times, the longest stall was $(longest_stall) ms; $(status primary '"\(.state) \(.reason)"')"
eventually 60 in_sync_again
stop_records
start_records
more_notes
judge "throttled"
renew

step "no link at all: the lease ends for both"
link down
burst 350
wait_state primary degraded
expect_both_flow "after the lease" 3000
link up
eventually 120 in_sync_again

# A cut that is stopped, or killed, with one or with both volumes suspended.
for signal in STOP KILL; do
    for point in one-suspended after-suspend after-mark before-resume; do
        step "SIG$signal $point"
        start_records
        more_notes
        before=$(degradations)
        meet_fault "$point" "$signal"
        sleep 1.5
        expect_both_flow "SIG$signal $point"
        if [[ $signal == STOP ]]; then
            kill_background "$PRIMARY_JOB" CONT
            eventually 30 more_degradations "$before"
            expect_both_flow "SIGCONT $point"
            judge "SIG$signal $point"
        else
            wait_background "$PRIMARY_JOB" || true
            judge "SIG$signal $point"
            start_primary
            eventually 30 is_served
        fi
        renew
    done
done

step "discards of one volume, beside records and writers"
given() { status primary .primary.discards_given; }
has_given() { (($(given) >= $1)); }
start_records
stop_writers
on primary dd if=/dev/urandom of=/dev/mapper/rest bs=1M count=8 oflag=direct conv=notrunc status=none
more_notes
DISCARDED=yes
on primary blkdiscard --force --offset 1048576 --length $((4 * 1048576)) /dev/mapper/vm1
expect_fail on primary blkdiscard --force --offset 1048576 --length 1048576 /dev/mapper/vm1_b
eventually 60 has_given $((3 * 1048576))
start_writers
more_notes
judge "discards"
renew
start_records
more_notes
on primary blkdiscard --force --offset $((6 * 1048576)) --length $((2 * 1048576)) /dev/mapper/vm1
before=$(degradations)
meet_fault discard-issued STOP on primary blkdiscard --force --offset $((8 * 1048576)) --length $((4 * 1048576)) /dev/mapper/vm1
sleep 1.5
expect_both_flow "SIGSTOP discard-issued"
kill_background "$PRIMARY_JOB" CONT
eventually 30 more_degradations "$before"
judge "SIGSTOP discard-issued"
renew

step "tracking is lost on the second volume: both go on, nothing is replicated any more"
start_records
more_notes
on primary bash -c "dmsetup suspend --noflush --nolockfs meta_b; echo '0 32768 error' | dmsetup load meta_b; dmsetup resume meta_b"
eventually 60 is_state primary "tracking lost"
mode() { on primary ftdm status "$1" | cut -d' ' -f4; }
expect_equal "$(mode vm1_b)" passthrough "the second volume's mode"
expect_equal "$(mode vm1)" tracking "the first volume's mode"
status primary .reason
for volume in vm1 vm1_b; do
    on primary timeout 20 dd if=/dev/zero of=/dev/mapper/$volume bs=64k seek=20 count=16 oflag=direct conv=notrunc,fsync status=none
done
expect_fail on primary ftship checkpoint vm1 --wait --timeout 5
judge "tracking lost"
echo "$JUDGED promotes judged"
