#!/bin/bash
# lab: timeout=240
# Second pass of the demonstration; see `demo`.
EXTRA='[audit]
digest-file = "/share/digests"'
VOLUME_MB=64
. "$(dirname "${BASH_SOURCE[0]}")/../scenarios/pair.bash"
step "primary and backup anew; each cut now records the volume's SHA-256 in its pause, outside the host"
protect > "$SHARE/set-up.log" 2>&1
step "primary: writers that overlap each other deliberately"
background primary ftdm-workload churn /dev/mapper/vm1 --seconds 120 --rate 60
recorded_enough() { (($(wc -l < "$SHARE/digests") >= 40)); }
eventually 60 recorded_enough
step "primary: power cut"
power_off primary
promote
actual=$(digest backup /dev/vg/vm1)
echo "   promoted to epoch $EPOCH_PROMOTED of $(wc -l < "$SHARE/digests") recorded ones"
echo "   recorded in its pause: $(recorded "$EPOCH_PROMOTED")"
echo "   the promoted volume:   $actual"
equal=false
if [[ $actual == "$(recorded "$EPOCH_PROMOTED")" ]]; then equal=true; fi
jq -n --argjson equal "$equal" '{promoted_equals_recorded: $equal}' > "$SHARE/bit-for-bit.json"
[[ $equal == true ]] || fail "the promoted volume is not that of epoch $EPOCH_PROMOTED"
