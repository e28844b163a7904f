#!/bin/bash
# lab: timeout=180
# A machine that has brd loaded for purposes of its own: its RAM disks are left alone, free ones are used, and where
# there are not two the error says what to do.
VOLUME_MB=8 LOG_SIZE="8 MiB"
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
on primary modprobe brd rd_nr=4 rd_size=8192 max_part=0
on primary mkfs.ext4 -q /dev/ram0
on primary mount /dev/ram0 /mnt
on primary mkfs.ext4 -q /dev/ram1
protect
on primary dmsetup table vm1@log | grep ' 1:[23]$'
on primary e2fsck -fn /dev/ram1
expect_equal "$(on primary findmnt -n -o FSTYPE /dev/ram0)" ext4 "what is mounted"
step "none is left"
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB"
on primary mkfs.ext4 -q /dev/ram3
background primary ftship run vm1
said() { job_errors "$JOB" | grep "2 free RAM disks of 16384 sectors.*ram1 holds something.*modprobe -r brd" > /dev/null; }
eventually 20 said
on primary e2fsck -fn /dev/ram3
