#!/bin/bash
# lab: timeout=300
# The daemon is stopped at every point of a cut and of a capture's start and end, and killed at some: the
# volume runs again within a second, the cut never counts, and what is promoted was recorded. Needs the
# feature faults; every point with both signals is long/watchdog-all-points.sh.
. "$(dirname "${BASH_SOURCE[0]}")/points.bash"
for point in after-suspend after-flush after-mark after-suspects mid-rotation before-resume; do
    stopped_at $point
    again
done
stopped_at stop-suspended restart_backup
stopped_at start-suspended full_sync
again
killed_at mid-rotation
promote_recorded
wait_state primary "in sync" 60
killed_at before-resume
promote_recorded
