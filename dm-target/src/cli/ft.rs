//! The `ft` target in dmsetup's verbs: a table with an `ft` line builds a stack, and the visible device of a stack
//! shows that line.
//!
//! Always holds: hidden layers are changed by no verb but through their stack; a device that a daemon serves is
//! changed by none.

use std::io::Write;

use ftdm::discard::Discards;
use ftdm::ioctl::exchange::{Address, Reply, Target};
use ftdm::ioctl::flags;
use ftdm::kernel_gate;
use ftdm::name::{Part, StackName, VolumeId};
use ftdm::stack::{self, Created, Mode, Stack, StackStatus};
use ftdm::table::FtTable;
use ftdm::units::DevNum;

use super::Failure;
use super::args;
use super::dm::{Dm, New};
use super::own::stack_name;

/// The target's name.
const FT: &[u8] = b"ft";

/// Whether a table has an ft line.
pub(crate) fn is_ft(table: &[Target]) -> bool {
    table.iter().any(|line| line.kind == FT)
}

/// Which part of a stack a device is, by its UUID.
fn part(uuid: &[u8]) -> Option<Part> {
    std::str::from_utf8(uuid).ok().and_then(VolumeId::part)
}

/// Whether a device is a hidden layer.
pub(crate) fn is_hidden(number: DevNum) -> bool {
    let uuid = std::fs::read_to_string(format!("/sys/dev/block/{number}/dm/uuid")).unwrap_or_default();
    part(uuid.trim_end().as_bytes()).is_some_and(|part| part != Part::Top)
}

/// Whether this is a visible device.
pub(crate) fn is_top(info: &Reply) -> bool {
    part(&info.uuid) == Some(Part::Top)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The name of the stack whose visible device this is.
fn top_name(info: &Reply) -> Result<StackName, Failure> {
    stack_name(&text(&info.name))
}

/// The only line of a table with an ft line.
fn only_line(table: &[Target]) -> Result<FtTable, Failure> {
    let [Target { start, len, kind, parameters }] = table else {
        let why = "an ft line stands alone: a device of ft and other targets cannot be made; put the others above it";
        return Err(Failure::Wrong(why.to_owned()));
    };
    let line = format!("{start} {len} {} {}", text(kind), text(parameters));
    line.parse().map_err(|e: ftdm::table::TableError| Failure::Wrong(e.to_string()))
}

/// Creates a stack.
pub(crate) fn create(new: &New, given: &args::Create) -> Result<(), Failure> {
    let table = only_line(new.table.as_deref().unwrap_or_default())?;
    let name = stack_name(&text(&new.name))?;
    if new.readonly {
        return Err(Failure::Wrong("an ft device takes writes: leave --readonly out".to_owned()));
    }
    if !new.uuid.is_empty() && part(&new.uuid) != Some(Part::Top) {
        return Err(Failure::Wrong("an ft device has the UUID of its volume: leave --uuid out".to_owned()));
    }
    check_kernel(given.allow_kernel)?;
    match stack::create_as(&name, &table, given.discards, given.recorded_era, new.minor)? {
        Created::Made => log::info!("{name} made"),
        Created::AlreadyThere => log::info!("{name} is there already, with this table"),
    }
    Ok(())
}

/// Loads an ft line into a device: into one without a table and UUID, which becomes a stack, or into the visible
/// device of the same stack, which is as it is to be.
pub(crate) fn load(
    dm: &mut Dm,
    address: &Address,
    table: &[Target],
    given: &args::Load,
) -> Result<(), Failure> {
    let table = only_line(table)?;
    if given.readonly {
        return Err(Failure::Wrong("an ft device takes writes: leave --readonly out".to_owned()));
    }
    let Some(info) = dm.info(address)? else {
        return Ok(super::dm::fail(super::dm::refusal("reload", address, nix::errno::Errno::ENXIO))?);
    };
    let name = top_name(&info)?;
    check_kernel(false)?;
    if is_top(&info) {
        stack::create(&name, &table, Stack::open(&name)?.discards(), None)?;
        return Ok(());
    }
    if info.flags & (flags::ACTIVE_PRESENT | flags::INACTIVE_PRESENT) != 0 || !info.uuid.is_empty() {
        let why = "an ft line is loaded only into a device that has no table and no UUID yet (create --notable): \
                   remove this one, and create it with the line";
        return Err(Failure::Refused(why.to_owned()));
    }
    Ok(stack::load(&name, &table, Discards::Off)?)
}

/// After a resume made the table of a stack live that [`load`] had loaded.
pub(crate) fn finish(name: &StackName) -> Result<(), Failure> {
    Ok(stack::finish(name)?)
}

fn check_kernel(allowed: bool) -> Result<(), Failure> {
    Ok(kernel_gate::check_running(allowed)??)
}

/// What may be done to an ft device without harm: nothing of what the verb does.
pub(crate) fn refuse(dm: &mut Dm, address: &Address, verb: &str) -> Result<(), Failure> {
    let Some(info) = dm.info(address)? else { return Ok(()) };
    let name = text(&info.name);
    match part(&info.uuid) {
        None => Ok(()),
        Some(Part::Top) => Err(Failure::Refused(format!(
            "cannot {verb} {name}: it is an ft device, whose tables and pauses are ftdm's own. Work on a device above \
             it, or remove it"
        ))),
        Some(_) => Err(Failure::Refused(format!(
            "cannot {verb} {name}: it is a hidden layer of an ft device. Work on the visible device"
        ))),
    }
}

/// A visible device may be resumed: with a loaded table (its stack is then to be finished), and while nothing holds
/// it back but a tool that died.
pub(crate) fn refuse_resume(dm: &mut Dm, address: &Address) -> Result<Option<StackName>, Failure> {
    let Some(info) = dm.info(address)? else { return Ok(None) };
    if !is_top(&info) {
        refuse(dm, address, "resume")?;
        return Ok(None);
    }
    let name = top_name(&info)?;
    let served = stack::served(&name)?;
    if let Some(by) = served {
        return Err(Failure::Refused(format!("cannot resume {name}: {by}")));
    }
    let shut =
        Stack::open(&name).and_then(|stack| stack.status()).is_ok_and(|status| status.mode == Mode::Shut);
    if shut {
        return Err(Failure::Refused(format!(
            "cannot resume {name}: this side gave the volume up. start the daemon of its group, which decides"
        )));
    }
    let first = info.flags & flags::ACTIVE_PRESENT == 0 && info.flags & flags::INACTIVE_PRESENT != 0;
    if info.flags & flags::ACTIVE_PRESENT != 0 && info.flags & flags::INACTIVE_PRESENT != 0 {
        return Err(Failure::Refused(format!(
            "cannot resume {name}: a table is loaded that ftdm did not load"
        )));
    }
    Ok(first.then_some(name))
}

/// Removes a stack, if the address is one's. `--force` and `--deferred` are not for stacks.
pub(crate) fn remove(dm: &mut Dm, address: &Address, given: &args::Remove) -> Result<bool, Failure> {
    let info = dm.info(address)?;
    let name = match info.as_ref().map(|info| part(&info.uuid)) {
        Some(None) => return Ok(false),
        Some(Some(Part::Top)) => text(&info.unwrap_or_default().name),
        Some(Some(_)) => {
            refuse(dm, address, "remove")?;
            return Ok(true);
        }
        // What an interrupted create or remove left has hidden layers only.
        None => match std::str::from_utf8(&address.name).ok().and_then(|name| name.parse().ok()) {
            Some(name) if stack::has_leftovers(&name)? => name.to_string(),
            _ => return Ok(false),
        },
    };
    if given.force || given.deferred {
        let why = format!(
            "{name} is an ft device: it is removed when it is closed and no daemon serves it. Leave --force and --deferred out"
        );
        return Err(Failure::Refused(why));
    }
    stack::remove(&stack_name(&name)?)?;
    Ok(true)
}

/// `remove_all` would tear stacks apart.
pub(crate) fn refuse_all(dm: &mut Dm) -> Result<(), Failure> {
    let stacks = stack::list()?;
    let _ = dm;
    let names: Vec<_> = stacks.into_iter().map(|(name, _)| name).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "there are ft devices ({}): remove them one by one first",
        names.join(", ")
    )))
}

