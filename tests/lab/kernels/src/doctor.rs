//! What works on this machine: each thing with the reason and the remedy where it does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::registers::{self, Help};
use crate::stock::Stock;
use crate::uml::Uml;
use crate::{Kernel, debian, output, qemu, trial};

/// Memory that two hosts of the usual size take, and what a build from a clean clone takes of the disk, in MiB.
const MEMORY_MIB: u64 = 2 * 1024;
const DISK_MIB: u64 = 12 * 1024;

/// How a thing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It works; in a few words, how.
    Works(String),
    /// It is not here, but the lab gets it when it is asked for.
    Absent(String),
    /// It does not, and why, and what to do.
    Broken(String),
}

/// A thing, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is.
    pub what: String,
    /// How it is.
    pub finding: Finding,
}

impl Line {
    fn new(what: impl Into<String>, works: Result<String>) -> Self {
        let finding = works.map_or_else(|error| Finding::Broken(format!("{error:#}")), Finding::Works);
        Line { what: what.into(), finding }
    }
}

/// Where things are.
#[derive(Debug)]
pub struct Places {
    /// The lab's cache.
    pub cache: PathBuf,
    /// The library that older kernels may need.
    pub programs: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
}

/// What everything rests on: the machine itself and the kernel that is the default. Takes a second or two.
#[must_use]
pub fn basics(places: &Places) -> Vec<Line> {
    let mut lines = vec![
        Line::new("root", root()),
        Line::new("namespaces", namespaces()),
        Line::new("memory", memory()),
        Line::new("disk", disk(&places.target)),
        Line::new("registers", Ok(format!("{} bytes", registers::area()))),
    ];
    // Without these no kernel boots, and the reason is said already.
    if lines[..2].iter().all(|line| matches!(line.finding, Finding::Works(_))) {
        lines.push(uml(Kernel::Distribution, places));
    }
    lines
}

/// Every other kernel on every back end.
#[must_use]
pub fn others(places: &Places) -> Vec<Line> {
    let named = Kernel::ALL.into_iter().filter(|kernel| kernel.on_this_machine() != Kernel::Distribution);
    let mut lines: Vec<Line> = named.clone().map(|kernel| uml(kernel, places)).collect();
    lines.push(Line::new("QEMU", qemu::check().map(|version| format!("version {version}"))));
    lines.extend([Kernel::Distribution].into_iter().chain(named).map(|kernel| stock(kernel, places)));
    lines
}

fn uml(kernel: Kernel, places: &Places) -> Line {
    let what = format!("uml, kernel `{kernel}`");
    let uml = Uml::new(kernel, &places.cache);
    if !uml.is_there() && uml.folder().is_some() {
        return Line { what, finding: absent(kernel) };
    }
    // Says what to install; fetches nothing, because nothing is missing that could be fetched.
    let works = uml.provide(kernel, &places.cache, &|_| ()).and_then(|()| {
        let time = trial::boot(&uml, &places.programs)?;
        let release = uml.release()?;
        let help =
            match Help::wanted(&release, registers::area(), std::env::var_os(registers::WISH).as_deref())? {
                Help::None => "",
                Help::Library => ", with the library for this processor's registers",
                Help::Tried => ", with the library for large registers, on trial",
            };
        Ok(format!("{release} boots in {:.1} s{help}", time.as_secs_f64()))
    });
    Line::new(what, works)
}

fn stock(kernel: Kernel, places: &Places) -> Line {
    let what = format!("qemu, kernel `{kernel}`");
    let stock = Stock::new(kernel, &places.cache);
    if !stock.is_there() {
        return Line { what, finding: absent(kernel) };
    }
    Line::new(what, stock.release().map(|release| format!("{release} is here")))
}

fn absent(kernel: Kernel) -> Finding {
    match debian::can_ask(kernel) {
        Ok(()) => Finding::Absent("not here; the lab fetches it when you first ask for it".to_owned()),
        Err(error) => Finding::Broken(format!("not here, and cannot be fetched: {error:#}")),
    }
}

fn root() -> Result<String> {
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!(
            "you are not root: the lab needs it for namespaces and mounts. Use sudo, or a container of your own"
        );
    }
    Ok("yes".to_owned())
}

fn namespaces() -> Result<String> {
    let tried = output(Command::new("unshare").args([
        "--mount",
        "--pid",
        "--net",
        "--fork",
        "sh",
        "-c",
        "mount --make-rprivate / && mount -t tmpfs none /mnt",
    ]));
    tried.context(
        "hosts need mount, process and network namespaces. A container has to allow them (`--privileged` for Docker), \
         and the root of a chroot has to be a mount (`mount --bind ROOT ROOT`)",
    )?;
    Ok("mount, process, network".to_owned())
}

fn memory() -> Result<String> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let free = available(&text).context("/proc/meminfo does not tell what is free")?;
    if free < MEMORY_MIB {
        bail!("{free} MiB are free, two hosts take {MEMORY_MIB}: free some, or add swap");
    }
    Ok(format!("{free} MiB free"))
}

/// Free memory in MiB.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? >> 10)
}

/// A folder that has been built in needs no more room.
fn disk(target: &Path) -> Result<String> {
    let existing = target.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let text = output(Command::new("df").args(["--output=avail", "-BM"]).arg(existing))?;
    let free = text.lines().nth(1).and_then(|line| line.trim().trim_end_matches('M').parse::<u64>().ok());
    let free = free.with_context(|| format!("cannot tell what is free in {}", existing.display()))?;
    let built = target.join("debug/ftship").exists();
    if free < if built { DISK_MIB / 4 } else { DISK_MIB } {
        bail!(
            "{free} MiB are free in {}, a build and its tests take {DISK_MIB}: set $CARGO_TARGET_DIR",
            existing.display()
        );
    }
    Ok(format!("{free} MiB free"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read() {
        assert_eq!(available("MemTotal: 9\nMemAvailable:   10485760 kB\n"), Some(10_240));
        assert_eq!(available("MemTotal: 9\n"), None);
    }

    #[test]
    fn a_reason_is_told_whole() {
        let line = Line::new("x", Err(anyhow::anyhow!("inner").context("outer")));
        assert_eq!(line.finding, Finding::Broken("outer: inner".to_owned()));
    }
}
