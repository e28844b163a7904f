#!/bin/bash
# lab: timeout=400
# discards = "pass": fstrim and blkdiscard give space back on both hosts, beside writers; nothing that the guest
# wrote is lost, and whatever they changed is known after the capture was lost.
VOLUME_MB=32 POOL_MB=64 DISCARDS=pass LOG_SIZE="32 MiB"
# What is shown here does not depend on how fast the machine is.
EXTRA='[limits]
void-cuts = 1000
[watchdog]
timeout = "10s"
pause-timeout = "5s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

# used HOST: MiB of the thin pool that the volume takes.
used() { on "$1" lvs --noheadings --nosuffix --units m -o lv_size,data_percent vg/pool | awk '{ print int($1 * $2 / 100) }'; }
is_used_below() { (($(used "$1") < $2)); }
given() { status primary .primary.discards_given; }
has_given() { (($(given) >= $1)); }
# blocks FILE: a digest of every 64 KiB of the volume.
blocks() {
    on primary bash -c "dd if=/dev/vg/vm1 iflag=direct bs=1M status=none | python3 -c '
import hashlib, sys
while block := sys.stdin.buffer.read(65536):
    print(hashlib.sha256(block).hexdigest())' > /share/$1"
}
discard() { on primary blkdiscard --force --offset "$1" --length "$2" /dev/mapper/vm1; }

make_volumes
step "while nothing captures, discards are refused"
on primary ftdm info vm1 | grep 'Discards: *pass'
expect_code 4 on primary ftdm create vm1 --table "$(on primary ftdm table vm1)"
expect_fail discard 0 1048576
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=32 oflag=direct conv=fsync status=none
era=$(on primary ftdm written-since vm1 0 | awk '/^next-era/ { print $2 }')
blocks before

step "unaligned and large discards while captured"
start_daemons
wait_state primary "in sync" 60
full=$(used primary)
discard $((3 * 512)) $((3 * 1048576 + 1536))
for n in 1 2 3 4 5 6; do discard $((10 * 1048576 + n * 3 * 65536 + 4608)) $((65536 * 2 + n * 512)); done
discard $((20 * 1048576)) $((2 * 1048576))
eventually 120 has_given $((4 * 1048576))
eventually 10 is_used_below primary $((full - 3))
eventually 10 is_used_below backup $((full - 3))
is_state primary "in sync" || fail "not in sync"
status primary '"given \(.primary.discards_given), pending \(.primary.discards_pending), part of a pause \(.primary.discard_ms)"'
status backup .backup

step "the daemon is killed: what it discarded was tracked"
kill_background "$PRIMARY_JOB" KILL
wait_background "$PRIMARY_JOB" || true
tracks() { on primary ftdm status vm1 | grep ' ft tracking ' > /dev/null; }
eventually 10 tracks
expect_fail discard 0 1048576
# Of the twelfth number the kernel says that it counts discards.
reached=$(on primary bash -c 'awk "{ print \$12 }" /sys/block/dm-$(dmsetup info -c --noheadings -o minor vm1@gate)/stat')
expect_equal "$reached" 0 "discards of the guest below the log"
blocks after
on primary ftdm written-since vm1 "$era" > "$SHARE/written"
python3 - "$SHARE" <<'PYTHON'
import sys
share = sys.argv[1]
before, after = (open(f"{share}/{name}").read().split() for name in ("before", "after"))
changed = {n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
lines = [line.split() for line in open(f"{share}/written")]
written = {b for start, length in lines if start.isdigit() for b in range(int(start) // 128, (int(start) + int(length) - 1) // 128 + 1)}
print(f"{len(changed)} blocks changed, {len(written)} are known")
if len(changed) < 64 or not changed <= written:
    sys.exit(f"changed and not known: {sorted(changed - written)[:20]}")
PYTHON

step "writers all over the volume, and discards in their midst: the copy is the same in every sector"
background primary ftship run vm1
PRIMARY_JOB=$JOB
wait_state primary "in sync" 60
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3 --rate 40
WRITERS=$JOB
for n in $(seq 12); do discard $((RANDOM * 512)) $(((RANDOM % 2000 + 1) * 512)); done
wait_background "$WRITERS"
on primary ftship checkpoint vm1 --wait
is_same() { [[ $(digest backup /dev/vg/vm1) == $(digest primary /dev/mapper/vm1) ]]; }
# Once no more is given back.
eventually 90 is_same

step "a file system, trimmed beside a writer"
on primary mkfs.ext4 -q -E nodiscard /dev/mapper/vm1
on primary mount /dev/mapper/vm1 /mnt
: > "$SHARE/notes"
background primary ftdm-workload records /mnt/records --notes /share/notes --group vm1 --every 5
RECORDS=$JOB
on primary dd if=/dev/urandom of=/mnt/ballast bs=1M count=8 conv=fsync status=none
on primary rm /mnt/ballast
# What is written in the epoch of the discard is not given back.
on primary ftship checkpoint vm1 --wait
before=$(given)
on primary fstrim -v /mnt
eventually 60 has_given $((before + 4 * 1048576))
kill_background "$RECORDS" TERM
wait_background "$RECORDS" || true
on primary umount /mnt
is_state primary "in sync" || fail "not in sync"
on primary ftship checkpoint vm1 --wait
status primary '"given \(.primary.discards_given), pending \(.primary.discards_pending), forgotten \(.primary.discards_forgotten), void \(.primary.void_cuts), pause \(.primary.pause_ms), discards \(.primary.discard_ms)"'
promote
on backup e2fsck -fn /dev/mapper/vm1
on backup mount /dev/mapper/vm1 /mnt
on backup ftdm-workload check /mnt/records --notes /share/notes --epoch "$EPOCH_PROMOTED"
