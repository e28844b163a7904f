#!/bin/bash
# lab: timeout=900
# Both logical volumes are enlarged, and then the volume, while a writer runs: the disk is larger at once, the pair is in
# sync again, and after a power cut of the primary the promoted side has exactly the last epoch in the new size. What
# cannot be enlarged is refused, by name, and nothing changes. Daemons are killed right after the command. Then the old
# primary comes back, and the roles are exchanged.
VOLUME_MB=32 SECOND_MB=16 JOURNAL_MB=64
EXTRA='[audit]
digest-file = "/share/digests"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

size_of() { on "$1" blockdev --getsize64 "${2-/dev/mapper/vm1}"; }
mib() { echo $(($1 << 20)); }
is_role() { [[ $(status "$1" .role 2>/dev/null) == "$2" ]]; }
is_size() { [[ $(size_of "$1" "${3-/dev/mapper/vm1}") == "$2" ]]; }
# extend HOST MB [VOLUME]
extend() { on "$1" lvextend -q -L "${2}M" "vg/${3-vm1}"; }
# refused TEXT: the resize is, and says so; the disk is as it was.
refused() {
    local before said
    before=$(size_of primary)
    said=$(expect_code 4 on primary ftship resize vm1 2>&1) || fail "$said"
    grep -q "$1" <<< "$said" || fail "it says: $said"
    expect_equal "$(size_of primary)" "$before" "the disk after a refusal"
}
start_primary() {
    background primary ftship run vm1
    PRIMARY_JOB=$JOB
}
# The writer never meets an error, whatever happens below it.
start_writer() {
    background primary ftdm-workload churn /dev/mapper/vm1 --seed "$1" --seconds 600 --rate 100
    WRITER_JOB=$JOB
}
writes_on() { on primary pgrep -x ftdm-workload > /dev/null || fail "the writer met an error: $(job_errors "$WRITER_JOB")"; }
# fill HOST MB COUNT: random data from there on.
fill() { on "$1" dd if=/dev/urandom of=/dev/mapper/vm1 oflag=direct bs=1M seek="$2" count="$3" status=none; }

make_group
start_daemons
wait_state primary "in sync" 60
start_writer 1

step "nothing to do; the backup is not enlarged, or not there; a smaller device"
on primary ftship resize vm1 > "$SHARE/said"
expect_equal "$(head -1 "$SHARE/said")" "vm1 $(mib 32) bytes, as before"
extend primary 40
refused "volume vm1 .*enlarge its logical volume there"
is_state primary "in sync" || fail "a refusal ends nothing"
stop_backup
refused "not connected"
start_backup
wait_state primary "in sync" 60
on primary lvreduce -q -f -y -L 12M vg/vm1_b
refused "volume vm1_b .*a volume is not made smaller"
extend primary 16 vm1_b

step "both are enlarged, the primary first, and then the volume, while it is written to"
extend backup 40
on primary ftship resize vm1 > "$SHARE/said"
expect_equal "$(head -1 "$SHARE/said")" "vm1 $(mib 40) bytes, before $(mib 32)"
expect_equal "$(size_of primary)" "$(mib 40)" "the disk"
expect_equal "$(sed -n 2p "$SHARE/said")" "vm1_b $(mib 16) bytes, as before"
wait_state primary "in sync" 90
writes_on
fill primary 34 2
on primary ftship checkpoint vm1 --wait
expect_equal "$(on primary ftship verify vm1 > /dev/null && echo same)" same "a verify"

step "the backup first, both volumes, and both daemons are killed right after the command"
extend backup 48
extend backup 24 vm1_b
extend primary 48
extend primary 24 vm1_b
background primary ftship resize vm1
sleep "$(awk "BEGIN { srand($LAB_SEED); print 0.3 * rand() }")"
kill_background "$PRIMARY_JOB" KILL
kill_background "$BACKUP_JOB" KILL
wait_background "$JOB" || true
wait_background "$PRIMARY_JOB" || true
wait_background "$BACKUP_JOB" || true
writes_on
start_backup
start_primary
wait_state primary "in sync" 90
on primary ftship resize vm1
wait_state primary "in sync" 90
expect_equal "$(size_of primary)" "$(mib 48)" "the disk"
expect_equal "$(size_of primary /dev/mapper/vm1_b)" "$(mib 24)" "the second disk"
writes_on

step "the backup's daemon is killed while it syncs what is new"
extend primary 56
extend backup 56
on primary ftship resize vm1
kill_background "$BACKUP_JOB" KILL
wait_background "$BACKUP_JOB" || true
expect_equal "$(size_of primary)" "$(mib 56)" "the disk"
fill primary 50 2
start_backup
wait_state primary "in sync" 90
writes_on

step "a power cut of the primary: exactly the epoch, in the new size"
settle primary
epoch=$(on primary ftship checkpoint vm1 --wait)
power_off primary
promote
((EPOCH_PROMOTED >= epoch)) || fail "acknowledged epoch $epoch is lost: promoted at epoch $EPOCH_PROMOTED"
expect_equal "$(size_of backup)" "$(mib 56)" "the promoted disk"
expect_equal "$(size_of backup /dev/mapper/vm1_b)" "$(mib 24)" "the second promoted disk"
expect_equal "$(digest backup /dev/mapper/vm1)" "$(recorded "$EPOCH_PROMOTED")" "volume of epoch $EPOCH_PROMOTED"
expect_equal "$(digest backup /dev/mapper/vm1_b)" "$(recorded "$EPOCH_PROMOTED" 2)" "second volume of epoch $EPOCH_PROMOTED"

step "failing back, and a resize by the new primary"
fill backup 54 2
power_on primary
install_config primary
sed -i 's|^device = "/dev/vg/\(vm1\(_b\)\?\)"|&\nmetadata = "/dev/vg/\1_meta"|' "$SHARE/config/primary.toml"
install_config primary
on primary ftship setup vm1
expect_equal "$(size_of primary)" "$(mib 56)" "the old primary's disk after a boot"
start_primary
eventually 60 is_role primary backup
wait_state backup "in sync" 90
extend primary 64
extend backup 64
on backup ftship resize vm1
expect_equal "$(size_of backup)" "$(mib 64)" "the new primary's disk"
fill backup 60 4
wait_state backup "in sync" 90
on backup ftship switch vm1
eventually 30 is_role primary primary
wait_state primary "in sync" 90
expect_equal "$(size_of primary)" "$(mib 64)" "the disk after a switch"
on primary ftship checkpoint vm1 --wait
stop_backup
expect_equal "$(digest backup /dev/mapper/vm1)" "$(digest primary /dev/mapper/vm1)" "the volumes"
