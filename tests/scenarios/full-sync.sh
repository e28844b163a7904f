#!/bin/bash
# A full sync under writes: the first committed epoch, and each later one, is the primary's volume.
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
EXTRA='[audit]
digest-file = "/share/digests"'
make_volumes
step "writers before, during and after the full sync"
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 8 --rate 100
WRITERS=$JOB
start_daemons
wait_state primary "in sync" 60
wait_background "$WRITERS"
EPOCH_ASKED=$(on primary ftship checkpoint vm1 --wait)
step "promote"
promote
((EPOCH_PROMOTED >= EPOCH_ASKED)) || fail "promoted at $EPOCH_PROMOTED, acknowledged $EPOCH_ASKED"
expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED")" "the promoted volume"
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the promoted volume"
