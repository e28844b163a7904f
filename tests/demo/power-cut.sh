#!/bin/bash
# lab: timeout=240
# First pass of the demonstration; see `demo`.
. "$(dirname "${BASH_SOURCE[0]}")/../scenarios/pair.bash"
VOLUME_MB=128
step "primary: logical volumes and the stack /dev/mapper/vm1; backup: volume and journal"
make_volumes > "$SHARE/set-up.log" 2>&1
step "primary: ext4 on /dev/mapper/vm1"
on primary mkfs.ext4 -q -E nodiscard /dev/mapper/vm1
on primary mount /dev/mapper/vm1 /mnt
step "both: ftship run vm1; full sync of ${VOLUME_MB} MB while the volume is in use"
start_daemons
wait_state primary "in sync" 60
on primary ftship status vm1
step "primary: a writer that makes each record durable; notes of acknowledged checkpoints go outside"
background primary ftdm-workload records /mnt/records --group vm1 --notes /share/notes --every 20
background primary bash -c 'while :; do dd if=/dev/urandom of=/mnt/noise bs=64k count=16 conv=notrunc,fsync status=none; sleep 0.1; done'
for second in 1 2 3 4 5 6 7 8 9 10; do
    sleep 1
    printf '   %2d s: %s committed epochs, acknowledged records: %s\n' "$second" \
        "$(status primary .epochs.committed)" "$(tail -n 1 "$SHARE/notes" 2>/dev/null | cut -d' ' -f2)"
done
on primary ftship status vm1 --json > "$SHARE/status.json"
sleep 0.37
step "primary: power cut, in the middle of writing"
power_off primary
step "backup: ftship promote vm1"
begun=$(date +%s%N)
promote
promote_ms=$((($(date +%s%N) - begun) / 1000000))
echo "   promoted to epoch $EPOCH_PROMOTED in $promote_ms ms"
step "backup: mount (replays the file system's journal, as after any power cut), check every record"
on backup mount /dev/mapper/vm1 /mnt
records=$(on backup ftdm-workload check /mnt/records --notes /share/notes --epoch "$EPOCH_PROMOTED" || true)
on backup umount /mnt
echo "   ${records:-records are missing}"
step "backup: fsck"
fsck=clean
on backup e2fsck -fn /dev/mapper/vm1 > "$SHARE/fsck" 2>&1 || fsck=damaged
tail -n 1 "$SHARE/fsck"
jq -n --slurpfile status "$SHARE/status.json" --argjson records "${records:-'{"records_lost": -1}'}" \
    --arg fsck "$fsck" --argjson promote_ms "$promote_ms" --argjson promoted "$EPOCH_PROMOTED" '
    $status[0] as $s | {
        epochs_committed: $s.epochs.committed_count,
        epoch_ms: $s.primary.epoch_ms,
        pause_ms: ($s.primary.pause_ms | {p50, p99, max}),
        commit_lag_ms: ($s.primary.commit_lag_ms | {p50, p99}),
        void_cuts: $s.primary.void_cuts,
        bytes_written: $s.primary.bytes_written,
        bytes_shipped: $s.primary.bytes_shipped,
        promoted_epoch: $promoted,
        promote_ms: $promote_ms,
        records_acknowledged: $records.records_acknowledged,
        records_found: $records.records_found,
        records_lost: $records.records_lost,
        fsck: $fsck
    }' > "$SHARE/power-cut.json"
