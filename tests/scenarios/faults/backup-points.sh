#!/bin/bash
# lab: timeout=400 disks=2
# The backup is killed or loses its power at some points of the protocol: it promotes to exactly one
# epoch, and nothing acknowledged is missing. All points: long/points-*.sh.
TIMEOUT=4s
. "$LAB_REPOSITORY/tests/scenarios/faults/crash.bash"
begin
crash_at backup power epoch journal-synced apply-half
crash_at backup kill epoch superblock-written
crash_at backup power sync base-flushed
crash_at backup kill promote state-synced
