#!/bin/bash
# lab: timeout=3000 disks=2
# The link cut and restored at every point of the protocol, on either host: the backup promotes to exactly one epoch,
# and nothing acknowledged is missing. Needs the feature faults.
TIMEOUT=4s
. "$LAB_REPOSITORY/tests/scenarios/faults/crash.bash"
begin
every_point link
