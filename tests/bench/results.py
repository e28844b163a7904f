"""What the results of a run mean: shared by `table` and `report`."""

import statistics

MIB = 1 << 20
# The backup has no part in these.
ALONE = ("raw", "raw-again", "tracked")


def median(rounds, key):
    return statistics.median(one[key] for one in rounds)


def order(subject):
    known = ["raw", "tracked", "ftdm", "ftdm-tls", "drbd-A", "drbd-B", "drbd-C", "raw-again"]
    return known.index(subject) if subject in known else len(known)


def daemon_sum(threads, key):
    values = [spent[key] for name, spent in threads.items() if name.split("/")[0] == "ftship" and key in spent]
    return sum(values) if values else None


def host_counts(one, host):
    """Totals of a host: the daemon's, and where `all` is said the host's."""
    counted = one["counts"] or {}
    if host not in counted:
        return None
    found, with_calls = counted[host], (one["calls"] or {}).get(host, {})
    calls, ratio = with_calls.get("calls"), 1.0
    if calls is not None and one["calls"]["written-mib"]:
        # They were counted in a run of their own: brought to as many MiB as this one wrote.
        ratio = counted["written-mib"] / one["calls"]["written-mib"]
    moved = None if calls is None else ratio * sum(calls["bytes"].values()) / 1024
    return {
        "calls": None if calls is None else ratio * sum(calls["by-number"].values()),
        "moved KiB": moved,
        "faults": daemon_sum(found["threads"], "page-faults"),
        "switches": daemon_sum(found["threads"], "context-switches"),
        "all switches": found["context-switches"],
        "daemon ms": (daemon_sum(found["threads"], "cpu-ns") or 0) / 1e6 or None,
        "kernel ms": sum(spent["cpu-ns"] for name, spent in found["threads"].items() if name[0] == "[") / 1e6,
        "all Minstr": None if found["instructions"] is None else found["instructions"] / 1e6,
        "sent KiB": found["network"]["sent-bytes"] / 1024,
    }
