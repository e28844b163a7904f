#!/bin/bash
# Checks the lab itself: runs the scenarios beside this script, those that must fail, and what
# happens when the lab is interrupted or killed. Usage: check.sh [JOBS [BACKEND]]
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
lab=$here/../lab
backend=${2:-uml}
LAB_RUNS=$(mktemp -d /tmp/lab-check.XXXXXX)
export LAB_RUNS
trap 'rm -rf "$LAB_RUNS"' EXIT
problems=0

check() { # check WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then echo "check: $what: ok"; else echo "check: $what: WRONG"; problems=$((problems + 1)); fi
}

of_this_check() { # the processes of this check's labs: hosts, scenarios, drivers
    local process # many end, or are the kernel's, while they are looked at
    for process in /proc/[0-9]*; do
        if [[ $(readlink "$process/root" "$process/cwd" 2>/dev/null) == *"$LAB_RUNS"* ]] ||
            tr '\0' '\n' < "$process/environ" 2>/dev/null | grep -qE "^(LAB_BIN|LAB_DIR)=$LAB_RUNS"; then
            echo "${process#/proc/}"
        fi
    done 2>/dev/null
}

nothing_left() {
    local tries
    for tries in {1..50}; do
        if [[ -z $(of_this_check) ]] && ! grep -q "$LAB_RUNS" /proc/self/mounts; then return 0; fi
        sleep 0.1
    done
    of_this_check | xargs -r ps -f -p
    return 1
}

ends_with() { # ends_with CODE COMMAND...: its output goes to $LAB_RUNS/said
    local expected=$1 code=0
    shift
    "$@" > "$LAB_RUNS/said" 2>&1 || code=$?
    [[ $code == "$expected" ]] || { cat "$LAB_RUNS/said"; echo "exit code $code, not $expected"; return 1; }
}

says() { grep -q -- "$1" "$LAB_RUNS/said"; }

lab_with_broken_agent() { # hosts whose agent ends at once, saying something
    local programs=$LAB_RUNS/programs built=${CARGO_TARGET_DIR:-$here/../../../target}
    mkdir -p "$programs"
    cp "$built"/debug/{lab,libftdm_lab_xstate.so} "$programs/"
    printf '#!/bin/sh\necho "lab-agent: broken on purpose" > /dev/console\n' > "$programs/lab-agent"
    chmod +x "$programs/lab-agent"
    LAB_REPOSITORY=$here/../../.. LAB_CACHE=${LAB_CACHE:-$built/lab-cache} LAB_BIN_DIR=$built/debug \
        "$programs/lab" run --backend "$backend" "$here/boot.sh"
}

hiding() { # hiding FOLDER COMMAND...: runs it where the folder is empty
    unshare --mount sh -c 'mount --make-rprivate / && mount -t tmpfs none "$1" && shift && exec "$@"' sh "$@"
}

doctor_with_broken_kernel() { # the newest kernel is there, and does nothing but fail
    local kernel=$LAB_RUNS/broken-cache/kernels/newest-uml
    mkdir -p "$kernel/lib/modules/7.0.0"
    cp /bin/false "$kernel/linux.uml"
    LAB_CACHE=$LAB_RUNS/broken-cache "$lab" doctor
}

without_a_mirror() { # without_a_mirror ARGUMENTS...: the lab's command, with an empty cache and no package lists
    LAB_CACHE=$LAB_RUNS/empty-cache hiding /var/lib/apt/lists "$lab" "$@"
}

stopped_by() { # stopped_by SIGNAL: runs a scenario that hangs and ends the driver
    rm -rf "$LAB_RUNS/hangs"
    setsid "$lab" run --backend "$backend" --timeout 300 "$here/failing/hangs.sh" \
        > "$LAB_RUNS/said" 2>&1 &
    local driver=$! tries
    for tries in {1..120}; do
        if ((tries == 120)); then echo "the hosts did not start"; return 1; fi
        if [[ $(of_this_check | wc -l) -gt 4 && -e $LAB_RUNS/hangs/control ]]; then break; fi
        sleep 1
    done
    kill "-$1" "$driver" || { echo "the driver ended by itself"; return 1; }
    wait "$driver" || true
    nothing_left
}

