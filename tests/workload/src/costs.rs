//! What a kernel and a processor charge for the things that replication is made of.
//!
//! Always holds: a figure is the least of several means, each over many times of the same thing, so that a busy machine
//! is in it as little as can be; each thing is measured in this process or in a child that nothing else runs in.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use lz4_flex::block::{compress_into, get_maximum_output_size};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::unistd::{Pid, getppid};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_128;

/// Means of which the least counts.
const BATCHES: usize = 5;
const CALLS: u32 = 20_000;
const ROUND_TRIPS: u32 = 2_000;
const FORKS: u32 = 40;
const PAGE: usize = 4096;
const PAGES: u32 = 2048;
const MIB: usize = 1 << 20;
/// Bytes that are hashed, compressed and copied at a time: what a frame of an epoch may hold.
const BUFFER: usize = 256 << 10;
const BUFFERS: u32 = 2;

/// Times in microseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Costs {
    /// A system call that does nothing.
    system_call: f64,
    /// A byte to another process and one back, through pipes.
    pipe_round_trip: f64,
    /// The same with both on one CPU.
    pipe_round_trip_on_one_cpu: f64,
    /// From one process to another: half of that round trip, without its system calls.
    context_switch: f64,
    /// The first write to a page of 4 KiB.
    page_fault: f64,
    /// A small process that forks, and the child's end.
    fork: f64,
    /// SHA-256 of a MiB.
    sha256_mib: f64,
    /// XXH3-128 of a MiB: what the digest of an epoch takes of payloads.
    xxh3_mib: f64,
    /// Trying to compress a MiB that does not shrink, with lz4.
    lz4_mib: f64,
    /// Copying a MiB.
    copy_mib: f64,
}

/// Measures all of them; `program` is this one.
pub(crate) fn measure(program: &Path) -> anyhow::Result<Costs> {
    // A huge page is one fault for 512 pages.
    prctl::set_thp_disable(true).context("cannot switch huge pages off for this process")?;
    let pipe_round_trip = pipe_round_trip(program)?;
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("cannot stay on one CPU")?;
    let on_one_cpu = self::pipe_round_trip(program)?;
    let noise = noise(BUFFER);
    let mut out = vec![0; get_maximum_output_size(BUFFER)];
    Ok(Costs {
        system_call: each(CALLS, || {
            black_box(getppid());
            Ok(())
        })?,
        pipe_round_trip,
        pipe_round_trip_on_one_cpu: on_one_cpu,
        context_switch: on_one_cpu / 2.0 - pipe_to_itself()?,
        page_fault: {
            let mut touched = Vec::new();
            least(|| page_fault(&mut touched))?
        },
        fork: (least(|| forks(FORKS + 1))? - least(|| forks(1))?) / f64::from(FORKS),
        sha256_mib: each_mib(|| {
            black_box(Sha256::digest(black_box(&noise)));
            Ok(())
        })?,
        xxh3_mib: each_mib(|| {
            black_box(XxHash3_128::oneshot(black_box(&noise)));
            Ok(())
        })?,
        lz4_mib: each_mib(|| {
            black_box(compress_into(black_box(&noise), &mut out)?);
            Ok(())
        })?,
        copy_mib: {
            let mut copy = vec![0; BUFFER];
            each_mib(|| {
                black_box(&mut copy).copy_from_slice(black_box(&noise));
                Ok(())
            })?
        },
    })
}

/// The other end of the pipes: gives each byte back until there are no more.
pub(crate) fn echo() -> anyhow::Result<()> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut byte = [0];
    while input.read(&mut byte)? == 1 {
        output.write_all(&byte)?;
    }
    Ok(())
}

/// The least of several results.
fn least(mut measure: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    (0..BATCHES).try_fold(f64::INFINITY, |least, _| Ok(measure()?.min(least)))
}

/// Microseconds that each of `count` times takes, after a first one.
fn each(count: u32, mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    once()?;
    least(|| {
        let begun = Instant::now();
        for _ in 0..count {
            once()?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(count))
    })
}

/// Microseconds for a MiB, when `once` is done with a buffer.
fn each_mib(once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    Ok(each(BUFFERS, once)? * f64::from(u32::try_from(MIB / BUFFER)?))
}

fn pipe_round_trip(program: &Path) -> anyhow::Result<f64> {
    let mut child = Command::new(program)
        .args(["costs", "--echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start this program again")?;
    let mut to = child.stdin.take().context("no pipe to the child")?;
    let mut from = child.stdout.take().context("no pipe from the child")?;
    let mut byte = [0];
    let took = each(ROUND_TRIPS, || {
        to.write_all(&byte)?;
        from.read_exact(&mut byte)?;
        Ok(())
    })?;
    drop(to);
    ensure!(child.wait()?.success(), "the other end of the pipe failed");
    Ok(took)
}

/// A byte into a pipe and out of it again, without anybody else.
fn pipe_to_itself() -> anyhow::Result<f64> {
    let (mut from, mut to) = io::pipe()?;
    let mut byte = [0];
    each(ROUND_TRIPS, || {
        to.write_all(&byte)?;
        from.read_exact(&mut byte)?;
        Ok(())
    })
}

/// Adds the memory to `touched`: freed, the next allocation would find its pages there.
fn page_fault(touched: &mut Vec<Vec<u8>>) -> anyhow::Result<f64> {
    let pages = usize::try_from(PAGES)?;
    // Zeroed by the kernel, page by page, as each is touched.
    let mut memory = vec![0_u8; pages * PAGE];
    let begun = Instant::now();
    for page in memory.chunks_mut(PAGE) {
        page[0] = 1;
    }
    let took = begun.elapsed();
    touched.push(black_box(memory));
    Ok(took.as_secs_f64() * 1e6 / f64::from(PAGES))
}

/// Microseconds for a shell, which is small, that forks so many times, its own start included.
fn forks(count: u32) -> anyhow::Result<f64> {
    let script = format!("n=0; while [ $n -lt {count} ]; do (:); n=$((n + 1)); done");
    let begun = Instant::now();
    ensure!(Command::new("sh").args(["-c", &script]).status()?.success(), "the shell failed");
    Ok(begun.elapsed().as_secs_f64() * 1e6)
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_does_not_compress() {
        let noise = noise(BUFFER);
        let mut out = vec![0; get_maximum_output_size(BUFFER)];
        assert!(compress_into(&noise, &mut out).unwrap() >= BUFFER);
    }

    #[test]
    fn every_page_is_a_fault_of_its_own() {
        let faults = || {
            let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).unwrap();
            usage.minor_page_faults()
        };
        prctl::set_thp_disable(true).unwrap();
        let (before, mut touched) = (faults(), Vec::new());
        for _ in 0..2 {
            assert!(page_fault(&mut touched).unwrap() > 0.0);
        }
        assert!(faults() - before >= 2 * i64::from(PAGES));
    }
}
