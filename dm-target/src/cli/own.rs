//! Verbs that dmsetup does not have: what was written since, bypass, the size of metadata.

use std::io::Write;
use std::path::Path;
use std::process::Command as Process;

use ftdm::block_io::{Access, BlockDevice};
use ftdm::era::size::{MetadataSize, Room};
use ftdm::name::StackName;
use ftdm::stack::guard::{self, Guard};
use ftdm::stack::written::Written;
use ftdm::stack::{Stack, StackStatus};
use ftdm::units::{Era, Sectors};

use super::args::Verb;
use super::{Failure, help};

pub(crate) fn run(verb: &Verb, mut out: &mut dyn Write) -> Result<(), Failure> {
    match verb {
        Verb::WrittenSince { name, era, json } => {
            let name = stack_name(name)?;
            lock_memory(&name);
            let stack = Stack::open(&name)?;
            let written = stack.written_since(*era, &start_guard(&name)?)?;
            if *json { written_json(&name, *era, &written, out) } else { written_lines(&written, out) }
        }
        Verb::Guard { name } => {
            let stack = Stack::open(&stack_name(name)?)?;
            guard::stand_by(stack, std::io::stdin(), &mut out).map_err(Failure::Guard)
        }
        Verb::Completions { shell } => Ok(out.write_all(&help::completions(*shell))?),
        Verb::Bypass { name, force } => bypass(&stack_name(name)?, *force),
        Verb::MetadataSize { volume, block_sectors } => {
            let sectors = match volume.parse() {
                Ok(sectors) => Sectors(sectors),
                Err(_) => BlockDevice::open(Path::new(volume), Access::default())?.size(),
            };
            writeln!(out, "{}", MetadataSize::of(sectors, *block_sectors).recommended_sectors().0)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

pub(crate) fn stack_name(name: &str) -> Result<StackName, Failure> {
    name.parse().map_err(|e: ftdm::name::NameError| Failure::Wrong(e.to_string()))
}

/// The volume may hold this very program, or swap: nothing is to be paged in during the pause.
fn lock_memory(name: &StackName) {
    if let Err(e) = ftdm::ioctl::enter_io_path() {
        log::warn!("cannot lock memory: {e}; this must not run from the volume {name} itself");
    }
}

/// Another process of this program, which ends a pause that this one cannot end.
fn start_guard(name: &StackName) -> Result<Guard, Failure> {
    let program = std::env::current_exe()?;
    Guard::start(Process::new(program).arg("guard").arg("--").arg(name.top())).map_err(Failure::Guard)
}

fn bypass(name: &StackName, force: bool) -> Result<(), Failure> {
    let mut stack = Stack::open(name)?;
    let failing = stack.failing_history()?;
    if failing.is_none() && stack.history().is_ok() && !force {
        return Err(Failure::Healthy);
    }
    lock_memory(name);
    stack.bypass(&start_guard(name)?)?;
    log::warn!("tracking of {name} is lost: a full copy or comparison is needed");
    Ok(())
}

fn written_lines(written: &Written, out: &mut dyn Write) -> Result<(), Failure> {
    let mut lines = std::io::BufWriter::new(out);
    for extent in written.extents() {
        writeln!(lines, "{} {}", extent.start().0, extent.len().0)?;
    }
    writeln!(lines, "next-era {}", written.delta.next)?;
    writeln!(lines, "pause-us {}", written.pause.as_micros())?;
    Ok(lines.flush()?)
}

fn written_json(name: &StackName, since: Era, written: &Written, out: &mut dyn Write) -> Result<(), Failure> {
    let mut json = std::io::BufWriter::new(out);
    let (next, sectors) = (written.delta.next, written.sectors().0);
    let (pause, read) = (written.pause.as_micros(), written.read.as_micros());
    // A name has no other character that JSON would escape.
    let name = name.top().replace('\\', "\\\\");
    write!(json, "{{\"name\":\"{name}\",\"since\":{since},\"next_era\":{next},\"sectors\":{sectors},")?;
    write!(json, "\"pause_us\":{pause},\"read_us\":{read},\"extents\":[")?;
    for (index, extent) in written.extents().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(json, "{comma}[{},{}]", extent.start().0, extent.len().0)?;
    }
    writeln!(json, "]}}")?;
    Ok(json.flush()?)
}

pub(crate) fn warn_when_full(stack: &Stack, status: &StackStatus) {
    let (Some(era), Ok(history)) = (&status.era, stack.history()) else { return };
    match MetadataSize::of(stack.size(), history.block).room(era) {
        Room::Enough => {}
        Room::Low { percent } => log::warn!("the metadata of {} is {percent} % full", stack.name()),
        Room::Full { free, needed } => log::warn!(
            "the metadata of {} has {free} free blocks, an era may take {needed}: no era is begun any more",
            stack.name()
        ),
        Room::Exhausted { free, needed } => log::warn!(
            "the metadata of {} has {free} free blocks, writes may take {needed}: dm-era is about to fail them \
             (ftdm bypass)",
            stack.name()
        ),
    }
}
