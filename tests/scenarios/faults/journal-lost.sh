#!/bin/bash
# lab: timeout=300
# What lies in the journal is not what was acknowledged any more, beside a running daemon and before a start: nothing of it
# is applied, the state says what is lost, a promote wants --force, and the pair is in sync again by itself.
APPLY_DELAY=12s EPOCH=100ms
. "$LAB_REPOSITORY/tests/scenarios/faults/backup.bash"
protect
follow
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3000 --rate 50

# middle: the byte of an epoch that is committed and not applied, with others before and behind it.
middle() {
    on backup ftship journal vm1 --json > "$SHARE/journal.json" || true
    jq '[.epochs[] | select(.state == "committed")] | .[length / 2 | floor].offset' "$SHARE/journal.json"
}
enough() { (($(on backup ftship journal vm1 --json | jq '[.epochs[] | select(.state == "committed")] | length') > 6)); }

# strike BYTE: the first data frame of the epoch there is another content, with both checksums wrong.
strike() {
    on backup dd if=/dev/urandom of=/dev/vg/vm1_journal bs=4096 seek=$(($1 / 4096 + 1)) count=1 conv=notrunc,fsync oflag=direct status=none
}

says_lost() { status backup .reason | grep -q "lost epochs up to"; }
is_applied() { (($(status backup .epochs.applied) > 0)); }
is_made_good() { is_state primary "in sync" && is_state backup "in sync"; }

step "beside the running daemon"
eventually 60 more_acknowledged ""
eventually 60 enough
before=$(acknowledged)
link down
acknowledged=$(status backup .epochs.committed)
strike "$(middle)"
eventually 30 says_lost
is_state backup outdated || fail "it says $(status backup .state)"
status backup .reason
expect_code 4 on backup ftship promote vm1
expect_code 7 on backup ftship journal vm1 --check
# What is left is applied like everything else.
eventually 60 is_applied
held=$(status backup .epochs.applied)
((held < acknowledged)) || fail "epoch $held is applied, $acknowledged was acknowledged"
expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$held" | tail -n 1)" "the volume is exactly epoch $held"
link up
eventually 120 is_made_good
eventually 60 goes_on "$before"

step "before a start"
eventually 60 enough
kill_background "$BACKUP_JOB" KILL || true
wait_background "$BACKUP_JOB" || true
strike "$(middle)"
start_backup
eventually 120 is_made_good
last=$(acknowledged)
eventually 60 goes_on "$last"
expect_promoted "$(acknowledged)" "after the journal lost epochs twice"
