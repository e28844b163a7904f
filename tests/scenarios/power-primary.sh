#!/bin/bash
# lab: timeout=600
# The primary loses its power while it writes, ROUNDS times: the promoted volume is exactly the digest that
# was recorded in the pause of its epoch, every acknowledged record is there, and nothing later.
VOLUME_MB=32
ROUNDS=${ROUNDS-5}
EXTRA='[audit]
digest-file = "/share/digests"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
make_volumes
on primary mkfs.ext4 -q -E nodiscard /dev/mapper/vm1
for ((round = 1; round <= ROUNDS; round++)); do
    seed=$((LAB_SEED + round))
    step "round $round, seed $seed"
    rm -f "$SHARE/digests" "$SHARE/notes"
    start_daemons
    wait_state primary "in sync" 60
    on primary mount /dev/mapper/vm1 /mnt
    background primary ftdm-workload records /mnt/records --group vm1 --notes /share/notes --every 7
    eventually 30 test -s "$SHARE/notes"
    sleep "$(awk "BEGIN { srand($seed); print 0.2 + 1.5 * rand() }")"
    power_off primary
    promote_recorded_after "$(tail -n 1 "$SHARE/notes" | cut -d' ' -f1)"
    on backup mount /dev/mapper/vm1 /mnt
    on backup ftdm-workload check /mnt/records --notes /share/notes --epoch "$EPOCH_PROMOTED"
    on backup umount /mnt
    on backup e2fsck -fn /dev/mapper/vm1 > "$SHARE/fsck" || fail "$(cat "$SHARE/fsck")"
    stop_backup
    # The next round starts from what the primary's own disk kept.
    boot primary
    on primary mount /dev/mapper/vm1 /mnt
    on primary rm -f /mnt/records
    on primary umount /mnt
    on backup ftship format --force vm1
done
