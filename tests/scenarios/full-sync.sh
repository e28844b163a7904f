#!/bin/bash
# A full sync under writes: the first committed epoch, and each later one, is the primary's volume. What the backup has
# is not sent, be it all, or what had arrived before the link was lost.
VOLUME_MB=96 EXTRA='[audit]
digest-file = "/share/digests"
[limits]
timeout = "2s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
last_sync() { status primary ".primary.last_sync.$1"; }

make_volumes
step "writers before, during and after the full sync"
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 8 --rate 100
WRITERS=$JOB
start_daemons
wait_state primary "in sync" 60
wait_background "$WRITERS"
# What is cut, and not on the backup's volume, would be sent again.
WRITTEN=$(on primary ftship checkpoint vm1 --wait)
applied() { (($(status primary .epochs.applied) >= WRITTEN)); }
eventually 30 applied

step "an equal backup costs digests"
on primary ftship full-sync vm1 --progress=json > "$SHARE/progress"
tail -n 1 "$SHARE/progress"
jq -es --argjson size $((VOLUME_MB << 20)) '.[-1].synced | .base == null and .skipped >= $size and .sent < 4096
    and .digests > 0 and .digests <= $size / 1000' "$SHARE/progress" > /dev/null || fail "that is not what an equal disk costs"

step "the link is lost in the middle of a full sync: what has arrived is not sent again"
stop_backup
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count="$VOLUME_MB" oflag=direct status=none
on backup ftship format --force vm1
start_backup
sent() { status primary '.primary.sync.sent // 0'; }
half_sent() { (($(sent) > VOLUME_MB << 19)) || is_state primary "in sync"; }
eventually 60 half_sent
SENT=$(sent)
link down
echo "sent before: $SENT"
eventually 60 on primary bash -c "ftship status vm1 --json | jq -e '.state == \"degraded\"' > /dev/null"
link up
wait_state primary "in sync" 60
echo "the last sync: $(status primary '.primary.last_sync | tostring')"
# What left the encoder and not this host does not count.
(($(last_sync skipped) + (24 << 20) >= SENT)) || fail "$(last_sync skipped) bytes not sent again, of $SENT"
(($(last_sync sent) <= (VOLUME_MB + 26 << 20) - SENT)) || fail "$(last_sync sent) bytes sent, and $SENT before"

EPOCH_ASKED=$(on primary ftship checkpoint vm1 --wait)
step "promote"
promote
((EPOCH_PROMOTED >= EPOCH_ASKED)) || fail "promoted at $EPOCH_PROMOTED, acknowledged $EPOCH_ASKED"
expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED")" "the promoted volume"
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the promoted volume"
