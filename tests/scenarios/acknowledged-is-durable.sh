#!/bin/bash
# An epoch is acknowledged, then the backup's power is cut at once, and everything that its disk had not
# flushed is lost: the epoch is there. `tests/run` also runs this with a daemon that does not flush its
# journal, and expects it to fail.
VOLUME_MB=32
APPLY_DELAY=30s
EXTRA='[limits]
timeout = "1s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
protect
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=4 oflag=direct conv=notrunc status=none
acknowledged=$(on primary ftship checkpoint vm1 --wait)
power_off backup
boot backup
start_backup
eventually 20 on backup test -S /run/ftdm/vm1.sock
promote
((EPOCH_PROMOTED >= acknowledged)) ||
    fail "acknowledged epoch $acknowledged is lost: promoted at epoch $EPOCH_PROMOTED"
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the promoted volume"
