#!/bin/bash
# lab: timeout=300
# The backup's disk is replaced: what does not fit is refused and left alone, and a new one, with nothing but what `ftship
# format` wrote, is in sync by a whole copy, while the primary writes and nobody does anything there.
VOLUME_MB=32 JOURNAL_MB=32
EXTRA='[audit]
digest-file = "/share/digests"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

# new_disk MB VOLUME...: these of the backup's logical volumes are new ones.
new_disk() {
    local size name
    for name in "${@:2}"; do
        case $name in vm1) size=$1 ;; vm1_meta) size=16 ;; vm1_journal) size=$JOURNAL_MB ;; vm1_state) size=4 ;; esac
        on backup lvremove -q -y "vg/$name"
        on backup lvcreate -q -y -W n -n "$name" -L "${size}M" vg
        on backup blkdiscard -z "/dev/vg/$name"
    done
}
is_refused() { status primary .link_error | grep -q 'the backup refuses'; }

protect
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3000 --rate 50
WRITERS=$JOB
kill_background "$BACKUP_JOB" KILL
wait_background "$BACKUP_JOB" || true
on backup ftdm remove vm1

step "another logical volume of the same size, without a word: the daemon does not start, and leaves it alone"
new_disk "$VOLUME_MB" vm1
make_stack backup vm1 "$VOLUME_MB"
start_backup
wait_background "$BACKUP_JOB" && fail "the daemon runs on a volume that was never synced"
job_errors "$BACKUP_JOB" | grep 'is not the logical volume that holds volume 0' || fail "$(job_errors "$BACKUP_JOB")"
is_blank() { on backup cmp -n $(($1 << 20)) /dev/vg/vm1 /dev/zero; }
is_blank "$VOLUME_MB" || fail "something was written to it"

step "a disk that is too small: the primary is told, goes on, and nothing is written there"
on backup ftdm remove vm1
new_disk $((VOLUME_MB - 16)) vm1 vm1_meta vm1_journal vm1_state
make_stack backup vm1 $((VOLUME_MB - 16))
on backup ftship format vm1
start_backup
eventually 60 is_refused
status primary .link_error | grep sectors || fail "$(status primary .link_error)"
is_state primary degraded || fail "the primary is $(status primary .state)"
stop_backup
is_blank $((VOLUME_MB - 16)) || fail "something was written to it"

step "a new disk: in sync by a whole copy, under the writers"
on backup ftdm remove vm1
new_disk "$VOLUME_MB" vm1 vm1_meta vm1_journal vm1_state
make_stack backup vm1 "$VOLUME_MB"
on backup ftship format vm1
before=$(status primary .epochs.committed)
start_backup
wait_state primary "in sync" 120
expect_equal "$(status primary '.primary.last_sync | "\(.carrier) \(.base)"')" "in-place null" "the copy"
kill_background "$WRITERS" TERM
wait_background "$WRITERS" || true
epoch=$(on primary ftship checkpoint vm1 --wait)
((epoch > before)) || fail "epoch $epoch is not above epoch $before of the disk that was lost"
promote_recorded_after "$epoch"
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/mapper/vm1)" "the backup's volume"
