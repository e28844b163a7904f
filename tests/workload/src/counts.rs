//! What a host has done so far, as its kernel counts it: by thread, by disk, on the network.
//!
//! Two of these snapshots make the counts that stand beside a figure. Always holds: reading changes nothing, and a
//! figure that this kernel does not keep is absent, never 0.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::Value;

/// Counts of system calls: a histogram at the tracepoint of their ends, by thread and number, with the sum of what
/// they returned. See `tests/bench/counts.bash`, which switches it on.
const CALLS: &str = "/sys/kernel/tracing/events/raw_syscalls/sys_exit/hist";
/// A flag in a thread's `stat`: it is the kernel's. Kernel: `PF_KTHREAD`.
const KERNEL_THREAD: u64 = 0x0020_0000;
const SECTOR: u64 = 512;

/// Everything, at one moment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Counts {
    /// Nanoseconds since the host's start.
    uptime_ns: u64,
    threads: Vec<Thread>,
    /// Of all CPUs and threads.
    context_switches: Option<u64>,
    disks: BTreeMap<String, Disk>,
    network: BTreeMap<String, Network>,
    /// Absent when they are not being counted.
    calls: Option<Vec<Calls>>,
    /// What `ftship status` says of the group.
    status: Option<Value>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Thread {
    process: u64,
    thread: u64,
    /// Of the process's first thread.
    process_name: String,
    name: String,
    kernel: bool,
    /// It runs only when nothing else wants to.
    idle: bool,
    /// With the number, what makes a thread distinct: numbers are used again.
    started: u64,
    cpu_ns: Option<u64>,
    page_faults: u64,
    context_switches: Option<u64>,
    /// Bytes through system calls of the families of read and write. Those of send are among `calls` only.
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Disk {
    writes: u64,
    written_bytes: u64,
    reads: u64,
    read_bytes: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Network {
    received_bytes: u64,
    sent_bytes: u64,
    received_packets: u64,
    sent_packets: u64,
}

/// A thread's system calls of one number.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Calls {
    thread: u64,
    number: u64,
    count: u64,
    /// Of all results, those of failed calls included (small and negative).
    result_sum: i64,
}

/// Takes a snapshot; with `group`, what its daemon says too.
pub(crate) fn take(group: Option<&str>) -> anyhow::Result<Counts> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let status = group.map(status).transpose()?;
    let calls = fs::read_to_string(CALLS).ok().map(|text| calls(&text));
    Ok(Counts {
        uptime_ns: uptime_ns()?,
        threads: threads()?,
        context_switches: context_switches(&read("/proc/stat")?),
        disks: disks(&read("/proc/diskstats")?),
        network: network(&read("/proc/net/dev")?),
        calls: calls.filter(|calls| !calls.is_empty()),
        status,
    })
}

fn status(group: &str) -> anyhow::Result<Value> {
    let output =
        Command::new("ftship").args(["status", group, "--json"]).output().context("cannot run ftship")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no status of {group}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn uptime_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(Duration::from(now).as_nanos())?)
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect()
}

fn context_switches(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("ctxt "))?.trim().parse().ok()
}

fn disks(text: &str) -> BTreeMap<String, Disk> {
    let disk = |line: &str| {
        let name = line.split_whitespace().nth(2)?.to_owned();
        let fields = numbers(line);
        let at = |index: usize| fields.get(index).copied();
        let disk = Disk {
            reads: at(3)?,
            read_bytes: at(5)? * SECTOR,
            writes: at(7)?,
            written_bytes: at(9)? * SECTOR,
        };
        Some((name, disk))
    };
    text.lines().filter_map(disk).collect()
}

fn network(text: &str) -> BTreeMap<String, Network> {
    let interface = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let fields = numbers(figures);
        let at = |index: usize| fields.get(index).copied();
        let network = Network {
            received_bytes: at(0)?,
            received_packets: at(1)?,
            sent_bytes: at(8)?,
            sent_packets: at(9)?,
        };
        Some((name.trim().to_owned(), network))
    };
    text.lines().filter_map(interface).collect()
}

/// Lines like `{ common_pid: 12, id: 1 } hitcount: 5  ret: 20`.
fn calls(text: &str) -> Vec<Calls> {
    let line = |line: &str| {
        let mut words = line.split([' ', ',', ':', '{', '}']).filter(|word| !word.is_empty());
        let mut field = |name: &str| words.find(|word| *word == name).and_then(|_| words.next());
        let thread = field("common_pid")?.parse().ok()?;
        let number = field("id")?.parse().ok()?;
        let count = field("hitcount")?.parse().ok()?;
        // The kernel adds signed values up and prints the sum without its sign.
        let sum: u64 = field("ret")?.parse().ok()?;
        Some(Calls { thread, number, count, result_sum: sum.cast_signed() })
    };
    text.lines().filter_map(line).collect()
}

