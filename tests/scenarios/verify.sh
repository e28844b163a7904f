#!/bin/bash
# Verify under a writer: equal is equal; bits that somebody flips on the backup are found where they are, and mended;
# one that somebody flips below the primary's stack is an alarm of its own.
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
VOLUME_MB=40
SECOND_MB=16
EPOCH=200ms LOG_SIZE="64 MiB"
EXTRA='[verify]
every = "6s"
rate = "32 MiB"
[watchdog]
timeout = "30s"
pause-timeout = "5s"'

# flip DEVICE SECTOR [HOST]: flips one bit of the backup's volume, past everybody.
flip() {
    on "${3-backup}" python3 - "$1" "$2" <<'PYTHON'
import mmap, os, sys
device = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
page, at = mmap.mmap(-1, 4096), int(sys.argv[2]) * 512
os.preadv(device, [page], at - at % 4096)
page[at % 4096 + 77] ^= 4
os.pwritev(device, [page], at - at % 4096)
os.fsync(device)
PYTHON
}

is_applied() { (($(status backup .epochs.applied) >= $1)); }

has_verified() { (($(status primary .verify.count) > $1)); }

make_group
start_daemons
wait_state primary "in sync" 60
step "a writer goes on all the time, on all of one volume and half of the other: nothing differs"
on primary dmsetup create half --table "0 $((VOLUME_MB * 1024)) linear /dev/mapper/vm1 0"
background primary ftdm-workload churn /dev/mapper/half --seed "$LAB_SEED" --seconds 600 --rate 20
WRITER=$JOB
on primary ftship verify vm1 --progress
step "bits flipped on the backup are found where they are"
SECTOR=$((VOLUME_MB * 1024 + 4242))
flip /dev/vg/vm1 "$SECTOR"
flip /dev/vg/vm1_b 7
FOUND=$(expect_code 8 on primary ftship verify vm1)
expect_equal "$FOUND" "vm1 $((SECTOR - SECTOR % 8)) 8
vm1_b 0 8" "what differs"
step "mended, and equal again"
expect_code 8 on primary ftship verify vm1 --repair --progress=json > "$SHARE/mended"
expect_equal "$(tail -n 1 "$SHARE/mended" | jq .verified.repaired_bytes)" 8192 "bytes mended"
on primary ftship verify vm1
expect_equal "$(status primary .verify.untracked_bytes)" 0 "what was never shipped"
step "a bit flipped below the primary's stack is an alarm of its own"
flip /dev/vg/vm1 "$SECTOR" primary
FOUND=$(expect_code 11 on primary ftship verify vm1)
expect_equal "$FOUND" "vm1 $((SECTOR - SECTOR % 8)) 8" "what differs"
expect_equal "$(status primary '.verify.untracked_bytes >= 4096')" true "the counter"
job_errors "$PRIMARY_JOB" | grep -q "tracking alarm: 4096 bytes .*vm1 $((SECTOR - SECTOR % 8))+8" || fail "nothing in the log"
expect_code 11 on primary ftship verify vm1 --repair > /dev/null
on primary ftship verify vm1
step "as configured, by itself"
eventually 60 has_verified "$(status primary .verify.count)"
expect_equal "$(status primary .verify.last.differing_bytes)" 0 "what the last one found"
is_state primary "in sync" || fail "verifying has ended the replication"
step "the content, after all"
kill_background "$WRITER" KILL
wait_background "$WRITER" || true
EPOCH_LAST=$(on primary ftship checkpoint vm1 --wait)
eventually 30 is_applied "$EPOCH_LAST"
for name in vm1 vm1_b; do
    expect_equal "$(digest backup "/dev/vg/$name")" "$(digest primary "/dev/mapper/$name")" "$name"
done
step "one that is interrupted says so"
background primary ftship verify vm1
VERIFY=$JOB
link down
CODE=0
wait_background "$VERIFY" || CODE=$?
expect_equal "$CODE" 1 "its exit code"
job_errors "$VERIFY" | grep -q interrupted || fail "$(job_errors "$VERIFY")"
expect_equal "$(status primary .verify.running)" null "what is left of it"
expect_code 4 on primary ftship verify vm1
step "both stopped: by a list of digests"
expect_code 4 on primary ftship verify vm1 --offline --write /share/list
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB"
stop_backup
on primary ftship verify vm1 --offline --write /share/list
on backup ftship verify vm1 --offline --against /share/list
flip /dev/vg/vm1 "$SECTOR"
FOUND=$(expect_code 8 on backup ftship verify vm1 --offline --against /share/list)
expect_equal "$FOUND" "vm1 $((SECTOR - SECTOR % 2048)) 2048" "what differs"
sed -i '4s/./x/' "$SHARE/list"
expect_code 1 on backup ftship verify vm1 --offline --against /share/list
