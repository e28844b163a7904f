# Counts beside figures: snapshots of what both hosts have done so far, before and after a workload.
# shellcheck shell=bash

# What `ftdm-workload counts` reads: each thread's system calls by number, and the sum of what they returned.
CALLS_EVENT=/sys/kernel/tracing/events/raw_syscalls/sys_exit
CALLS_TRIGGER='hist:keys=common_pid,id:vals=ret:size=16384 if comm != "fio"'

# can_count_calls HOST: its kernel has the tracepoint. User-mode-linux has none.
can_count_calls() {
    on "$1" bash -c "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; [[ -e $CALLS_EVENT/trigger ]]" 2> /dev/null
}

# count_calls HOST on|off: while it is on, a system call costs about a microsecond more, so no figure is taken then.
count_calls() {
    local trigger=$CALLS_TRIGGER
    if [[ $2 == off ]]; then trigger="!$trigger"; fi
    on "$1" bash -c "printf '%s\n' '$trigger' > $CALLS_EVENT/trigger"
}

# counted NAME GROUP COMMAND...: runs COMMAND on the primary between two snapshots of each host, in $SHARE/counts.
# GROUP may be empty.
counted() {
    local name=$1 group=${2:+--group $2}
    shift 2
    mkdir -p "$SHARE/counts"
    # shellcheck disable=SC2086
    on backup ftdm-workload counts $group > "$SHARE/counts/$name.backup.before.json" || return
    on primary bash -c "ftdm-workload counts $group > /share/counts/$name.primary.before.json && \"\$@\" \
        && ftdm-workload counts $group > /share/counts/$name.primary.after.json" counted "$@" || return
    # shellcheck disable=SC2086
    on backup ftdm-workload counts $group > "$SHARE/counts/$name.backup.after.json"
}
