#!/bin/bash
# lab: timeout=600
# The volume is enlarged while it is written to, and the primary's daemon is killed, or stopped for longer than its watchdog
# waits, at each point of that; dm-era refuses its new length; and the backup's daemon is killed once its volume is larger.
# The writer never waits for long, the volume never becomes smaller, and after the same command once more, or none, it is
# larger and the pair in sync. At the end the backup has exactly the last epoch.
VOLUME_MB=8 JOURNAL_MB=32 LOG_SIZE="16 MiB" EPOCH=150ms DISCARDS=pass
EXTRA='[audit]
digest-file = "/share/digests"
[limits]
timeout = "3s"'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
declare -A DAEMON
SIZE=$VOLUME_MB

run_daemon() {
    background "$1" env "FTDM_FAULT=/share/fault-$1" ftship run vm1
    DAEMON[$1]=$JOB
}
# arm HOST POINT SIGNAL
arm() {
    echo "$2 $3" > "$SHARE/fault.new"
    chmod 666 "$SHARE/fault.new"
    mv "$SHARE/fault.new" "$SHARE/fault-$1"
}
struck() { [[ ! -e $SHARE/fault-$1 ]]; }
size() { on primary blockdev --getsize64 /dev/mapper/vm1; }
runs() { [[ $(on primary dmsetup info -c --noheadings -o suspended vm1) == Active ]]; }
extend() {
    SIZE=$((SIZE + 4))
    on backup lvextend -q -L "${SIZE}M" vg/vm1
    on primary lvextend -q -L "${SIZE}M" vg/vm1
}
# resized: by the command that was interrupted, or by another one.
resized() {
    wait_state primary "in sync" 90
    on primary ftship resize vm1
    expect_equal "$(size)" $((SIZE << 20)) "the disk"
    wait_state primary "in sync" 90
    on primary pgrep -x ftdm-workload > /dev/null || fail "the writer met an error: $(job_errors "$WRITER")"
}

# attempt HOST SIGNAL POINT
attempt() {
    local before command
    step "$1: $2 at $3"
    before=$(size)
    extend
    arm "$1" "$3" "$2"
    background primary ftship resize vm1
    command=$JOB
    eventually 30 struck "$1"
    case $2 in
        KILL)
            wait_background "${DAEMON[$1]}" || true
            eventually 5 runs
            run_daemon "$1"
            ;;
        STOP)
            eventually 10 runs
            kill_background "${DAEMON[$1]}" CONT
            ;;
    esac
    wait_background "$command" || true
    (($(size) >= before)) || fail "the disk is smaller than before: $(size)"
    resized
}

make_volumes
run_daemon backup
run_daemon primary
wait_state primary "in sync" 60
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3000 --rate 50
WRITER=$JOB

for point in enlarge-begun enlarge-suspended enlarge-swapped enlarge-gate state-written state-synced stop-loaded stop-suspended; do
    attempt primary KILL $point
done
for point in enlarge-suspended enlarge-gate stop-suspended; do attempt primary STOP $point; done
for point in volumes-enlarged state-synced; do attempt backup KILL $point; done

step "dm-era does not run with its new length: it runs with the old one"
extend
arm primary enlarge-resume FAIL
said=$(expect_code 4 on primary ftship resize vm1 2>&1) || fail "$said"
grep -q "stay as they were" <<< "$said" || fail "$said"
runs || fail "the volume is suspended"
resized

step "exactly the last epoch"
on primary dd if=/dev/urandom of=/dev/mapper/vm1 oflag=direct bs=1M count=2 seek=$((SIZE - 3)) status=none
settle primary
epoch=$(on primary ftship checkpoint vm1 --wait)
power_off primary
promote
((EPOCH_PROMOTED >= epoch)) || fail "acknowledged epoch $epoch is lost: promoted at epoch $EPOCH_PROMOTED"
expect_equal "$(on backup blockdev --getsize64 /dev/mapper/vm1)" $((SIZE << 20)) "the promoted disk"
expect_equal "$(digest backup /dev/mapper/vm1)" "$(recorded "$EPOCH_PROMOTED")" "volume of epoch $EPOCH_PROMOTED"
