#!/bin/bash
# lab: timeout=400
# Two hundred epochs of overlapping writes and several log rotations: the backup is the primary's volume
# of exactly the epoch that it is promoted to.
LOG_SIZE="12 MiB"
VOLUME_MB=32
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
protect
step "200 epochs of overlapping writers"
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 600 --rate 40
first=$(status primary .epochs.committed)
has_epochs() { (($(status primary .epochs.committed) >= first + 200)); }
eventually 150 has_epochs
on primary ftship status vm1
(($(status primary .primary.log_rotations) > 0)) || fail "the log was never rotated"
(($(status primary .primary.suspect_sectors) > 0)) || fail "no write ever overlapped another"
step "from here on with digests taken in the pause"
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB" || fail "the primary's daemon did not stop cleanly"
on primary dmsetup table vm1 | grep -q linear
expect_fail on primary dmsetup info vm1@log
stop_backup
EXTRA='[audit]
digest-file = "/share/digests"'
config primary primary 10.9.0.1 10.9.0.2
on backup ftship format --force vm1
start_daemons
wait_state primary "in sync" 60
first=$(status primary .epochs.committed)
has_epochs() { (($(status primary .epochs.committed) >= first + 20)); }
eventually 150 has_epochs
power_off primary
promote_recorded_after "$((first + 20))"