"$lab" list > /dev/null # builds, once for all that follows
export LAB_NO_BUILD=1
check "the scenarios pass" "$lab" run --backend "$backend" --jobs "${1:-1}" "$here"/*_*.sh "$here"/{background,boot,cage,commands,link,share}.sh
check "and leave nothing behind" nothing_left
check "a failing scenario gives 1" ends_with 1 "$lab" run --backend "$backend" "$here/failing/fails.sh"
check "it shows the line that failed" says "fails.sh:6"
check "it shows what the command said" says "saying something"
check "it says how to run it again" says "run --verbose .*fails.sh"
check "a scenario whose host dies gives 1" ends_with 1 "$lab" run --backend "$backend" "$here/failing/dies.sh"
check "it says why the host died" says "Kernel panic - not syncing: sysrq"
check "and which kernel it had" says "kernel: .*[0-9]\.[0-9]"
check "a host that dies while it starts gives 3" ends_with 3 lab_with_broken_agent
check "it says so" says "ended while it started"
check "and shows its console" says "| .*lab-agent"
if [[ $backend == uml ]]; then
    check "the help for large registers can be tried" env LAB_XSTATE=force "$lab" run "$here/boot.sh"
fi
check "the doctor says that this machine will do" ends_with 0 "$lab" doctor --quick
check "and which kernel boots" says "boots in"
check "without user-mode-linux it will not" ends_with 1 hiding /usr/lib/uml "$lab" doctor --quick
check "and the doctor says what to install" says "install the Debian package user-mode-linux"
check "a kernel that does not boot is no reason to give up" ends_with 0 doctor_with_broken_kernel
check "but the doctor says so" says "^NO .*newest.*it does not boot"
check "and how it ended" says "kernel: user-mode-linux 7.0.0; it ended with code 1"
check "the kernels are listed" ends_with 0 "$lab" kernels
check "each with its release" says "^distribution *uml *[0-9]"
check "an unknown kernel gives 2" ends_with 2 "$lab" run --kernel 2.4 "$here/boot.sh"
check "and the others are listed" says "available: distribution, 6.1, 6.12, newest"
check "a kernel that cannot be had is skipped" ends_with 0 without_a_mirror run --backend uml --kernel newest "$here/boot.sh"
check "and named as skipped" says "skipped on .uml.: no kernel .newest."
check "a scenario that hangs is ended" ends_with 1 "$lab" run --backend "$backend" "$here/failing/hangs.sh"
check "and named so" says "took too long"
check "a wrong header gives 2" ends_with 2 "$lab" run <(printf '# lab: colour=red\n')
check "an unknown back end gives 2" ends_with 2 "$lab" run --backend xen "$here/boot.sh"
check "and the others are listed" says "available: uml, qemu"
printf '# lab: backends=uml\n' > "$LAB_RUNS/only_uml.sh"
check "a scenario for another back end gives 2" ends_with 2 "$lab" run --backend qemu "$LAB_RUNS/only_uml.sh"
check "and is named as skipped" says "skipped: only_uml runs only on uml"
check "a missing script gives 2" ends_with 2 "$lab" run "$here/missing.sh"
check "a shell runs commands" ends_with 5 "$lab" shell --backend "$backend" backup <<< 'uname -n; exit 5'
check "on the right host" says "^backup"
check "SIGINT ends everything" stopped_by INT
check "SIGTERM ends everything" stopped_by TERM
check "SIGKILL ends everything" stopped_by KILL
((problems == 0)) || { echo "check: $problems problems"; exit 1; }
echo "check: all ok"
