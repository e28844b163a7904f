#!/bin/bash
# A copy that only ever takes what `written-since` reports equals the volume, whatever power cuts undo.
# lab: timeout=300
. "$(dirname "${BASH_SOURCE[0]}")/era.bash"

CUTS=${CUTS-2}
# survive NAME BLOCK_SECTORS: writers, rolls under them, power cuts; the copy outside the host.
survive() {
    local name=$1 block=$2 cut writers keep round
    make_tracked "$name" 64M "$block"
    era catch-up "$name" "/share/$name.replica" "/share/$name.era"
    for ((cut = 1; cut <= CUTS; cut++)); do
        writers=$(background primary ftdm-workload churn "/dev/mapper/$name" \
            --seed $((LAB_SEED * 1000 + cut)) --threads 4 --seconds 120 --rate 300)
        for ((round = 0; round < 3; round++)); do
            era catch-up "$name" "/share/$name.replica" "/share/$name.era"
        done
        keep=()
        if ((cut % 2)); then keep=(--keep-random $((LAB_SEED * 100 + cut))); fi
        power_off primary "${keep[@]}"
        expect_fail wait_background "$writers"
        power_on primary
        on primary ftdm create "$name" --recorded-era "$(cat "$SHARE/$name.era")" \
            --table "0 131072 ft /dev/vg/${name}_meta /dev/vg/$name $block"
        era catch-up "$name" "/share/$name.replica" "/share/$name.era"
        era compare "$name" "/share/$name.replica"
    done
    untrack "$name"
}

step "64 KiB blocks"
survive vm1 128
step "4 KiB blocks"
survive vm2 8
