#!/bin/bash
# lab: timeout=300
# The link is so slow that the log fills: replication degrades, the volume goes on at full speed, and the pair is in
# step by itself once the link is back. A full sync is for operators who want a whole copy.
VOLUME_MB=32
LOG_SIZE="8 MiB"
EXTRA='[limits]
window = 2
timeout = "60s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
protect
step "no link, more writes than the log holds"
link down
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=32 oflag=direct conv=notrunc status=none
wait_state primary degraded
status primary .reason
capture_ended() { ! on primary dmsetup info vm1@log > "$SHARE/info" 2>&1; }
eventually 10 capture_ended
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=8 oflag=direct conv=notrunc,fsync status=none
link up
wait_state primary "in sync" 90
step "a full sync on demand"
on primary ftship full-sync vm1 --progress=json > "$SHARE/progress"
jq -es 'length > 0 and (.[-1].synced.bytes >= 33554432) and all(.[:-1][]; .syncing.bytes > 0)' "$SHARE/progress" > /dev/null ||
    fail "$(cat "$SHARE/progress")"
expect_equal "$(status primary .state)" "in sync"
expect_equal "$(status primary '.primary.last_sync | "\(.carrier) \(.base)"')" "in-place null" "what was copied"
on primary ftship checkpoint vm1 --wait
promote
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the promoted volume"
