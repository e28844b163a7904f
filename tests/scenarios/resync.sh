#!/bin/bash
# lab: timeout=600
# Whatever parts the pair, it is in sync by itself again, at the cost of what changed, and all the while the backup can
# be promoted to the last committed epoch.
VOLUME_MB=64 JOURNAL_MB=160 LOG_SIZE="16 MiB"
POLICY='roll-interval = "1s"
resync-target = "0s"'
EXTRA='[audit]
digest-file = "/share/digests"
[limits]
timeout = "2s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

# write_mb COUNT AT: so many MB that do not compress, at that MB.
write_mb() {
    on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count="$1" seek="$2" oflag=direct conv=notrunc,fsync status=none
}
last_sync() { status primary ".primary.last_sync.$1"; }
# rolled: dm-era was rolled since: a later sync starts behind everything written before.
rolled() { sleep 3.5; on primary ftship checkpoint vm1 --wait > /dev/null; }
is_applied() { (($(status backup .epochs.applied) >= $1)); }

# in_step MB: the pair is in sync by itself, by at most so much, staged; and the backup holds what the primary does.
in_step() {
    wait_state primary "in sync" 90
    local epoch
    epoch=$(on primary ftship checkpoint vm1 --wait)
    echo "the last sync: $(status primary '.primary.last_sync | tostring')"
    expect_equal "$(last_sync carrier)" staged "the carrier"
    (($(last_sync bytes) <= $1 << 20)) || fail "$(last_sync bytes) bytes were copied, $1 MB had changed"
    (($(last_sync sent) <= ($1 + 1) << 20)) || fail "$(last_sync sent) bytes were sent, $1 MB had changed"
    eventually 60 is_applied "$epoch"
    expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the backup's volume"
}

# blocks HOST DEVICE FILE: a digest of each 4 KiB of it.
blocks() {
    on "$1" python3 - "$2" "/share/$3" <<'PYTHON'
import hashlib, sys
with open(sys.argv[1], "rb") as volume, open(sys.argv[2], "w") as out:
    while block := volume.read(4096):
        print(hashlib.md5(block).hexdigest(), file=out)
PYTHON
}

# differing: blocks of 4 KiB in which the two volumes differ just now.
differing() {
    blocks primary /dev/mapper/vm1 blocks.primary
    blocks backup /dev/vg/vm1 blocks.backup
    paste "$SHARE/blocks.primary" "$SHARE/blocks.backup" | awk '$1 != $2 { n++ } END { print n + 0 }'
}

protect
expect_equal "$(last_sync carrier)" in-place "the first copy"

step "the link is cut while a writer goes on"
rolled
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 6 --rate 100
WRITERS=$JOB
link down
wait_state primary degraded
wait_background "$WRITERS"
link up
in_step 64
step "the link is cut, and little changes"
rolled
link down
wait_state primary degraded
write_mb 4 16
link up
in_step 6

step "the link is cut, and what changes is scattered: only that is sent"
rolled
APPLIED=$(on primary ftship checkpoint vm1 --wait)
eventually 60 is_applied "$APPLIED"
link down
wait_state primary degraded
on primary fio --name=scattered --filename=/dev/mapper/vm1 --direct=1 --rw=randwrite --bs=4k --size="${VOLUME_MB}M" \
    --number_ios=200 --randseed="$LAB_SEED" --refill_buffers --output=/share/fio || fail "$(cat "$SHARE/fio")"
DIFFER=$(differing)
((DIFFER >= 190)) || fail "$DIFFER blocks differ, 200 were written"
link up
in_step 32
(($(last_sync bytes) >= DIFFER * 16384)) || fail "$(last_sync bytes) bytes covered: the writes were not scattered"
(($(last_sync sent) >= DIFFER * 4096)) || fail "$(last_sync sent) bytes sent, of $DIFFER blocks that do not compress"
(($(last_sync sent) <= DIFFER * 4200 + 65536)) || fail "$(last_sync sent) bytes sent for $DIFFER blocks"
(($(last_sync digests) <= $(last_sync bytes) / 100)) || fail "$(last_sync digests) bytes of digests"

step "the primary's daemon is killed"
rolled
kill_background "$PRIMARY_JOB" KILL
wait_background "$PRIMARY_JOB" || true
write_mb 3 30
background primary ftship run vm1
PRIMARY_JOB=$JOB
in_step 5

step "the primary loses its power"
settle primary
rolled
power_off primary
power_on primary
install_config primary
on primary ftdm create vm1 --table "0 $((VOLUME_MB * 2048)) ft /dev/vg/vm1_meta /dev/vg/vm1 128"
write_mb 3 40
background primary ftship run vm1
PRIMARY_JOB=$JOB
in_step 5

step "the backup loses its power, and is promoted while it catches up"
rolled
acknowledged=$(on primary ftship checkpoint vm1 --wait)
power_off backup
wait_state primary degraded
write_mb 24 8
power_on backup
install_config backup
start_backup
eventually 60 on backup test -S /run/ftdm/vm1.sock
is_catching_up() { [[ $(status backup .state) == "syncing" ]] || is_state primary "in sync"; }
eventually 60 is_catching_up
status backup .reason
promote_recorded_after "$acknowledged"
