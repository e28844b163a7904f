#!/bin/bash
# lab: timeout=240
# A volume that is given up cannot be shut at the first try: what it holds back stays so, no other side hears that it is shut, and it
# is shut a second later.
. "$LAB_REPOSITORY/tests/scenarios/faults/switch.bash"
begin
step "the table of errors is refused once"
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 3000 --rate 20
WRITER=$JOB
eventually 60 wrote "$(status primary .epochs.committed)"
arm primary shut-load FAIL
on primary ftship switch vm1 --stall --timeout 40
test ! -e "$SHARE/fault-primary" || fail "the table of errors was not loaded"
job_errors "${DAEMON[primary]}" | grep "vm1 stays held back: it is tried again" > /dev/null || fail "nobody said that it is tried again"
! wait_background "$WRITER" || fail "the writer ended without an error"
eventually 30 roles_are backup-primary
expect_equal "$(digest primary /dev/vg/vm1)" "$(digest backup /dev/vg/vm1)" "what the old primary holds, and the new one"
wait_state backup "in sync" 60
