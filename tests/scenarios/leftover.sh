#!/bin/bash
# lab: timeout=180
# Another process has the hidden log device open when a capture ends: nothing is copied for a capture that could not begin, the
# reason is shown, and once the device is closed the pair gets in sync by itself.
VOLUME_MB=32 TLS=off
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
protect
minor=$(on primary dmsetup info -c --noheadings -o minor vm1@log | tr -d ' ')
background primary bash -c "exec 9< /dev/dm-$minor; exec sleep 1000"
HOLDER=$JOB
is_open() { (($(on primary dmsetup info -c --noheadings -o open vm1@log) > 1)); }
eventually 20 is_open
step "replication degrades while dm-$minor is open"
stop_backup
wait_state primary degraded
start_backup
is_said() { status primary .reason | grep "vm1@log" > /dev/null; }
eventually 40 is_said
expect_equal "$(on primary dmsetup table vm1 | cut -d' ' -f3)" linear "the visible device's target"
step "it is closed"
kill_background "$HOLDER" KILL
wait_background "$HOLDER" || true
wait_state primary "in sync" 60
