#!/bin/bash
# lab: timeout=240
# Nobody but its daemon writes to a backup's volume, whether or not the daemon runs: not by name, not by a mount, and not
# after a boot before the daemon is there. A promote makes it writable, and the old primary's is not any more.
VOLUME_MB=32
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
writes() { on "$1" dd if=/dev/zero of=/dev/mapper/vm1 bs=4k count=1 seek=100 conv=notrunc,fsync oflag=direct status=none; }
mounts() { on "$1" bash -c 'mount -o rw /dev/mapper/vm1 /mnt && touch /mnt/file && umount /mnt'; }
refused() {
    expect_fail writes "$1"
    expect_fail mounts "$1"
    on "$1" bash -c 'umount /mnt 2> /dev/null || true'
}
protect
on primary mkfs.ext4 -q /dev/mapper/vm1
mounts primary
on primary ftship checkpoint vm1 --wait
step "while the daemon runs, once it is killed, and when its stack was made again"
refused backup
kill_background "$BACKUP_JOB" KILL
refused backup
on backup ftdm remove vm1
on backup sed -i '/^device = "\/dev\/vg\/vm1"$/a metadata = "/dev/vg/vm1_meta"' /etc/ftdm/vm1.toml
expect_equal "$(on backup ftship setup vm1)" /dev/mapper/vm1
refused backup
start_backup
wait_state primary "in sync" 60
writes primary
on primary ftship checkpoint vm1 --wait
step "promoted, it is writable at once, and stays so when the daemon dies"
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB"
promote
writes backup
kill_background "$BACKUP_JOB" KILL
mounts backup
on backup ftdm remove vm1
expect_equal "$(on backup ftship setup vm1)" /dev/mapper/vm1
mounts backup
step "the old primary's is not"
background backup ftship run vm1
background primary ftship run vm1
is_backup() { [[ $(status primary .role) == backup ]]; }
eventually 60 is_backup
wait_state backup "in sync" 60
refused primary
expect_equal "$(digest backup /dev/mapper/vm1)" "$(on backup ftship checkpoint vm1 --wait > /dev/null; digest primary /dev/mapper/vm1)" "the volumes"
