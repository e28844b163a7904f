#!/bin/bash
# lab: timeout=600
# The backup loses its power while it receives, ROUNDS times, and a seeded part of what its disk had not
# flushed survives: what it acknowledged is there, and its volume is exactly one recorded epoch.
VOLUME_MB=32
EXTRA='[audit]
digest-file = "/share/digests"'
ROUNDS=${ROUNDS-3}
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
protect
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 900 --rate 60
for ((round = 1; round <= ROUNDS; round++)); do
    seed=$((LAB_SEED + round))
    step "round $round, seed $seed"
    sleep "$(awk "BEGIN { srand($seed); print 0.1 + 1.0 * rand() }")"
    acknowledged=$(on primary ftship checkpoint vm1 --wait)
    if ((round % 2)); then power_off backup --keep-random "$seed"; else power_off backup; fi
    wait_state primary degraded
    boot backup
    start_backup
    eventually 20 on backup test -S /run/ftdm/vm1.sock
    promote_recorded_after "$acknowledged"
    renew_backup
done
