#!/bin/bash
# lab: timeout=300
# `capture = "era"` on a kernel without dm-log-writes and brd: each interval is one pause in which the changes of both
# volumes are read; the backup holds one instant of both, also after a power cut under writers; a pause that would last too
# long is given up, and the volume goes on.
VOLUME_MB=16 SECOND_MB=24 JOURNAL_MB=32 LOG_SIZE="16 MiB" EPOCH=3s
POLICY='mode = "interval"
capture = "era"'
EXTRA='[audit]
digest-file = "/share/digests"
[limits]
era-pause = "2s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

committed() { status primary .epochs.committed; }
shipped() { status primary '.primary | .bytes_shipped + .base_bytes_shipped'; }
is_beyond() { (($(committed) > $1)); }
# without_log HOST: neither module can be loaded.
without_log() {
    on "$1" bash -c 'mkdir -p /etc/modprobe.d; printf "install %s /bin/false\n" dm_log_writes dm-log-writes brd \
        > /etc/modprobe.d/no-log.conf; ! modprobe dm-log-writes 2> /dev/null && ! modprobe brd 2> /dev/null'
}
uses_no_log() {
    if on primary bash -c 'dmsetup targets | grep log-writes || test -e /dev/ram0'; then fail "a log is there"; fi
}
write() { # VOLUME COUNT AT: so many blocks of 64 KiB, at that one
    on primary dd if=/dev/urandom of="/dev/mapper/$1" bs=64k count="$2" seek="$3" oflag=direct conv=notrunc,fsync status=none
}

without_log primary
without_log backup
step "refused in continuous mode"
config primary primary 10.9.0.1 10.9.0.2
on primary sed '/^mode/d; s/^epoch.*/epoch = "50ms"/' /etc/ftdm/vm1.toml > "$SHARE/continuous.toml"
expect_code 2 on primary ftship run /share/continuous.toml 2> "$SHARE/refused"
grep capture "$SHARE/refused" || fail "$(cat "$SHARE/refused")"

step "two volumes in sync without a log"
make_group
start_daemons
wait_state primary "in sync" 90
uses_no_log

step "what has changed travels once, in one pause"
on primary ftship checkpoint vm1 --wait
before=$(shipped)
write vm1 8 100
write vm1 8 100
write vm1_b 4 40
epoch=$(on primary ftship checkpoint vm1 --wait)
bytes=$(($(shipped) - before))
pause=$(status primary .primary.pause_ms.max)
echo "768 KiB had changed, $((bytes / 1024)) KiB were shipped; the longest pause was $pause ms"
((bytes >= 768 * 1024)) || fail "not everything was shipped"
((bytes < 900 * 1024)) || fail "blocks travel more than once"
expect_equal "$(digest primary /dev/mapper/vm1)" "$(recorded "$epoch")" "the volume since epoch $epoch"
awk "BEGIN { exit !($pause > 0) }" || fail "no pause is told"

step "a pause that lasts too long is given up"
stop_by() { kill_background "$PRIMARY_JOB" TERM; wait_background "$PRIMARY_JOB" || fail "the daemon did not stop cleanly"; }
stop_by
on primary sed -i 's/^era-pause.*/era-pause = "10ms"/; s/^digest-file.*//' /etc/ftdm/vm1.toml
background primary ftship run vm1
PRIMARY_JOB=$JOB
# What needs no reading fits.
wait_state primary "in sync" 90
background primary bash -c 'while :; do dd if=/dev/urandom of=/dev/mapper/vm1_b bs=64k count=120 seek=64 oflag=direct \
    conv=notrunc status=none; done'
FLOOD=$JOB
is_void() { (($(status primary .primary.void_cuts) > 0)); }
eventually 60 is_void
on primary timeout 10 dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=1 oflag=direct conv=notrunc status=none
kill_background "$FLOOD" KILL
wait_background "$FLOOD" || true
wait_state primary "in sync" 120
on primary ftship checkpoint vm1 --wait
stop_by
config primary primary 10.9.0.1 10.9.0.2
background primary ftship run vm1
PRIMARY_JOB=$JOB
wait_state primary "in sync" 90

step "a power cut under writers of both volumes"
background primary ftdm-workload pairs /dev/mapper/vm1 /dev/mapper/vm1_b --group vm1 --notes /share/notes
has_notes() { [[ -s $SHARE/notes ]] && (($(wc -l < "$SHARE/notes") >= 3)); }
eventually 90 has_notes
epoch=$(committed)
eventually 60 is_beyond "$epoch"
epoch=$(committed)
uses_no_log
power_off primary
promote
((EPOCH_PROMOTED >= epoch)) || fail "epoch $epoch is lost"
on backup ftdm-workload check-pairs /dev/vg/vm1 /dev/vg/vm1_b --notes /share/notes --epoch "$EPOCH_PROMOTED"
expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED")" "first volume of epoch $EPOCH_PROMOTED"
expect_equal "$(digest backup /dev/vg/vm1_b)" "$(recorded "$EPOCH_PROMOTED" 2)" "second volume of epoch $EPOCH_PROMOTED"
