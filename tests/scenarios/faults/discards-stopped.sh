#!/bin/bash
# lab: timeout=300
# The daemon is stopped in a pause, about to discard, and goes on after the watchdog brought the volume back and
# the guest wrote to the very same place: what the guest wrote is intact. Needs the feature faults.
VOLUME_MB=16 JOURNAL_MB=32 POOL_MB=64 DISCARDS=pass LOG_SIZE="16 MiB" EPOCH=150ms
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
. "$LAB_REPOSITORY/tests/scenarios/watchdog.bash"
make_volumes
start_backup
start_primary
wait_state primary "in sync" 60
tracks() { on primary ftdm status vm1 | grep ' ft tracking ' > /dev/null; }
limit() { on primary bash -c "cat /sys/block/dm-\$(dmsetup info -c --noheadings -o minor $1)/queue/discard_max_bytes"; }
# write_guest: the guest writes 8 MiB, something else each time.
write_guest() {
    head -c 8388608 /dev/urandom > "$SHARE/guest"
    on primary dd if=/share/guest of=/dev/mapper/vm1 bs=1M oflag=direct conv=notrunc,fsync status=none
}
expect_guest() {
    on primary dd if=/dev/vg/vm1 of=/share/found bs=1M count=8 iflag=direct status=none
    cmp "$SHARE/guest" "$SHARE/found" || fail "$1: what the guest wrote is destroyed"
}
# stopped POINT SIGNAL
stopped() {
    step "SIG$2 $1"
    write_guest
    # What is written in the epoch of the discard is not given back.
    on primary ftship checkpoint vm1 --wait
    echo "$1 $2" > "$SHARE/fault.new"
    chmod 666 "$SHARE/fault.new"
    mv "$SHARE/fault.new" "$SHARE/fault"
    on primary blkdiscard --force --offset 0 --length 8388608 /dev/mapper/vm1
    eventually 20 test ! -e "$SHARE/fault"
    eventually 20 tracks
    expect_equal "$(on primary dmsetup table vm1@outlet)" "0 32768 error " "the way of discards after the rescue"
    expect_equal "$(limit vm1@gate)/$(limit vm1)" 0/0 "limits of discards after the rescue"
    (($(limit vg-vm1) > 0)) || fail "the volume itself takes no discards any more"
    expect_fail on primary blkdiscard --force --offset 0 --length 1048576 /dev/mapper/vm1
    write_guest
    if [[ $2 == STOP ]]; then
        local before
        before=$(degradations)
        kill_background "$PRIMARY_JOB" CONT
        eventually 30 more_degradations "$before"
    else
        wait_background "$PRIMARY_JOB" || true
        start_primary
        eventually 20 is_served
    fi
    expect_guest "SIG$2 $1"
    again
    expect_guest "SIG$2 $1, in sync again"
}
stopped discard-verified STOP
stopped discard-issued STOP
stopped discard-verified KILL
on primary ftship checkpoint vm1 --wait
promote
on backup dd if=/dev/vg/vm1 of=/share/found bs=1M count=8 iflag=direct status=none
cmp "$SHARE/guest" "$SHARE/found" || fail "the backup does not hold what the guest wrote"
