#!/bin/bash
# lab: timeout=240
# A sync ends also where its last round takes far longer than the log takes to fill: what is captured goes out in parts
# meanwhile, and no write waits for that.
VOLUME_MB=32 LOG_SIZE="4 MiB" TLS=off EXTRA="[limits]
overrun = \"${OVERRUN-degrade}\""
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
make_volumes
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count="$VOLUME_MB" oflag=direct status=none
step "a link of 3 MB/s, and a guest that writes 2 MB/s, nothing of which compresses"
on primary modprobe sch_tbf
on primary tc qdisc add dev vec0 root tbf rate 24mbit burst 64k latency 500ms
background primary fio --name=guest --filename=/dev/mapper/vm1 --direct=1 --ioengine=libaio --rw=randwrite --bs=4k \
    --iodepth=4 --rate_iops=500 --refill_buffers --norandommap --time_based --runtime=600 --output-format=json \
    --output=/share/fio.json
GUEST=$JOB
start_daemons
wait_state primary "in sync" 150
echo "the sync: $(status primary '.primary.last_sync | tostring')"
ROTATIONS=$(status primary .primary.log_rotations) HOLDS=$(status primary .primary.holds)
echo "parts: $ROTATIONS, times that writes were held back: $HOLDS"
((ROTATIONS >= 2)) || fail "the last round fitted into the log: this shows nothing"
((HOLDS == 0)) || fail "writes were held back"
step "in sync beside the guest"
on primary ftship checkpoint vm1 --wait > /dev/null
on primary pkill -INT fio
wait_background "$GUEST" || true
EPOCH_ASKED=$(on primary ftship checkpoint vm1 --wait)
promote
((EPOCH_PROMOTED >= EPOCH_ASKED)) || fail "promoted at $EPOCH_PROMOTED, acknowledged $EPOCH_ASKED"
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the promoted volume"
LONGEST=$(sed -n '/^{/,$p' "$SHARE/fio.json" | jq '.jobs[0].write.clat_ns.max / 1000000 | floor')
echo "the longest write took $LONGEST ms"
((LONGEST <= 2000)) || fail "a write took $LONGEST ms"
