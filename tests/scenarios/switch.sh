#!/bin/bash
# lab: timeout=300
# The roles are exchanged under load, and back: nothing that was acknowledged is lost, and nothing is written here
# behind the other side's back.
VOLUME_MB=32
EXTRA='[limits]
timeout = "3s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
is_role() { [[ $(status "$1" .role 2>/dev/null) == "$2" ]]; }
write_on() {
    background "$1" ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3000 --rate 60
    WRITER=$JOB
}
committed_more() { (($(status "$1" .epochs.committed) >= $2 + 5)); }

# exchange FROM TO: under load; both volumes hold the same, before the new primary is written to.
exchange() {
    write_on "$1"
    eventually 60 committed_more "$1" "$(status "$1" .epochs.committed)"
    expect_code 4 on "$1" ftship switch vm1
    is_role "$1" primary || fail "a refused switch changed the role"
    on "$1" ftship switch vm1 --stall
    is_role "$2" primary || eventually 20 is_role "$2" primary
    ! wait_background "$WRITER" || fail "the writer was told that everything went well"
    expect_equal "$(digest "$1" /dev/vg/vm1)" "$(digest "$2" /dev/vg/vm1)" "what $1 acknowledged, and what $2 holds"
}

step "in sync, then the roles are exchanged under load; somebody keeps the volume open"
protect
background primary bash -c 'exec 9<> /dev/mapper/vm1; sleep 1000'
HOLDER=$JOB
exchange primary backup
is_role primary backup || eventually 20 is_role primary backup
is_state primary outdated || fail "it is $(status primary .state)"
status primary .reason | grep -q 'a process still has a volume open' || fail "$(status primary .reason)"
expect_code 1 on primary dd if=/dev/zero of=/dev/mapper/vm1 bs=4k count=1 oflag=direct conv=notrunc status=none
kill_background "$HOLDER" KILL
wait_background "$HOLDER" || true
wait_state backup "in sync" 60

step "and back, under load"
exchange backup primary
wait_state primary "in sync" 60
write_on primary
on primary ftship checkpoint vm1 --wait
same() { [[ $(digest primary /dev/vg/vm1) == $(digest backup /dev/vg/vm1) ]]; }
kill_background "$WRITER" TERM
wait_background "$WRITER" || true
on primary ftship checkpoint vm1 --wait
eventually 20 same
