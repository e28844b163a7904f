#!/bin/bash
# A group of two volumes of different sizes: the primary loses its power while records go to both in turn, and
# the promoted volumes are those of one epoch, exactly, from one instant, with all that was acknowledged. `tests/run`
# also runs this with a daemon that cuts the volumes one after the other, and expects it to fail.
VOLUME_MB=16 SECOND_MB=24 LOG_SIZE="32 MiB" EPOCH=200ms
EXTRA='[audit]
digest-file = "/share/digests"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
make_group
start_daemons
wait_state primary "in sync" 60
step "records go to both in turn, then the power is cut"
background primary ftdm-workload pairs /dev/mapper/vm1 /dev/mapper/vm1_b --group vm1 --notes /share/notes
has_notes() { (($(wc -l < "$SHARE/notes") >= 5)); }
eventually 60 test -s "$SHARE/notes"
eventually 90 has_notes
on primary ftship status vm1
expect_equal "$(status primary '[.volumes[] | select(.bytes_written > 0) | .name] | join(" ")')" "vm1 vm1_b"
sleep "$(awk "BEGIN { srand($LAB_SEED); print 0.2 + 0.5 * rand() }")"
power_off primary
step "promote"
promote
on backup ftdm-workload check-pairs /dev/vg/vm1 /dev/vg/vm1_b --notes /share/notes --epoch "$EPOCH_PROMOTED"
expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED")" "first volume of epoch $EPOCH_PROMOTED"
expect_equal "$(digest backup /dev/vg/vm1_b)" "$(recorded "$EPOCH_PROMOTED" 2)" "second volume of epoch $EPOCH_PROMOTED"
