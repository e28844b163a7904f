#!/bin/bash
# lab: timeout=300
# A kernel that refuses what a capture needs of it: the stack is not made, and the setting and the kernel are named; a
# capture that is under way ends all the same, and its log goes. (That a capture which is refused later costs the backup
# nothing is shown by the simulation.)
VOLUME_MB=32
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

# What a container has: nothing in sysfs can be changed. Each time by a mount of its own: one through which the daemon
# holds a setting open cannot be made read-only.
sysfs_read_only() {
    on primary mount --bind /sys /sys
    on primary mount -o remount,bind,ro /sys
}
sysfs_as_it_was() { on primary umount --lazy /sys; }
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
expect_equal "$(on primary ftdm table vm1)" "$table" "the stack, once the kernel takes it"

step "refused while a capture is under way: it ends, and once it is taken again the pair is in sync again"
start_daemons
wait_state primary "in sync" 60
sysfs_read_only
kill_background "$BACKUP_JOB" KILL
wait_background "$BACKUP_JOB" || true
has_ended() { on primary bash -c 'ftdm status vm1 | grep -q " ft tracking " && ! dmsetup info vm1-log > /dev/null 2>&1'; }
eventually 20 has_ended
job_errors "$PRIMARY_JOB" | grep 'the capture has ended, but not its settings: .*kernel' || fail "the refusal is not in the log"
if status primary .reason | grep 'ending the last capture'; then fail "the capture is not ended"; fi
sysfs_as_it_was
start_backup
wait_state primary "in sync" 60
