#!/bin/bash
# lab: timeout=1500 disks=2
# Twenty times, at a seeded random time, one of the two hosts is killed, loses its power, or the link: the
# backup promotes to exactly one epoch, and nothing acknowledged is missing.
TIMEOUT=4s
. "$LAB_REPOSITORY/tests/scenarios/faults/crash.bash"
ROUNDS=${ROUNDS-20}
RANDOM=$LAB_SEED
hosts=(backup primary) kinds=(kill power link)
begin
for ((round = 0; round < ROUNDS; round++)); do
    crash_sometime "${hosts[RANDOM % 2]}" "${kinds[RANDOM % 3]}" "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
done
echo "$CASES cases"
