#!/bin/bash
# lab: timeout=400
# Some points of an exchange of roles under load; all of them: long/switch-points.sh.
. "$LAB_REPOSITORY/tests/scenarios/faults/switch.bash"
begin
attempts giving KILL state-synced shut-told
attempts taking STOP take-over-received
finish
