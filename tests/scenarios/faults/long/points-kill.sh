#!/bin/bash
# lab: timeout=3000 disks=2
# SIGKILL of the daemon at every point of the protocol, on either host: the backup promotes to exactly one epoch,
# and nothing acknowledged is missing. Needs the feature fault-points.
. "$LAB_REPOSITORY/tests/scenarios/faults/crash.bash"
begin
# The lists are to be split.
# shellcheck disable=SC2086
{
    crash_at backup kill epoch $BACKUP_EPOCH_POINTS
    crash_at backup kill reconnect hello-received welcome-sent
    crash_at backup kill sync ${BACKUP_SYNC_POINTS#*welcome-sent }
    crash_at backup kill promote $BACKUP_PROMOTE_POINTS
    crash_at primary kill epoch $PRIMARY_EPOCH_POINTS
    crash_at primary kill reconnect hello-sent welcome-received
    crash_at primary kill sync ${PRIMARY_SYNC_POINTS#*welcome-received }
}
echo "$CASES cases"
