#!/bin/bash
# lab: timeout=300
# `ftship journal` beside a running daemon and without one: it lists the epochs; its check finds damage at
# several places and names the byte; a power cut is no damage; nothing is ever changed.
APPLY_DELAY=60s
. "$LAB_REPOSITORY/tests/scenarios/faults/backup.bash"
protect
for n in 1 2 3 4 5; do
    on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=16k count=2 seek=$n oflag=direct conv=notrunc status=none
    acknowledged=$(on primary ftship checkpoint vm1 --wait)
done
journal() { on backup ftship journal vm1 --json "$@"; }

step "beside the daemon"
expect_code 0 on backup ftship journal vm1 --check
journal > "$SHARE/beside.json"
expect_equal "$(jq .daemon "$SHARE/beside.json")" true
promotable=$(jq .promotable "$SHARE/beside.json")
((promotable >= acknowledged)) || fail "it lists epoch $promotable as the last, $acknowledged is acknowledged"

step "after a power cut"
power_off backup
power_on backup
install_config backup
expect_code 0 on backup ftship journal vm1 --check
journal > "$SHARE/offline.json"
expect_equal "$(jq .daemon "$SHARE/offline.json")" false
promotable=$(jq .promotable "$SHARE/offline.json")
((promotable >= acknowledged)) || fail "it lists epoch $promotable as the last, $acknowledged is acknowledged"

step "damage"
on backup dd if=/dev/vg/vm1_journal of=/root/journal bs=1M iflag=direct status=none
restore() { on backup dd if=/root/journal of=/dev/vg/vm1_journal bs=1M oflag=direct status=none; }
# damaged CODE FINDING_BYTE BYTE...: strikes there, and compares the code and the byte of the last finding.
damaged() {
    local code=$1 finding=$2 byte before
    shift 2
    for byte in "$@"; do
        on backup bash -c "head -c 512 /dev/urandom | dd of=/dev/vg/vm1_journal bs=1 seek=$byte conv=notrunc,fsync status=none"
    done
    before=$(digest backup /dev/vg/vm1_journal)
    expect_code "$code" on backup ftship journal vm1 --check > "$SHARE/text"
    if [[ -n $finding ]]; then
        expect_equal "$(journal | jq '.findings[-1].offset')" "$finding" "the byte of what is wrong"
    fi
    expect_equal "$(digest backup /dev/vg/vm1_journal)" "$before" "the journal after its check"
}
middle=$(jq '[.epochs[] | select(.state == "committed")] | .[length / 2 | floor].offset' "$SHARE/offline.json")
first=$(jq '.epochs[0].offset' "$SHARE/offline.json")
damaged 7 "$middle" "$middle"
cat "$SHARE/text"
restore
damaged 7 "$((middle + 4096))" $((middle + 4096 + 140))
restore
damaged 7 "$first" "$first"
restore
# One of two slots: nothing is lost, and it is no longer what it was.
damaged 7 0 100
restore
damaged 7 "" 100 $((65536 + 100))
expect_fail on backup ftship run vm1
restore
on backup dd if=/dev/zero of=/dev/vg/vm1_journal bs=1M count=4 oflag=direct status=none
expect_code 4 on backup ftship journal vm1 --check
expect_code 4 on backup ftship journal vm1
restore

step "the journal as it was: everything is there"
expect_code 0 on backup ftship journal vm1 --check
start_backup
eventually 30 is_up
expect_promoted "$acknowledged" "after the checks"
on backup ftship journal vm1 --all | head -n 20
