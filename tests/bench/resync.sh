#!/bin/bash
# lab: timeout=1800 memory=1G disk-size=4G
# What it costs to be in step again after the link was away: the same writes to ftdm's volume and to DRBD's (protocol C),
# then bytes on the wire in both directions, and the time from the link's return until in sync.
TLS=off  # as the peer
VOLUME_MB=256 JOURNAL_MB=256 LOG_SIZE="128 MiB" EXTRA='[limits]
timeout = "2s"'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
. "$LAB_REPOSITORY/tests/bench/drbd.bash"
export LC_ALL=C

wire() { on primary bash -c 'cat /sys/class/net/vec0/statistics/{rx,tx}_bytes' | awk '{ n += $1 } END { print n }'; }
now() { date +%s%3N; }
drbd_lost() { on primary bash -c '! grep -q cs:Connected /proc/drbd'; }
ftdm_lost() { ! is_state primary "in sync"; }
ftdm_in_sync() { is_state primary "in sync"; }

# write_away DEVICE COUNT SEED: random 4 KiB writes, then a run of 8 MB.
write_away() {
    on primary fio --name=away --filename="$1" --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=8 \
        --size=${VOLUME_MB}M --number_ios="$2" --randseed="$3" --refill_buffers --output="/share/fio" || fail "$(cat "$SHARE/fio")"
    on primary dd if=/dev/urandom of="$1" bs=1M seek=100 count=8 oflag=direct conv=fsync,notrunc status=none
}

# outage NAME DEVICE COUNT: the link goes, COUNT writes, it returns.
outage() {
    local begun bytes written=$(($3 * 4 + 8192))
    link down
    eventually 60 "$1_lost"
    write_away "$2" "$3" "$LAB_SEED"
    bytes=$(wire) begun=$(now)
    link up
    eventually 300 "$1_in_sync"
    printf '   %-5s %6d KiB written, %7d KiB on the wire, in sync after %5d ms\n' \
        "$1" "$written" $((($(wire) - bytes) / 1024)) $(($(now) - begun))
}

step "setting up ftdm and DRBD"
{
    make_drbd "$VOLUME_MB"
    make_volumes
} > "$SHARE/set-up.log" 2>&1
# Full of what does not compress, as nobody's zeros are to make a granule cheap.
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count="$VOLUME_MB" oflag=direct status=none
# DRBD's internal metadata makes its device a little shorter: dd ends with no space left.
on primary dd if=/dev/urandom of=/dev/drbd0 bs=1M count="$VOLUME_MB" oflag=direct status=none 2> /dev/null || true
start_daemons
wait_state primary "in sync" 120
for count in 200 2000; do
    step "link away, $count random writes of 4 KiB and a run of 8 MB"
    outage ftdm /dev/mapper/vm1 "$count"
    outage drbd /dev/drbd0 "$count"
done
