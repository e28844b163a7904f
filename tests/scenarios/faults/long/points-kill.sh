#!/bin/bash
# lab: timeout=3000 disks=2
# SIGKILL of the daemon at every point of the protocol, on either host: the backup promotes to exactly one epoch,
# and nothing acknowledged is missing. Needs the feature faults.
. "$LAB_REPOSITORY/tests/scenarios/faults/crash.bash"
begin
every_point kill
