#!/bin/bash
# lab: timeout=240 memory=2G disk-size=2G
# A guest keeps 12 MiB in flight on a disk that takes 100 ms for a write: cuts come all the same, since a pause reads
# headers alone, and what the backup has in the end is what was written.
VOLUME_MB=64 JOURNAL_MB=256 LOG_SIZE="256 MiB" TLS=off
EXTRA='[limits]
pause-budget = "1s"
pause-limit = "1s"
timeout = "60s"
[watchdog]
pause-timeout = "5s"
timeout = "30s"'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
make_volumes
sectors=$((VOLUME_MB * 2048))
on primary ftdm remove vm1
on primary dmsetup create slow --table "0 $sectors delay /dev/vg/vm1 0 0 /dev/vg/vm1 0 100 /dev/vg/vm1 0 0"
on primary dd if=/dev/zero of=/dev/vg/vm1_meta bs=4k count=1 oflag=direct status=none
on primary ftdm create vm1 --table "0 $sectors ft /dev/vg/vm1_meta /dev/mapper/slow 128"
sed -i 's,device = "/dev/vg/vm1"$,device = "/dev/mapper/slow",' "$SHARE/config/primary.toml"
install_config primary
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=$VOLUME_MB oflag=direct status=none
start_daemons
wait_state primary "in sync" 90
step "12 MiB in flight"
before=$(status primary .epochs.cut)
# Zeroes, so that neither the link nor the journal is what is measured.
on primary fio --name=deep --filename=/dev/mapper/vm1 --direct=1 --ioengine=libaio --rw=randwrite --bs=1m --iodepth=12 \
    --size=48M --time_based --runtime=12 --zero_buffers --randseed=7 --output=/dev/null
cuts=$(($(status primary .epochs.cut) - before))
void=$(status primary .primary.void_cuts)
echo "cuts: $cuts in 12 s, void: $void"
# Cuts of what was written: none are made where nothing was. The writer leaves little of the processor to them.
if ((cuts < 4 || void > cuts / 2)); then fail "$cuts cuts in 12 s, $void were void"; fi
wait_state primary "in sync" 90
on primary ftship checkpoint vm1 --wait
step "the backup has it"
written=$(digest primary /dev/mapper/vm1)
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB" || fail "the primary's daemon did not stop cleanly"
promote
expect_equal "$(digest backup /dev/vg/vm1)" "$written" "what was promoted"
