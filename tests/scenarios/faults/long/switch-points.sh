#!/bin/bash
# lab: timeout=2400
# Every point of an exchange of roles under load.
. "$LAB_REPOSITORY/tests/scenarios/faults/switch.bash"
begin
for signal in KILL STOP; do
    # The lists are to be split.
    # shellcheck disable=SC2086
    {
        attempts giving "$signal" $GIVING_POINTS
        attempts taking "$signal" $TAKING_POINTS
    }
done
finish
