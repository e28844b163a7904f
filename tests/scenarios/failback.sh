#!/bin/bash
# lab: timeout=400
# The primary loses its power under load, the backup is promoted and written to, the old primary comes back and is
# resynchronised by what changed on both sides, and takes over again.
VOLUME_MB=128
EXTRA='[limits]
timeout = "3s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
is_role() { [[ $(status "$1" .role 2>/dev/null) == "$2" ]]; }
# blocks HOST FILE: a digest of every 64 KiB of the volume.
blocks() {
    on "$1" bash -c "dd if=/dev/vg/vm1 iflag=direct bs=1M status=none | python3 -c '
import hashlib, sys
while block := sys.stdin.buffer.read(65536):
    print(hashlib.md5(block).hexdigest())' > /share/$2"
}

step "in sync, then a power cut of the primary under load"
make_volumes
on primary mkfs.ext4 -q -E nodiscard,lazy_itable_init=0 /dev/mapper/vm1
start_daemons
wait_state primary "in sync" 60
blocks primary old-0
on primary mount /dev/mapper/vm1 /mnt
background primary ftdm-workload records /mnt/records --group vm1 --notes /share/notes --every 7
noted() { [[ -s $SHARE/notes ]] && (($(wc -l < "$SHARE/notes") >= 10)); }
eventually 60 noted
power_off primary
promote
acknowledged=$(tail -n 1 "$SHARE/notes" | cut -d' ' -f1)
((EPOCH_PROMOTED >= acknowledged)) || fail "acknowledged epoch $acknowledged is lost"

forked=$EPOCH_PROMOTED

step "the promoted side is a primary at once, in the same process"
eventually 20 is_role backup primary
is_state backup degraded || fail "$(status backup .state)"
expect_equal "$(on backup ftship promote vm1)" "$EPOCH_PROMOTED" "asked again"
blocks backup new-0
on backup mount /dev/mapper/vm1 /mnt
on backup ftdm-workload check /mnt/records --notes /share/notes --epoch "$EPOCH_PROMOTED"
on backup dd if=/dev/urandom of=/mnt/since bs=64k count=32 conv=fsync status=none
settle backup

step "the old primary comes back by itself: outdated, then a backup, then in sync"
boot primary
blocks primary old-1
background primary ftship run vm1
PRIMARY_JOB=$JOB
eventually 60 is_role primary backup
wait_state backup "in sync" 90
blocks backup new-1
status backup .primary.last_sync
expect_equal "$(status backup .primary.last_sync.base)" "$EPOCH_PROMOTED" "what the resynchronisation started from"
python3 - "$SHARE" "$(status backup .primary.last_sync.bytes)" $((VOLUME_MB << 20)) <<'PYTHON'
import sys
share, copied, whole = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def changed(side):
    before, after = (open(f"{share}/{side}-{n}").read().split() for n in (0, 1))
    return {n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
old, new = changed("old"), changed("new")
most = len(old | new) * 65536
print(f"{len(old)} blocks of 64 KiB changed on the old primary, {len(new)} on the new one: {most} bytes; copied {copied} of {whole}")
# A block may be written without being changed.
if copied > most + most // 4 + (1 << 20) or copied > whole // 4:
    sys.exit("too much was copied")
PYTHON

step "the roles are exchanged back, behind a load, without a loss; not while the volume is in use"
rm -f "$SHARE/more"
background backup ftdm-workload records /mnt/more --group vm1 --notes /share/more --every 7
noted_more() { [[ -s $SHARE/more ]] && (($(wc -l < "$SHARE/more") >= 5)); }
eventually 60 noted_more
expect_code 4 on backup ftship switch vm1
kill_background "$JOB" TERM
wait_background "$JOB" || true
sums=$(on backup md5sum /mnt/since /mnt/records /mnt/more)
on backup umount /mnt
on backup ftship switch vm1
eventually 20 is_role primary primary
eventually 20 is_role backup backup
on primary mount /dev/mapper/vm1 /mnt
expect_equal "$(on primary md5sum /mnt/since /mnt/records /mnt/more)" "$sums"
on primary umount /mnt
wait_state primary "in sync" 60
status primary .primary.last_sync
on primary ftship checkpoint vm1 --wait
same() { [[ $(digest primary /dev/vg/vm1) == $(digest backup /dev/vg/vm1) ]]; }
eventually 20 same

step "a planned failover without a switch: the old primary becomes the backup by itself, in the same boot"
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB" || fail "the primary's daemon did not stop cleanly"
promote
background primary ftship run vm1
PRIMARY_JOB=$JOB
eventually 30 is_role primary backup
wait_state backup "in sync" 60
expect_equal "$(status backup .role)" primary
