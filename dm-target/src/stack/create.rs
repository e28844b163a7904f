//! Making a stack and taking it down.
//!
//! Always holds: [`create`] leaves either the whole stack or nothing that was not there before; the gate
//! takes no discards from before anything is pointed at it; what a capture asks of the kernel's queue settings was
//! asked here before.

use std::path::PathBuf;
use std::time::Duration;

use devicemapper::DmOptions;

use super::devices::{self, Described, Devices, NewDevice, TargetLine};
use super::{Created, History, Mode, Stack, StackError, TARGETS, checks, era_status, io_step};
use crate::block_io::{Access, BlockDevice};
use crate::discard::Discards;
use crate::discard::valve::Valve;
use crate::era::status::EraStatus;
use crate::ioctl::DmControl;
use crate::kernel_gate::kernel_release;
use crate::name::{Part, StackName, VolumeId};
use crate::pause::stillness::Stillness;
use crate::table::FtTable;
use crate::units::{DevNum, Era};

/// How often, and how far apart, it is looked whether a process has a layer open.
const SERVED_TRIES: u32 = 10;
const SERVED_AGAIN: Duration = Duration::from_millis(50);

/// Builds the stack that `table` describes, or finds that it is there. Metadata that tracks more of the origin than the
/// table shows is used as it is. `recorded` is the last era
/// that somebody relies on: metadata that is blank or older is then refused. With [`Discards::Pass`] it has
/// the layer that passing discards takes; whether they are passed is then each capture's to say.
///
/// # Errors
/// See [`StackError`]; after one, nothing is there that was not there before.
pub fn create(
    name: &StackName,
    table: &FtTable,
    discards: Discards,
    recorded: Option<Era>,
) -> Result<Created, StackError> {
    create_as(name, table, discards, recorded, None)
}

/// As [`create`], with a minor number for the visible device.
///
/// # Errors
/// The same.
pub fn create_as(
    name: &StackName,
    table: &FtTable,
    discards: Discards,
    recorded: Option<Era>,
    minor: Option<u32>,
) -> Result<Created, StackError> {
    let devices = Devices::open()?;
    devices.require(&TARGETS)?;
    match devices.find(name.top())? {
        Some(top) if !top.live && top.open_count == 0 && VolumeId::from_top_uuid(&top.uuid).is_some() => {
            log::info!("removing {name}, which an interrupted create left without a table");
            devices.remove(name.top())?;
        }
        Some(top) => return existing(&devices, name, table, (discards, recorded), &top),
        None => {}
    }
    let checked = prepare(&devices, name, table, discards, recorded)?;
    let built = build_top(&devices, name, table, &checked, (discards, minor));
    if built.is_err() {
        remove_hidden(&devices, name);
    }
    built.map(|()| Created::Made)
}

/// Builds the hidden layers, and checks before all that they may be.
fn prepare(
    devices: &Devices,
    name: &StackName,
    table: &FtTable,
    discards: Discards,
    recorded: Option<Era>,
) -> Result<checks::Checked, StackError> {
    clear_leftovers(devices, name)?;
    let checked = checks::check(devices, table)?;
    let before = checked.era.unwrap_or(Era(0));
    refuse_older(recorded, before)?;
    build_era(devices, name, table, &checked, discards)?;
    let built = match discards {
        Discards::Off => Ok(()),
        Discards::Pass => build_gate(devices, name, table, &checked)
            .and_then(|()| build_outlet(devices, name, table, &checked)),
    };
    if built.is_err() {
        remove_hidden(devices, name);
    }
    built.map(|()| checked)
}

fn remove_hidden(devices: &Devices, name: &StackName) {
    for hidden in [Part::Outlet, Part::Gate, Part::Era].map(|part| name.of(part)) {
        if let Err(e) = devices.remove(&hidden) {
            log::error!("{hidden} was left behind: {e}");
        }
    }
}

