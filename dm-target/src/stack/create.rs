//! Making a stack and taking it down.
//!
//! Always holds: [`create`] leaves either the whole stack or nothing that was not there before; the gate
//! takes no discards from before anything is pointed at it; what a capture asks of the kernel's queue settings was
//! asked here before.

use std::path::PathBuf;

use super::devices::{self, Described, Devices, NewDevice, TargetLine};
use super::{Created, History, Mode, Stack, StackError, TARGETS, checks, era_status, io_step};
use crate::block_io::{Access, BlockDevice};
use crate::discard::Discards;
use crate::discard::valve::Valve;
use crate::era::status::EraStatus;
use crate::ioctl::DmControl;
use crate::kernel_gate::kernel_release;
use crate::name::{StackName, UUID_PREFIX, VolumeId};
use crate::pause::stillness::Stillness;
use crate::table::FtTable;
use crate::units::{DevNum, Era};

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
    clear_leftovers(&devices, name)?;
    let checked = checks::check(&devices, table)?;
    let before = checked.era.unwrap_or(Era(0));
    refuse_older(recorded, before)?;
    build_era(&devices, name, table, &checked, discards)?;
    let built = match discards {
        Discards::Off => Ok(()),
        Discards::Pass => build_gate(&devices, name, table, &checked)
            .and_then(|()| build_outlet(&devices, name, table, &checked)),
    };
    let built = built.and_then(|()| build_top(&devices, name, table, &checked, discards));
    if built.is_err() {
        for hidden in [name.outlet(), name.gate(), name.era()] {
            if let Err(e) = devices.remove(&hidden) {
                log::error!("{hidden} was left behind: {e}");
            }
        }
    }
    built.map(|()| Created::Made)
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
    let log = devices.find(&name.log())?;
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

/// Hidden devices without a visible one are what an interrupted create or remove leaves.
fn clear_leftovers(devices: &Devices, name: &StackName) -> Result<(), StackError> {
    for hidden in [name.log(), name.gate(), name.outlet(), name.era()] {
        match devices.find(&hidden)? {
            None => {}
            Some(found) if is_hidden(&found) => {
                if found.open_count > 0 {
                    let by = "a leftover of an earlier stack, still open".to_owned();
                    return Err(StackError::Busy { name: hidden, by });
                }
                log::info!("removing {hidden}, left over from an earlier stack");
                devices.remove(&hidden)?;
            }
            Some(found) => return Err(taken(&hidden, &found)),
        }
    }
    Ok(())
}

fn is_hidden(device: &Described) -> bool {
    device.uuid.starts_with(UUID_PREFIX)
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
    let made = devices.make(&NewDevice { name: &era, uuid: &uuid, line, hidden: true, discards })?;
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
    let (gate, uuid) = (name.gate(), checked.id.gate());
    let new = NewDevice { name: &gate, uuid: &uuid, line, hidden: true, discards: Discards::Off };
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
    let (outlet, uuid) = (name.outlet(), checked.id.outlet());
    let new = NewDevice { name: &outlet, uuid: &uuid, line, hidden: true, discards: Discards::Pass };
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

fn build_top(
    devices: &Devices,
    name: &StackName,
    table: &FtTable,
    checked: &checks::Checked,
    discards: Discards,
) -> Result<(), StackError> {
    let below = if discards == Discards::Pass { name.gate() } else { name.era() };
    let line = linear_over(devices, &below, table)?;
    let uuid = checked.id.top();
    let new = NewDevice { name: name.top(), uuid: &uuid, line, hidden: false, discards: Discards::Off };
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

/// Takes the stack down, half-made ones and leftovers of a capture included.
///
/// # Errors
/// [`StackError::NotFound`] when there is nothing, [`StackError::Busy`] while the visible device
/// is open: then nothing was changed.
pub fn remove(name: &StackName) -> Result<(), StackError> {
    let devices = Devices::open()?;
    let mut found_any = false;
    if let Some(top) = devices.find(name.top())? {
        if VolumeId::from_top_uuid(&top.uuid).is_none() {
            return Err(StackError::NotFound(name.to_string()));
        }
        if top.open_count > 0 {
            let by = format!("{} have it open: close it (unmount, stop the VM) first", top.open_count);
            return Err(StackError::Busy { name: name.to_string(), by });
        }
        found_any = true;
        devices.remove(name.top())?;
    }
    for hidden in [name.log(), name.gate(), name.outlet(), name.era()] {
        if devices.find(&hidden)?.is_some_and(|d| is_hidden(&d)) {
            found_any = true;
            devices.remove(&hidden)?;
        }
    }
    if found_any { Ok(()) } else { Err(StackError::NotFound(name.to_string())) }
}
