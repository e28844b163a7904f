#!/bin/bash
# lab: timeout=300
# Hooks: a mounted ext4 under a writer is frozen for the instant of each epoch, so that the backup's copy needs no recovery;
# a hook that fails or hangs costs an interval, and the writer goes on; a daemon that is killed leaves nothing frozen.
VOLUME_MB=32 JOURNAL_MB=32 EPOCH=600s LOG_SIZE="16 MiB"
POLICY='mode = "interval"'
EXTRA='[hooks]
freeze = ["/share/freeze"]
thaw = ["/share/thaw"]
timeout = "3s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

cat > "$SHARE/freeze" <<'HOOK'
#!/bin/bash
echo "$FTDM_GROUP $FTDM_EPOCH" >> /share/frozen
mountpoint -q /mnt || exit 0
if [[ -e /share/fail ]]; then echo "the guest does not answer" >&2; exit 1; fi
fsfreeze -f /mnt || exit 1
if [[ -e /share/hang ]]; then sleep 1000; fi
if [[ -e /share/kill ]]; then rm /share/kill; kill -KILL "$(cat /run/daemon)"; fi
HOOK
cat > "$SHARE/thaw" <<'HOOK'
#!/bin/bash
echo "$FTDM_GROUP $FTDM_EPOCH" >> /share/thawed
fsfreeze -u /mnt 2> /dev/null || true
HOOK
chmod 755 "$SHARE"/{freeze,thaw}
start_primary() {
    background primary bash -c 'echo $$ > /run/daemon; exec ftship run vm1'
    PRIMARY_JOB=$JOB
}
is_clean() { # the backup's copy of epoch $1 was cut while the file system was frozen
    eventually 30 is_applied "$1"
    if on backup dumpe2fs -h /dev/vg/vm1 2> /dev/null | grep -q needs_recovery; then fail "epoch $1 needs recovery"; fi
    on backup e2fsck -fn /dev/vg/vm1 > "$SHARE/fsck" || fail "epoch $1 is not clean: $(cat "$SHARE/fsck")"
}
is_applied() { (($(status backup .epochs.applied) >= $1)); }
writes_flow() { on primary timeout 15 dd if=/dev/zero of=/mnt/probe bs=4k count=1 conv=fsync status=none || fail "$1: writes do not flow"; }
thaws() { wc -l < "$SHARE/thawed"; }
has_thawed() { (($(thaws) > $1)); }

make_volumes
on primary mkfs.ext4 -q -E nodiscard /dev/mapper/vm1
start_backup
start_primary
wait_state primary "in sync" 60
on primary mount /dev/mapper/vm1 /mnt
background primary bash -c 'for ((i = 0; ; i++)); do dd if=/dev/urandom of=/mnt/f$((i % 20)) bs=16k count=4 conv=fsync status=none
    mv /mnt/f$((i % 20)) /mnt/g$((i % 20)); sleep 0.02; done'

step "each epoch is clean under the writer"
epoch=$(on primary ftship checkpoint vm1 --wait)
is_clean "$epoch"
grep -qx "vm1 $epoch" "$SHARE/frozen" || fail "the hook was not told epoch $epoch: $(cat "$SHARE/frozen")"
writes_flow "after an epoch"

step "a hook that fails: no epoch, an alarm, and the writer goes on"
touch "$SHARE/fail"
before=$(thaws)
expect_code 1 on primary ftship checkpoint vm1 --wait
has_thawed "$before" || fail "it was not thawed"
is_state primary "in sync" || fail "the state is $(status primary .state)"
status primary .reason | grep "the guest does not answer" || fail "$(status primary .reason)"
(($(status primary .primary.hooks_failed) > 0)) || fail "nothing is counted"
writes_flow "behind a hook that failed"
rm "$SHARE/fail"

step "a hook that hangs is killed in its time"
touch "$SHARE/hang"
expect_code 1 on primary ftship checkpoint vm1 --wait
rm "$SHARE/hang"
writes_flow "behind a hook that hung"
epoch=$(on primary ftship checkpoint vm1 --wait)
is_clean "$epoch"
expect_equal "$(status primary .reason)" null "the alarm after it"

step "the daemon is killed while the guest is frozen"
before=$(thaws)
touch "$SHARE/kill"
expect_fail on primary ftship checkpoint vm1 --wait
wait_background "$PRIMARY_JOB" || true
eventually 20 has_thawed "$before"
writes_flow "behind the kill"

step "the same without a capture"
on primary sed -i 's/^mode = .*/&\ncapture = "era"/' /etc/ftdm/vm1.toml
start_primary
wait_state primary "in sync" 60
epoch=$(on primary ftship checkpoint vm1 --wait)
is_clean "$epoch"
touch "$SHARE/fail"
expect_code 1 on primary ftship checkpoint vm1 --wait
rm "$SHARE/fail"
epoch=$(on primary ftship checkpoint vm1 --wait)
is_clean "$epoch"