/// Makes a stack of a device that is there, without a table and a UUID: its hidden layers, and a table that the next
/// resume makes live ([`finish`] is then to be called).
///
/// # Errors
/// See [`StackError`]; after one, nothing is there that was not there before.
pub fn load(name: &StackName, table: &FtTable, discards: Discards) -> Result<(), StackError> {
    let devices = Devices::open()?;
    devices.require(&TARGETS)?;
    let checked = prepare(&devices, name, table, discards, None)?;
    let loaded = below(&devices, name, table, discards)
        .and_then(|line| devices.load(name.top(), &line, DmOptions::default()));
    let named = loaded.and_then(|()| {
        let named = devices.set_uuid(name.top(), &checked.id.top());
        if named.is_err()
            && let Err(e) = devices.clear(name.top())
        {
            log::error!("{name} keeps a table that is not live: {e}");
        }
        named
    });
    if named.is_err() {
        remove_hidden(&devices, name);
    }
    named
}

/// Completes a stack whose visible device got its first table just now.
///
/// # Errors
/// When the kernel does not do what a capture asks of it.
pub fn finish(name: &StackName) -> Result<(), StackError> {
    let stack = Stack::open(name)?;
    super::settle_top(stack.top)?;
    counts(stack.top)?;
    devices::ensure_node(name.top(), stack.top)
}

/// The history that somebody relies on must be in the metadata.
fn refuse_older(recorded: Option<Era>, now: Era) -> Result<(), StackError> {
    match recorded {
        Some(before) if now < before => Err(StackError::TrackingLost { before, now }),
        _ => Ok(()),
    }
}

fn existing(
    devices: &Devices,
    name: &StackName,
    table: &FtTable,
    (discards, recorded): (Discards, Option<Era>),
    top: &Described,
) -> Result<Created, StackError> {
    if VolumeId::from_top_uuid(&top.uuid).is_none() {
        return Err(taken(name.top(), top));
    }
    let stack = Stack::find(devices, name)?;
    let number = |role, path: &PathBuf| {
        let opened = BlockDevice::open(path, Access::default());
        opened.map(|d| d.number()).map_err(|source| StackError::Device { role, source })
    };
    let History { metadata, block } = stack.history()?;
    let same = stack.size == table.sectors
        && block == table.block
        && number("metadata", &table.metadata)? == metadata
        && number("origin", &table.origin)? == stack.origin;
    if !same {
        return Err(StackError::Different { existing: stack.table()?.to_string() });
    }
    if stack.discards() != discards {
        return Err(StackError::OtherDiscards { existing: stack.discards() });
    }
    let log = devices.find_uuid(&stack.id.log())?;
    if stack.mode(devices, log.as_ref())? == Mode::Unknown {
        let what = "its table points elsewhere".to_owned();
        return Err(StackError::Form { name: name.to_string(), what });
    }
    devices::ensure_node(name.top(), stack.top)?;
    if recorded.is_some() {
        let mut control = DmControl::open().map_err(io_step("open device-mapper"))?;
        refuse_older(recorded, era_status(&mut control, &stack)?.current)?;
    }
    Ok(Created::AlreadyThere)
}

fn taken(name: &str, device: &Described) -> StackError {
    let what = if device.uuid.is_empty() {
        format!("device {}", device.number)
    } else {
        format!("device {} ({})", device.number, device.uuid)
    };
    StackError::NameTaken { name: name.to_owned(), what }
}

/// The hidden devices of a stack that are there, by what they are called now or were by an older ftdm.
fn leftovers(devices: &Devices, name: &StackName) -> Result<Vec<Described>, StackError> {
    let mut found = Vec::new();
    for part in Part::HIDDEN {
        for called in [Some(name.of(part)), name.of_before(part)].into_iter().flatten() {
            found.extend(devices.find(&called)?.filter(|device| VolumeId::part(&device.uuid) == Some(part)));
        }
    }
    Ok(found)
}

/// Whether there are hidden devices of such a stack, though no visible one.
///
/// # Errors
/// The kernel's.
pub fn has_leftovers(name: &StackName) -> Result<bool, StackError> {
    let devices = Devices::open()?;
    Ok(devices.find(name.top())?.is_none() && !leftovers(&devices, name)?.is_empty())
}

