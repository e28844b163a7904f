#!/bin/bash
# lab: timeout=900
# SIGSTOP and SIGKILL of the daemon at every point of a cut and of a capture's start and end: each time the
# volume runs again within a second, and what is promoted was recorded. Needs the feature faults.
. "$(dirname "${BASH_SOURCE[0]}")/../points.bash"
for point in after-suspend after-flush after-mark after-suspects mid-rotation before-resume; do
    stopped_at $point
    promote_recorded
    wait_state primary "in sync" 60
    killed_at $point
    promote_recorded
    wait_state primary "in sync" 60
done
for point in stop-loaded stop-suspended; do
    stopped_at $point restart_backup
    promote_recorded
    wait_state primary "in sync" 60
    killed_at $point restart_backup
    promote_recorded
    wait_state primary "in sync" 60
done
STOPPED_SECONDS=4.5
for point in start-loaded start-suspended start-resumed; do
    degrade_primary
    stopped_at $point full_sync
    again
    degrade_primary
    killed_at $point full_sync
    again
done
promote_recorded
