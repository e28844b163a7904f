#!/bin/bash
# lab: timeout=300
# The link is so slow that the log fills: replication degrades, the volume goes on at full speed, and an
# operator's full sync brings the pair back.
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
expect_fail on primary dmsetup info vm1-log
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=8 oflag=direct conv=notrunc,fsync status=none
link up
step "a full sync on demand"
is_connected() { [[ $(status primary .connected) == true ]]; }
eventually 90 is_connected
expect_equal "$(status primary .state)" degraded
on primary ftship full-sync vm1
wait_state primary "in sync" 60
expect_code 4 on primary ftship full-sync vm1
on primary ftship checkpoint vm1 --wait
promote
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the promoted volume"
