#!/bin/bash
# lab: timeout=300
# The primary loses its power under load, the backup is promoted and written to, the old primary comes back and is
# resynchronised by what changed on both sides.
VOLUME_MB=64
EXTRA='[audit]
digest-file = "/share/digests"
[limits]
timeout = "2s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
is_role() { [[ $(status "$1" .role 2>/dev/null) == "$2" ]]; }

step "in sync, then a power cut of the primary under load"
protect
on primary mkfs.ext4 -q -E nodiscard /dev/mapper/vm1
on primary mount /dev/mapper/vm1 /mnt
background primary ftdm-workload records /mnt/records --group vm1 --notes /share/notes --every 7
eventually 30 test -s "$SHARE/notes"
sleep 1
power_off primary
promote_recorded_after "$(tail -n 1 "$SHARE/notes" | cut -d' ' -f1)"

step "the promoted side is a primary at once, in the same process"
eventually 20 is_role backup primary
is_state backup degraded || fail "$(status backup .state)"
expect_equal "$(on backup ftship promote vm1)" "$EPOCH_PROMOTED" "asked again"
rm "$SHARE/digests"
on backup mount /dev/mapper/vm1 /mnt
on backup ftdm-workload check /mnt/records --notes /share/notes --epoch "$EPOCH_PROMOTED"
on backup dd if=/dev/urandom of=/mnt/since bs=64k count=32 conv=fsync status=none
on backup ftship status vm1

step "the old primary comes back: outdated, then a backup, then in sync"
boot primary
background primary ftship run vm1
PRIMARY_JOB=$JOB
eventually 60 is_role primary backup
wait_state backup "in sync" 90
on primary ftship status vm1
on backup dd if=/dev/urandom of=/mnt/since bs=64k count=16 conv=notrunc,fsync status=none
on backup sync -f /mnt
on backup ftship checkpoint vm1 --wait
on backup umount /mnt
on backup ftship checkpoint vm1 --wait
same() { [[ $(digest primary /dev/vg/vm1) == $(digest backup /dev/vg/vm1) ]]; }
eventually 20 same
