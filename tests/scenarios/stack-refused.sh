#!/bin/bash
# lab: timeout=300
# A kernel that refuses what a capture needs of it: the stack is not made, and the setting and the kernel are named; a
# capture that is under way ends all the same, by the daemon as by its watchdog, and its log goes. (That a capture which is
# refused later costs the backup nothing is shown by the simulation.)
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
has_ended() { on primary bash -c 'ftdm status vm1 | grep -q " ft tracking " && ! dmsetup info vm1@log > /dev/null 2>&1'; }
eventually 20 has_ended
job_errors "$PRIMARY_JOB" | grep 'vm1 runs, but without all its settings: .*kernel' || fail "the refusal is not in the log"
if status primary .reason | grep 'ending the last capture'; then fail "the capture is not ended"; fi
sysfs_as_it_was
start_backup
wait_state primary "in sync" 60

step "refused while a capture is under way, and a watchdog that met nothing else: it brings the volume back"
sysfs_read_only
old=$(on primary pgrep -f "^[^ ]*ftship watchdog")
on primary kill -KILL "$old"
eventually 10 bash -c "'$LAB' ctl on primary pgrep -f '^[^ ]*ftship watchdog' | grep -vx $old > /dev/null"
on primary ftship checkpoint vm1 --wait
expect_equal "$(status primary .state)" "in sync"
kill_background "$PRIMARY_JOB" KILL
wait_background "$PRIMARY_JOB" || true
eventually 20 has_ended
job_errors "$PRIMARY_JOB" | grep 'watchdog: vm1 runs on dm-era again' || fail "the watchdog did not bring the volume back"
if job_errors "$PRIMARY_JOB" | grep -E 'could not be brought back|clearing up:'; then fail "the watchdog gave up"; fi
sysfs_as_it_was
background primary ftship run vm1
wait_state primary "in sync" 60