fn threads() -> anyhow::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for process in numbered(Path::new("/proc"))? {
        let folder = Path::new("/proc").join(process.to_string()).join("task");
        // What has ended meanwhile is left out.
        for thread in numbered(&folder).unwrap_or_default() {
            threads.extend(read_thread(&folder.join(thread.to_string()), process, thread));
        }
    }
    let names: BTreeMap<u64, String> = threads
        .iter()
        .filter(|one| one.thread == one.process)
        .map(|one| (one.process, one.name.clone()))
        .collect();
    for thread in &mut threads {
        thread.process_name = names.get(&thread.process).cloned().unwrap_or_default();
    }
    Ok(threads)
}

fn numbered(folder: &Path) -> anyhow::Result<Vec<u64>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn read_thread(folder: &Path, process: u64, thread: u64) -> Option<Thread> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let mut found = Thread { process, thread, ..parse_stat(&read("stat")?)? };
    // Nanoseconds, where the kernel keeps them; ticks else.
    if let Some(schedstat) = read("schedstat") {
        found.cpu_ns = numbers(&schedstat).first().copied();
    }
    let status = read("status").unwrap_or_default();
    let voluntary = field(&status, "voluntary_ctxt_switches:");
    found.context_switches =
        voluntary.and_then(|count| Some(count + field(&status, "nonvoluntary_ctxt_switches:")?));
    let io = read("io").unwrap_or_default();
    found.read_bytes = field(&io, "rchar:");
    found.written_bytes = field(&io, "wchar:");
    Some(found)
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

/// The kernel: Documentation/filesystems/proc.rst, table 1-4.
fn parse_stat(stat: &str) -> Option<Thread> {
    const TICK_NS: u64 = 10_000_000;
    const SCHED_IDLE: u64 = 5;
    let (name, rest) = (stat.get(stat.find('(')? + 1..stat.rfind(')')?)?, stat.get(stat.rfind(')')? + 1..)?);
    let fields = numbers(rest);
    // The first of `rest` is field 3.
    let at = |field: usize| fields.get(field - 3).copied();
    Some(Thread {
        name: name.to_owned(),
        kernel: at(9)? & KERNEL_THREAD != 0,
        page_faults: at(10)? + at(12)?,
        cpu_ns: Some((at(14)? + at(15)?) * TICK_NS),
        started: at(22)?,
        idle: at(41)? == SCHED_IDLE,
        ..Thread::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "17 (a) (b c) S 2 0 0 0 -1 2097216 3 4 5 6 7 8 0 0 20 0 1 0 99 0 0 \
            18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 5 0 0 0 0 0 0 0 0 0 0 0";
        let thread = parse_stat(stat).unwrap();
        assert_eq!((thread.name.as_str(), thread.kernel, thread.idle), ("a) (b c", true, true));
        assert_eq!((thread.page_faults, thread.cpu_ns, thread.started), (3 + 5, Some(15 * 10_000_000), 99));
        assert_eq!(parse_stat("17 (short) S 2"), None);
    }

    #[test]
    fn calls_are_read_as_the_kernel_prints_them() {
        let text = "# event histogram\n\n{ common_pid:        438, id:          1 } hitcount:       1200  ret:      4800\n\
            { common_pid:          9, id:        202 } hitcount:          2  ret: 18446744073709551594\n\nTotals:\n    Hits: 2\n";
        let expected = [
            Calls { thread: 438, number: 1, count: 1200, result_sum: 4800 },
            Calls { thread: 9, number: 202, count: 2, result_sum: -22 },
        ];
        assert_eq!(calls(text), expected);
    }

    #[test]
    fn disks_and_interfaces_are_read() {
        let disks = disks(" 254       0 vda 10 1 80 5 20 2 160 9 0 3 4 0 0 0 0 1 2\n   1 0 ram0 odd\n");
        let vda = Disk { reads: 10, read_bytes: 80 * 512, writes: 20, written_bytes: 160 * 512 };
        assert_eq!(disks, BTreeMap::from([("vda".to_owned(), vda)]));
        let text = "Inter-| Receive\n  vec0: 100 2 0 0 0 0 0 0 300 4 0 0 0 0 0 0\n";
        let vec0 = Network { received_bytes: 100, received_packets: 2, sent_bytes: 300, sent_packets: 4 };
        assert_eq!(network(text)["vec0"], vec0);
    }

    #[test]
    fn this_very_process_is_among_the_threads() {
        let counts = take(None).unwrap();
        let own = counts.threads.iter().find(|one| one.process == u64::from(std::process::id())).unwrap();
        assert!(own.page_faults > 0 && !own.kernel && own.started > 0, "{own:?}");
        assert!(counts.uptime_ns > 0 && counts.context_switches > Some(0));
    }
}
