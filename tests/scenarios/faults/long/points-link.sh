#!/bin/bash
# lab: timeout=3000 disks=2
# The link cut and restored at every point of the protocol, on either host: the backup promotes to exactly one epoch,
# and nothing acknowledged is missing. Needs the feature fault-points.
TIMEOUT=4s
. "$LAB_REPOSITORY/tests/scenarios/faults/crash.bash"
begin
# The lists are to be split.
# shellcheck disable=SC2086
{
    crash_at backup link epoch $BACKUP_EPOCH_POINTS
    crash_at backup link reconnect hello-received welcome-sent
    crash_at backup link sync ${BACKUP_SYNC_POINTS#*welcome-sent }
    crash_at backup link promote $BACKUP_PROMOTE_POINTS
    crash_at primary link epoch $PRIMARY_EPOCH_POINTS
    crash_at primary link reconnect hello-sent welcome-received
    crash_at primary link sync ${PRIMARY_SYNC_POINTS#*welcome-received }
}
echo "$CASES cases"
