#!/bin/bash
# lab: timeout=300
# Both sides are written to while the link is down: both say split brain, nothing is overwritten, and who is to give
# way is a person's word. The one that was promoted over holds its writes back for that, once, those of both volumes.
VOLUME_MB=32
SECOND_MB=16
EXTRA='[limits]
timeout = "2s"
on-fence = "freeze"
fence-lease = "8s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
is_role() { [[ $(status "$1" .role 2>/dev/null) == "$2" ]]; }
# frozen: the primary holds writes back; one to each volume that is begun now is in the background.
frozen() {
    local volume
    wait_state primary frozen 60
    WRITES=()
    for volume in vm1 vm1_b; do
        expect_equal "$(on primary dmsetup info -c --noheadings -o suspended $volume)" Suspended "$volume, frozen"
        background primary dd if=/dev/urandom of=/dev/mapper/$volume bs=64k count=1 oflag=direct conv=notrunc status=none
        WRITES+=("$JOB")
    done
}
# written WHEN: what was held back went on.
written() {
    local job
    for job in "${WRITES[@]}"; do wait_background "$job" || fail "what was held back failed when $1"; done
}
# content HOST: digests of both volumes.
content() { echo "$(digest "$1" /dev/vg/vm1) $(digest "$1" /dev/vg/vm1_b)"; }
scribble() {
    local volume
    for volume in vm1 vm1_b; do
        on "$1" dd if=/dev/urandom of=/dev/mapper/$volume bs=64k count=8 seek="$2" oflag=direct conv=notrunc,fsync status=none
    done
}

step "the link is lost, the backup is promoted while the primary lives; both are written to"
make_group
start_daemons
wait_state primary "in sync" 60
scribble primary 0
on primary ftship checkpoint vm1 --wait
link down
wait_state primary degraded
scribble primary 16
EPOCH_PROMOTED=$(on backup ftship promote vm1 --token 5)
eventually 20 is_role backup primary
expect_equal "$(on backup ftship promote vm1 --token 5)" "$EPOCH_PROMOTED" "asked again"
expect_code 9 on backup ftship promote vm1 --token 4
scribble backup 32
on backup ftship status vm1

step "they meet"
link up
frozen
wait_state primary "split brain" 60
written "the lease ended"
expect_equal "$(status primary .reason | grep -c 'Nobody decided')" 1 "what the primary says of its lease"
wait_state backup "split brain" 60
on primary ftship status vm1
on backup ftship status vm1
expect_code 4 on primary ftship demote vm1
expect_code 2 on primary ftship resolve vm1
mine=$(content primary) theirs=$(content backup)
[[ $mine != "$theirs" ]] || fail "both hold the same"

step "so they stay, also over a restart"
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB" || fail "the primary's daemon did not stop cleanly"
background primary ftship run vm1
PRIMARY_JOB=$JOB
wait_state primary "split brain"
expect_equal "$(content primary)" "$mine" "the primary's volumes"
expect_equal "$(content backup)" "$theirs" "the promoted volumes"

step "the other side goes on in a generation of its own: a daemon that is killed in the hold leaves a volume that runs"
on backup ftship promote vm1 --force
frozen
kill_background "$PRIMARY_JOB" KILL
wait_background "$PRIMARY_JOB" || true
written "the daemon was killed"
background primary ftship run vm1
PRIMARY_JOB=$JOB
wait_state primary "split brain"
wait_state backup "split brain" 60
mine=$(content primary)

step "the promoted side is told to give way; not while it is in use"
background backup bash -c 'exec 9</dev/mapper/vm1; sleep 1000'
HOLDER=$JOB
opened() { (($(on backup dmsetup info -c --noheadings -o open vm1) > 0)); }
eventually 10 opened
expect_code 4 on backup ftship resolve vm1 --discard-mine
kill_background "$HOLDER" KILL
wait_background "$HOLDER" || true
on backup ftship resolve vm1 --discard-mine
eventually 20 is_role backup backup
wait_state primary "in sync" 60
on primary ftship checkpoint vm1 --wait
promote_equals() { [[ $(content backup) == "$mine" ]]; }
eventually 20 promote_equals
expect_equal "$(content primary)" "$mine" "the primary's volumes"

step "given up while it is in use: what is held back fails, and this side becomes the backup"
link down
wait_state primary degraded
on backup ftship promote vm1 > /dev/null
eventually 20 is_role backup primary
scribble backup 64
link up
frozen
on primary ftship resolve vm1 --discard-mine
for job in "${WRITES[@]}"; do
    ! wait_background "$job" || fail "what was held back was written"
done
eventually 20 is_role primary backup
wait_state backup "in sync" 60
on backup ftship checkpoint vm1 --wait
theirs=$(content backup)
resynchronised() { [[ $(content primary) == "$theirs" ]]; }
eventually 20 resynchronised
