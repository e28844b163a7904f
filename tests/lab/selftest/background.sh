#!/bin/bash
# Background commands run beside the scenario, are waited for, and can be killed.
step "exit codes and output"
background primary sh -c 'sleep 1; echo done; echo oops >&2; exit 3'
job=$JOB
expect_code 3 wait_background "$job"
expect_equal "$(job_output "$job")" done
expect_equal "$(job_errors "$job")" oops
expect_code $LAB_ERROR wait_background "$job"

step "waiting for all"
background primary sleep 1
background backup sh -c 'sleep 2; exit 4'
expect_code 4 wait_background
wait_background

step "the number in a command substitution"
job=$(background backup sleep 100)
kill_background "$job"
expect_code 143 wait_background "$job"
job=$(background backup sh -c 'trap "" TERM; echo deaf; sleep 100; true')
eventually 10 grep -q deaf "$LAB_DIR/jobs/$job.stdout"
kill_background "$job" TERM
kill_background "$job" KILL
expect_code 137 wait_background "$job"

step "a host that goes off ends its jobs"
background backup sleep 100
power_off backup
expect_code $LAB_HOST_LOST wait_background