/// The line of a visible device in a table (`how` has [`flags::STATUS_TABLE`]) or status. `None` for others, and for
/// tables that are loaded and not live.
pub(crate) fn lines(
    dm: &mut Dm,
    address: &Address,
    how: u32,
) -> Result<Option<(Reply, Vec<Target>)>, Failure> {
    let Some(info) = dm.info(address)? else { return Ok(None) };
    if !is_top(&info) || how & flags::QUERY_INACTIVE_TABLE != 0 || info.flags & flags::ACTIVE_PRESENT == 0 {
        return Ok(None);
    }
    let stack = Stack::open(&top_name(&info)?)?;
    let line = if how & flags::STATUS_TABLE != 0 {
        stack.table()?.to_string()
    } else {
        let status = stack.status()?;
        super::own::warn_when_full(&stack, &status);
        status_line(&status)
    };
    let parameters = line.splitn(4, ' ').nth(3).unwrap_or_default().as_bytes().to_vec();
    let line = Target { start: 0, len: stack.size().0, kind: FT.to_vec(), parameters };
    Ok(Some((info, vec![line])))
}

fn status_line(status: &StackStatus) -> String {
    let StackStatus { sectors, mode, suspended, era, log } = status;
    let state = if *suspended { "-suspended" } else { "" };
    let era = era.map_or_else(
        || "- - -".to_owned(),
        |era| {
            let snapshot = era.snapshot.map_or_else(|| "-".to_owned(), |block| block.to_string());
            format!("{}/{} {} {snapshot}", era.used, era.total, era.current)
        },
    );
    let log = log.map_or_else(String::new, |log| {
        let off = if log.on { "" } else { " logging_disabled" };
        format!(" {} {}{off}", log.entries, log.used.0)
    });
    format!("0 {} ft {mode}{state} {era}{log}", sectors.0)
}

/// What `info` shows of a visible device beyond dmsetup's lines.
pub(crate) fn info_lines(info: &Reply, out: &mut dyn Write) -> Result<(), Failure> {
    if !is_top(info) || info.flags & flags::ACTIVE_PRESENT == 0 {
        return Ok(());
    }
    let stack = Stack::open(&top_name(info)?)?;
    writeln!(out, "Discards:          {}", stack.discards())?;
    writeln!(out, "Era device:        {}", stack.era())?;
    writeln!(out, "Origin device:     {}", stack.origin())?;
    let metadata = stack.history().map_or_else(|_| "none".to_owned(), |history| history.metadata.to_string());
    writeln!(out, "Metadata device:   {metadata}")?;
    Ok(())
}

/// What a visible device stands on, in place of its hidden layers.
pub(crate) fn uses(info: &Reply) -> Option<Vec<DevNum>> {
    if !is_top(info) {
        return None;
    }
    let stack = top_name(info).ok().and_then(|name| Stack::open(&name).ok())?;
    let metadata = stack.history().map(|history| history.metadata).ok();
    Some(metadata.into_iter().chain([stack.origin()]).collect())
}
