#!/bin/bash
# lab: timeout=300
# A kernel that refuses what a capture asks of it: a stack is not made; a backup that is consistent stays so, whatever
# sync is wanted; the reason is shown, and nobody tries every five seconds. After a reload all is well.
VOLUME_MB=32
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

# What a container has: nothing in sysfs can be changed. Each time by a mount of its own: one through which the daemon
# holds a setting open cannot be made read-only.
sysfs_read_only() {
    on primary mount --bind /sys /sys
    on primary mount -o remount,bind,ro /sys
}
sysfs_as_it_was() { on primary umount --lazy /sys; }
refusals() { grep -c 'state: degraded: the capture cannot begin' "$(job_log)" || true; }
job_log() { echo "$LAB_DIR/jobs/$PRIMARY_JOB.stderr"; }

make_volumes
step "the stack is refused as a whole, and the setting and the kernel are named"
table=$(on primary ftdm table vm1)
on primary ftdm remove vm1
sysfs_read_only
on primary bash -c "! ftdm create vm1 --table '$table' 2> /share/refused"
cat "$SHARE/refused"
grep "queue/.*kernel $(on primary uname -r)" "$SHARE/refused" > /dev/null || fail "the setting and the kernel are not named"
expect_equal "$(on primary bash -c 'ftdm ls | grep -c ^vm1 || true')" 0 "stacks"
expect_equal "$(on primary bash -c 'dmsetup ls | grep -c ^vm1 || true')" 0 "devices left behind"
sysfs_as_it_was
make_stack primary vm1 "$VOLUME_MB"

step "in sync, and then the kernel refuses: a sync in place that is asked for leaves the backup as it is"
start_daemons
wait_state primary "in sync" 60
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=8 oflag=direct conv=fsync status=none
on primary ftship checkpoint vm1 --wait
held=$(digest primary /dev/mapper/vm1)
sysfs_read_only
on primary ftship full-sync vm1
refused() { [[ $(status primary .reason) == *"for the same reason: "*"Read-only file system"*"after a reload" ]]; }
eventually 30 refused
status primary .reason
tries=$(refusals)
for _ in 1 2 3 4; do
    sleep 4
    [[ $(status backup .reason) == *promotable ]] || fail "the backup is $(status backup '.state, .reason')"
    refused || fail "the reason is not shown any more: $(status primary .reason)"
done
(($(refusals) == tries && tries <= 3)) || fail "tried $(refusals) times, $tries of them in the first seconds"
expect_equal "$(status primary .connected)" true "connected"

step "what the guest writes meanwhile is tracked; after a reload the pair gets in sync"
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=1 seek=20 oflag=direct conv=fsync status=none
[[ $(digest primary /dev/mapper/vm1) != "$held" ]] || fail "nothing was written"
sysfs_as_it_was
on primary ftship reload vm1
wait_state primary "in sync" 30
on primary ftship checkpoint vm1 --wait
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the copy"
