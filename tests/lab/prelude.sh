# What every scenario can call. Bash reads this before the scenario ($BASH_ENV).
unset BASH_ENV
set -Eeuo pipefail
umask 0 # what the scenario makes in $SHARE, the hosts may write to

LAB_HOST_LOST=200 # exit code: the host went off under the command
LAB_HOST_OFF=201  # exit code: the host is off
LAB_ERROR=202     # exit code: the lab could not do what was asked

# Where in the scenario we are: sets _lab_file and _lab_line.
_lab_where() {
    local depth=1
    while [[ ${BASH_SOURCE[depth]-} == "${BASH_SOURCE[0]}" ]]; do depth=$((depth + 1)); done
    _lab_file=${BASH_SOURCE[depth]-} _lab_line=${BASH_LINENO[depth - 1]}
}

_lab_failed() {
    local code=$1
    _lab_where
    local word='FAILED with'
    if ((BASH_SUBSHELL > 0)); then word='in a subshell:'; fi
    printf '%s exit code %s at %s:%s\n' "$word" "$code" "$_lab_file" "$_lab_line"
    sed -n "${_lab_line}s/^[[:space:]]*/    /p" "$_lab_file" 2>/dev/null || true
}
trap '_lab_failed $?' ERR

# on HOST COMMAND...: runs a command there; its output, input and exit code are the command's.
on() { "$LAB" ctl on "$@"; }

# power_off HOST [--keep-random SEED]: cuts the power; unflushed writes are lost.
power_off() { "$LAB" ctl power_off "$@"; }

# power_on HOST: boots it with the same disks; volumes are activated.
power_on() { "$LAB" ctl power_on "$@"; }

# link up|down: plugs the cable between the hosts in, or pulls it.
link() { "$LAB" ctl link "$@"; }

# background HOST COMMAND...: starts a command and sets JOB; in $(...) prints the job's number.
background() {
    JOB=$("$LAB" ctl background "$@")
    if ((BASH_SUBSHELL > 0)); then echo "$JOB"; fi
}

# wait_background [JOB]: waits for one job, or all; its exit code, or the first that is not 0.
wait_background() { "$LAB" ctl wait_background "$@"; }

# kill_background JOB [SIGNAL]: sends a signal (default TERM) to the job's processes.
kill_background() { "$LAB" ctl kill_background "$@"; }

# job_output JOB / job_errors JOB: what a background command has printed so far.
job_output() { cat "$LAB_DIR/jobs/$1.stdout"; }
job_errors() { cat "$LAB_DIR/jobs/$1.stderr"; }

# settle HOST: flushes its disks. LVM does not flush what it writes about volumes, so without this
# a power cut may undo an lvcreate.
settle() { on "$1" sh -c 'sync /dev/vd?'; }

# disk_stats HOST: counters of its disks, one line each.
disk_stats() { "$LAB" ctl disk_stats "$@"; }

# disk_flushes HOST NUMBER fail|work: from now on the disk's flushes fail, while reads and writes go on.
disk_flushes() { "$LAB" ctl disk_flushes "$@"; }

# step MESSAGE: says what comes next.
step() { printf '== %s\n' "$*"; }

# fail MESSAGE: ends the scenario as failed.
fail() {
    _lab_where
    printf 'FAILED: %s (%s:%s)\n' "$*" "$_lab_file" "$_lab_line"
    exit 1
}

# expect_fail COMMAND...: fails unless the command fails.
expect_fail() {
    local code=0
    "$@" || code=$?
    ((code != 0)) || fail "expected to fail: $*"
}

# expect_code CODE COMMAND...: fails unless the command ends with this exit code.
expect_code() {
    local expected=$1 code=0
    shift
    "$@" || code=$?
    ((code == expected)) || fail "exit code $code instead of $expected: $*"
}

# expect_equal ACTUAL EXPECTED [WHAT]
expect_equal() { [[ $1 == "$2" ]] || fail "${3-value} is '$1', expected '$2'"; }

# eventually SECONDS COMMAND...: repeats the command until it succeeds; on a slow back end for longer.
eventually() {
    local end=$((SECONDS + $1 * LAB_SLOWNESS))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "still failing at the end of its time: $*"
        sleep 0.1
    done
}
