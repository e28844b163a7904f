#!/bin/bash
# `checkpoint --quiesced`: a cut without a suspend while nobody writes, refused while somebody does, and
# nothing is harmed by the attempt.
VOLUME_MB=16 JOURNAL_MB=32 EPOCH=1h LOG_SIZE="64 MiB"
# A machine that is busy is not what is looked at here.
EXTRA='[limits]
pause-budget = "100ms"

[audit]
digest-file = "/share/digests"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
protect
step "nobody writes: committed, and no event for udev"
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=32 oflag=direct conv=notrunc status=none
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=4k count=8 seek=3 oflag=direct conv=notrunc status=none
seqnum() { on primary cat /sys/kernel/uevent_seqnum; }
before=$(seqnum)
epoch=$(on primary ftship checkpoint vm1 --quiesced --wait)
expect_equal "$(seqnum)" "$before" "the kernel's event number after a quiesced cut"
expect_equal "$(recorded "$epoch")" "$(digest primary /dev/mapper/vm1)" "what was recorded of epoch $epoch"
on primary ftship checkpoint vm1 --wait
(($(seqnum) > before)) || fail "a suspended cut sends an event, so the comparison means nothing"
step "somebody writes: refused"
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 60 --rate 100
WRITERS=$JOB
sleep 1
expect_code 4 on primary ftship checkpoint vm1 --quiesced --wait
expect_equal "$(status primary .state)" "in sync"
on primary ftship checkpoint vm1 --wait
kill_background "$WRITERS"
wait_background "$WRITERS" || true
step "counting is switched off: there is no proof, so refused"
on primary bash -c 'echo 0 > /sys/dev/block/$(dmsetup info -c --noheadings -o major,minor --separator : vm1)/queue/iostats'
expect_code 4 on primary ftship checkpoint vm1 --quiesced --wait
on primary bash -c 'echo 1 > /sys/dev/block/$(dmsetup info -c --noheadings -o major,minor --separator : vm1)/queue/iostats'
epoch=$(on primary ftship checkpoint vm1 --quiesced --wait)
promote
expect_equal "$EPOCH_PROMOTED" "$epoch"
expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$epoch")" "the promoted volume"