/// Hidden devices without a visible one are what an interrupted create or remove leaves.
fn clear_leftovers(devices: &Devices, name: &StackName) -> Result<(), StackError> {
    for hidden in leftovers(devices, name)? {
        if hidden.open_count > 0 {
            let by = "a leftover of an earlier stack, still open".to_owned();
            return Err(StackError::Busy { name: hidden.name, by });
        }
        log::info!("removing {}, left over from an earlier stack", hidden.name);
        devices.remove(&hidden.name)?;
    }
    for hidden in Part::HIDDEN.map(|part| name.of(part)) {
        if let Some(found) = devices.find(&hidden)? {
            return Err(taken(&hidden, &found));
        }
    }
    Ok(())
}

fn build_era(
    devices: &Devices,
    name: &StackName,
    table: &FtTable,
    checked: &checks::Checked,
    discards: Discards,
) -> Result<(), StackError> {
    let era = name.era();
    let line = TargetLine {
        len: checked.tracked,
        target: "era".to_owned(),
        parameters: format!("{} {} {}", checked.metadata, checked.origin, table.block.get()),
    };
    let uuid = checked.id.era();
    let made = devices.make(&NewDevice { name: &era, uuid: &uuid, line, discards, minor: None })?;
    let judged = settle_era(devices, &era, made.number, checked.era);
    if judged.is_err()
        && let Err(e) = devices.remove(&era)
    {
        log::error!("{era} was left behind: {e}");
    }
    judged
}

/// A metadata snapshot that nobody holds any more is dropped, and the history must go on.
fn settle_era(devices: &Devices, era: &str, number: DevNum, before: Option<Era>) -> Result<(), StackError> {
    let mut control = DmControl::open().map_err(io_step("open device-mapper"))?;
    let line = control.status_line(number).map_err(io_step(format!("ask {era}")))?;
    let status: EraStatus = line.parse()?;
    if status.snapshot.is_some() {
        log::info!("dropping a metadata snapshot left in {era}");
        devices.message(era, "drop_metadata_snap")?;
    }
    match before {
        Some(before) if status.current <= before => {
            Err(StackError::TrackingLost { before, now: status.current })
        }
        _ => Ok(()),
    }
}

/// A table over all of the device `below`.
fn linear_over(devices: &Devices, below: &str, table: &FtTable) -> Result<TargetLine, StackError> {
    let below = devices.find(below)?.ok_or_else(|| StackError::Vanished(below.to_owned()))?;
    let parameters = format!("{} 0", below.number);
    Ok(TargetLine { len: table.sectors, target: "linear".to_owned(), parameters })
}

fn build_gate(
    devices: &Devices,
    name: &StackName,
    table: &FtTable,
    checked: &checks::Checked,
) -> Result<(), StackError> {
    let line = linear_over(devices, &name.era(), table)?;
    let (gate, uuid) = (name.of(Part::Gate), checked.id.of(Part::Gate));
    let new = NewDevice { name: &gate, uuid: &uuid, line, discards: Discards::Off, minor: None };
    devices.make(&new).map(drop)
}

/// Shut off until a capture begins, and seen to open: a kernel that does not do that is refused here.
fn build_outlet(
    devices: &Devices,
    name: &StackName,
    table: &FtTable,
    checked: &checks::Checked,
) -> Result<(), StackError> {
    let line = linear_over(devices, &name.era(), table)?;
    let (outlet, uuid) = (name.of(Part::Outlet), checked.id.of(Part::Outlet));
    let new = NewDevice { name: &outlet, uuid: &uuid, line, discards: Discards::Pass, minor: None };
    let made = devices.make(&new)?;
    let era = devices.find(&name.era())?.ok_or_else(|| StackError::Vanished(name.era()))?.number;
    let rehearsed =
        Valve::open(era, Some(made.number), table.sectors).and_then(|mut valve| valve.rehearse(era));
    match rehearsed {
        Ok(true) => Ok(()),
        Ok(false) => {
            log::warn!("{name}: its volume takes no discards, so the guest cannot discard");
            Ok(())
        }
        Err(source) => Err(StackError::DiscardsRefused { release: kernel_release(), source }),
    }
}

