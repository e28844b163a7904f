#!/usr/bin/env python3
"""Runs the command lines of a file with one program, and writes down what each does.

usage: compare.py run PROGRAM CASES RECORD [SECTION]    (in a host of the lab; SECTION: what its name contains)
       compare.py diff RECORD RECORD                    (anywhere; the first is dmsetup's)

A line of CASES is a command for bash, in which `dm` is the program. `@ NAME` begins a section, for which all
devices and cookies are removed. `~ REASON` before a line says that its text may differ (the manual says so too);
`~~ REASON` that anything may. For each line are compared: standard output, standard error, the exit code, the devices (with
tables, numbers, UUIDs, flags, read-ahead and events), the nodes (with owner and mode), and the number of cookies.
"""

import json
import os
import re
import signal
import subprocess
import sys

FIELDS = "name,uuid,devno,attr,tables_loaded,suspended,readonly,open,segments,events,read_ahead"
# What only looks: the devices need not be looked at again after it.
LOOKS = re.compile(r"^dm (ls|info|table|status|deps|targets|target-version|version|splitname|udevflags|help)\b[^;|&]*$")


def output(*command):
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=30)
    return done.stdout.decode(errors="surrogateescape")


def nodes():
    found = []
    for folder in ("/dev/mapper", "/dev"):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            if folder == "/dev/mapper" or name.startswith("dm-"):
                at = os.readlink(path) if os.path.islink(path) else f"{os.major(stat.st_rdev)}:{os.minor(stat.st_rdev)}"
                found.append(f"{path} {stat.st_mode:o} {stat.st_uid} {stat.st_gid} {at}")
    return found


def state(loads):
    return {
        "devices": output("dmsetup", "--manglename", "none", "info", "-c", "--noheadings", "-o", FIELDS).splitlines(),
        "tables": output("dmsetup", "table", "--manglename", "none").splitlines(),
        "inactive": output("dmsetup", "table", "--inactive", "--manglename", "none").splitlines() if loads else [],
        "nodes": nodes(),
        "cookies": len(open("/proc/sysvipc/sem").readlines()) - 1,
    }


def clean():
    for _ in range(4):
        if "No devices found" in output("dmsetup", "remove_all", "--force") + output("dmsetup", "ls"):
            break
    output("dmsetup", "mknodes")
    for name in os.listdir("/dev/mapper"):
        if name != "control":
            os.remove(f"/dev/mapper/{name}")
    for line in open("/proc/sysvipc/sem").readlines()[1:]:
        output("ipcrm", "-s", line.split()[1])
    for name in os.listdir("/tmp"):
        if name.startswith("case"):
            os.remove(f"/tmp/{name}")


def run(program, cases, record, wanted=""):
    shell = f'dm() {{ {program} "$@"; }}\n'
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "COLUMNS": "120", "DM": program}
    records, allowed, chosen = [], "", True
    open(record, "w").close()
    for line in open(cases, encoding="utf-8", errors="surrogateescape").read().split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("@"):
            chosen = wanted in line
            clean()
        elif not chosen:
            continue
        elif line.startswith("~"):
            allowed = line
        else:
            command = subprocess.Popen(["bash", "-c", shell + line], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, env=environment, cwd="/tmp", start_new_session=True)
            try:
                out, err = command.communicate(timeout=10)
                code = command.returncode
            except subprocess.TimeoutExpired:
                os.killpg(command.pid, signal.SIGKILL)
                code, out, err = "timeout", b"", b""
            text = [part.decode(errors="backslashreplace") for part in (out, err)]
            found = {} if LOOKS.match(line) and "--exec" not in line else state("load" in line)
            records.append({"line": line, "allowed": allowed, "code": code, "out": text[0], "err": text[1], **found})
            allowed = ""
            with open(record, "a") as file:
                file.write(json.dumps(records[-1]) + "\n")
    clean()
    print(f"{len(records)} command lines with {program}")


def plain(value):
    """The program's own name and what is drawn at random are no difference. Of a usage, only that it is there is compared."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"(?s)(Usage:|ftdm: error: |USAGE:).*", "USAGE", re.sub(r"(?s)\nftdm \d.*", "\nUSAGE", value))
    return re.sub(r"0x0?[dD]4[dD][0-9a-fA-F]{4}|\b2226\d{5}\b", "COOKIE", re.sub(r"\b(dmsetup|ftdm)\b", "PROGRAM", value))


def apart(expected, found):
    """What of a line is not alike: texts, or the entries of lists that only one has."""
    for key in ("code", "out", "err", "devices", "tables", "inactive", "nodes", "cookies"):
        one, other = plain(expected.get(key)), plain(found.get(key))
        if isinstance(one, list) and isinstance(other, list):
            one, other = [part for part in one if part not in other], [part for part in other if part not in one]
        if one != other:
            yield key, one, other


def diff(one, other):
    first, second = ([json.loads(line) for line in open(record)] for record in (one, other))
    wrong = allowed = 0
    before = {}
    for expected, found in zip(first, second):
        assert expected["line"] == found["line"], "not the same cases"
        differences = {key: (one, other) for key, one, other in apart(expected, found)}
        # What an earlier line left is no fault of this one.
        fresh = {key: value for key, value in differences.items() if key in ("code", "out", "err") or before.get(key) != value}
        if "devices" in expected:
            before = differences
        if expected["allowed"].startswith("~~"):
            fresh = {}
        elif expected["allowed"]:
            fresh = {key: value for key, value in fresh.items() if key not in ("out", "err")}
        allowed += bool(expected["allowed"])
        if fresh:
            wrong += 1
            print(f"--- {expected['line']}")
            for key, (one, other) in fresh.items():
                print(f"  {key}: expected {one!r}\n  {key}:    found {other!r}")
    print(f"{len(first)} command lines, {allowed} of them allowed to differ: {wrong} differ")
    sys.exit(bool(wrong) or len(first) < 10 or len(first) != len(second))


if sys.argv[1] == "run":
    run(*sys.argv[2:])
else:
    diff(*sys.argv[2:])
