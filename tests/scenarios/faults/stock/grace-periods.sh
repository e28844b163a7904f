#!/bin/bash
# lab: timeout=400 backends=qemu
# Pauses make the kernel's grace periods short, so that a suspend waits for no timer, and put that back: after each, by the
# watchdog when the daemon is stopped or killed in one, and never where the administrator has it on. User-mode-linux has
# no grace periods to wait for, so this needs a stock kernel. Needs the feature faults.
. "$(dirname "${BASH_SOURCE[0]}")/../points.bash"
SETTING=/sys/kernel/rcu_expedited

is_set() { [[ $(on primary cat $SETTING) == "$1" ]]; }

# looks: the setting, 200 times. A pipe that nobody writes to is the pause between: a process takes a host of QEMU too long.
looks() {
    on primary bash -c "[[ -p /tmp/nothing ]] || mkfifo /tmp/nothing; exec 9<> /tmp/nothing
        for ((n = 0; n < 200; n++)); do read -r value < $SETTING; echo \$value; read -rt 0.005 -u 9; done; true"
}

step "while epochs are cut the setting is off between pauses"
# How much of the time a pause takes depends on the machine: on QEMU, which translates, most of it.
off=$(looks | grep -c '^0$')
((off >= 10)) || fail "$SETTING was off only $off of 200 times"

step "a daemon that is stopped in a pause leaves it on, and the watchdog puts it back"
meet_fault after-suspend STOP
eventually 5 is_set 0
expect_flow "stopped"
kill_background "$PRIMARY_JOB" CONT
again

step "so does one that is killed"
killed_at after-suspend
eventually 5 is_set 0
again

step "what the administrator has set stays"
on primary bash -c "echo 1 > $SETTING"
sleep 0.5
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB"
start_primary
again
[[ $(looks | sort -u) == 1 ]] \
    || fail "a pause has put back what the administrator had set"
killed_at after-suspend
is_set 1 || fail "the watchdog has put back what the administrator had set"