/// The table of the visible device.
fn below(
    devices: &Devices,
    name: &StackName,
    table: &FtTable,
    discards: Discards,
) -> Result<TargetLine, StackError> {
    let part = if discards == Discards::Pass { Part::Gate } else { Part::Era };
    linear_over(devices, &name.of(part), table)
}

fn build_top(
    devices: &Devices,
    name: &StackName,
    table: &FtTable,
    checked: &checks::Checked,
    (discards, minor): (Discards, Option<u32>),
) -> Result<(), StackError> {
    let line = below(devices, name, table, discards)?;
    let uuid = checked.id.top();
    let new = NewDevice { name: name.top(), uuid: &uuid, line, discards: Discards::Off, minor };
    let top = devices.make(&new)?;
    let usable = counts(top.number).and_then(|()| devices::ensure_node(name.top(), top.number));
    if usable.is_err()
        && let Err(e) = devices.remove(name.top())
    {
        log::error!("{name} was left behind: {e}");
    }
    usable
}

/// Captures need the kernel's counters of the visible device.
fn counts(top: DevNum) -> Result<(), StackError> {
    Stillness::open(top).map(drop).map_err(io_step(format!(
        "have kernel {} count the visible device's writes (queue/iostats)",
        kernel_release()
    )))
}

/// Who serves the stack, if a process has one of its hidden layers open: a daemon has, and a command that reads what
/// was written. Another device over a layer counts as a user of it, and is none.
///
/// # Errors
/// The kernel's.
pub fn served(name: &StackName) -> Result<Option<String>, StackError> {
    let devices = Devices::open()?;
    let Some(top) = devices.find(name.top())? else { return Ok(None) };
    let Some(id) = VolumeId::from_top_uuid(&top.uuid) else { return Ok(None) };
    served_by(&devices, &id)
}

fn served_by(devices: &Devices, id: &VolumeId) -> Result<Option<String>, StackError> {
    // udev may look at a device for a moment.
    for attempt in 0..SERVED_TRIES {
        let mut open = None;
        for part in Part::HIDDEN {
            let Some(layer) = devices.find_uuid(&id.of(part))? else { continue };
            let holders = std::fs::read_dir(crate::block_io::sysfs(layer.number).join("holders"));
            let holders = holders.map_or(0, |entries| u32::try_from(entries.count()).unwrap_or(u32::MAX));
            if layer.open_count > holders {
                open = Some(layer.name);
            }
        }
        let Some(layer) = open else { return Ok(None) };
        if attempt + 1 == SERVED_TRIES {
            let by =
                format!("a process has its layer {layer} open: stop the daemon of its group (ftship) first");
            return Ok(Some(by));
        }
        std::thread::sleep(SERVED_AGAIN);
    }
    Ok(None)
}

/// Takes the stack down, half-made ones and leftovers of a capture included.
///
/// # Errors
/// [`StackError::NotFound`] when there is nothing, [`StackError::Busy`] while the visible device
/// is open or a daemon serves it: then nothing was changed.
pub fn remove(name: &StackName) -> Result<(), StackError> {
    let devices = Devices::open()?;
    let mut found_any = false;
    let mut hidden = leftovers(&devices, name)?;
    if let Some(top) = devices.find(name.top())? {
        let Some(id) = VolumeId::from_top_uuid(&top.uuid) else {
            return Err(StackError::NotFound(name.to_string()));
        };
        if top.open_count > 0 {
            let by = format!("{} have it open: close it (unmount, stop the VM) first", top.open_count);
            return Err(StackError::Busy { name: name.to_string(), by });
        }
        if let Some(by) = served_by(&devices, &id)? {
            return Err(StackError::Busy { name: name.to_string(), by });
        }
        for part in Part::HIDDEN {
            hidden.extend(devices.find_uuid(&id.of(part))?);
        }
        found_any = true;
        devices.remove(name.top())?;
    }
    hidden.dedup_by(|one, other| one.name == other.name);
    for device in hidden {
        found_any = true;
        devices.remove(&device.name)?;
    }
    if found_any { Ok(()) } else { Err(StackError::NotFound(name.to_string())) }
}
