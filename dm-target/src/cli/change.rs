//! Verbs that change devices that are there: suspend, resume, clear, rename, message, setgeometry, mknodes, mangle, wait.
//!
//! Always holds: an ft device is changed only in ways that lose no tracking ([`ft::refuse`]); the first device for
//! which a verb fails ends it.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use ftdm::ioctl::exchange::{Address, MAX_NAME, MAX_UUID, Request};
use ftdm::ioctl::{Command, flags};
use ftdm::mangle::{Mangling, Odd, odd};

use super::args;
use super::create::{USUAL_OWNER, add_node, atoi, read_ahead};
use super::dm::{AddNode, Dm, fail, say};
use super::show::{info_lines, visible};
use super::{Failure, Which, ft, nodes, tables, usage, which};

/// The devices that a verb is to change: at least one, or those that are selected.
pub(crate) fn changed(dm: &mut Dm, given: &args::Which) -> Result<Vec<Address>, Failure> {
    let found = which(dm, given, usize::MAX)?;
    if !found.addresses.is_empty() {
        return Ok(found.addresses);
    }
    if given.select.is_some() { all(dm) } else { Ok(fail("No device specified.")?) }
}

fn how(given: &args::Suspend) -> u32 {
    let noflush = if given.noflush { flags::NOFLUSH } else { 0 };
    noflush | if given.nolockfs { flags::SKIP_LOCKFS } else { 0 }
}

pub(crate) fn suspend(dm: &mut Dm, given: &args::Suspend) -> Result<(), Failure> {
    for address in changed(dm, &given.which)? {
        if !super::show::selects(dm, &given.which, &address)? {
            continue;
        }
        ft::refuse(dm, &address, "suspend")?;
        let request = Request { address, flags: how(given) | flags::SUSPEND, ..Request::default() };
        dm.exchange(Command::Suspend, &request)?;
    }
    Ok(())
}

pub(crate) fn resume(dm: &mut Dm, given: &args::Resume) -> Result<(), Failure> {
    let node = match add_node(&given.node) {
        AddNode::OnResume | AddNode::OnCreate => Some(USUAL_OWNER),
    };
    let read_ahead = read_ahead(&given.node)?;
    for address in changed(dm, &given.suspend.which)? {
        if !super::show::selects(dm, &given.suspend.which, &address)? {
            continue;
        }
        let finish = ft::refuse_resume(dm, &address)?;
        dm.resume(&address, how(&given.suspend), node, read_ahead)?;
        if let Some(name) = finish {
            ft::finish(&name)?;
        }
    }
    Ok(())
}

pub(crate) fn clear(dm: &mut Dm, given: &args::Which) -> Result<(), Failure> {
    for address in changed(dm, given)? {
        if !super::show::selects(dm, given, &address)? {
            continue;
        }
        ft::refuse(dm, &address, "clear")?;
        dm.exchange(Command::TableClear, &Request { address, ..Request::default() })?;
    }
    Ok(())
}

pub(crate) fn rename(dm: &mut Dm, given: &args::Rename) -> Result<(), Failure> {
    let Which { addresses, rest } = which(dm, &given.which, 1)?;
    let words = given.which.devices.len();
    if !(1..=2).contains(&words) {
        return Err(usage("Incorrect number of arguments."));
    }
    let ([address], [new]) = (&addresses[..], &rest[..]) else { return Ok(fail("No device specified.")?) };
    let new = new.as_bytes();
    let (max, what) = if given.setuuid { (MAX_UUID, "Uuid") } else { (MAX_NAME, "Name") };
    if new.is_empty() && !given.setuuid {
        return Ok(fail("Non empty new name is required.")?);
    }
    if !given.setuuid && new.contains(&b'/') {
        return Ok(fail([b"Name \"", new, b"\" invalid. It contains \"/\"."].concat())?);
    }
    if new.len() > max {
        return Ok(fail([what.as_bytes(), b" \"", new, b"\" too long"].concat())?);
    }
    let new = if given.setuuid { dm.mangle_uuid(new)? } else { dm.new_name(new)? };
    ft::refuse(dm, address, if given.setuuid { "give a UUID to" } else { "rename" })?;
    let payload = [&new[..], b"\0"].concat();
    let flags = if given.setuuid { flags::UUID } else { 0 };
    let request = Request { address: address.clone(), flags, payload: &payload, ..Request::default() };
    dm.exchange_with_event(Command::Rename, request)?;
    if !given.setuuid
        && !dm.udev.makes_nodes()
        && let Err(why) = nodes::rename(&address.name, &new)
    {
        say(why);
    }
    Ok(())
}

pub(crate) fn message(dm: &mut Dm, given: &args::Which, out: &mut dyn Write) -> Result<(), Failure> {
    let Which { addresses, rest } = which(dm, given, 1)?;
    let ([address], [sector, words @ ..]) = (&addresses[..], &rest[..]) else {
        return Err(usage("Incorrect number of arguments."));
    };
    let Some((sector, [])) = tables::number(sector.as_bytes()) else { return Ok(fail("Invalid sector.")?) };
    ft::refuse(dm, address, "send a message to")?;
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let text = words.join(&b' ');
    if text.is_empty() {
        say("No message supplied.");
    }
    let payload = [&sector.to_ne_bytes()[..], &text, b"\0"].concat();
    let request = Request { address: address.clone(), payload: &payload, ..Request::default() };
    let reply = dm.exchange(Command::Message, &request)?;
    if reply.flags & flags::DATA_OUT != 0 {
        let end = reply.data.iter().position(|b| *b == 0).unwrap_or(reply.data.len());
        out.write_all(&reply.data[..end])?;
        if end > 0 && !reply.data[..end].ends_with(b"\n") {
            writeln!(out)?;
        }
    }
    Ok(())
}

pub(crate) fn set_geometry(dm: &mut Dm, given: &args::Which) -> Result<(), Failure> {
    let [_, numbers @ ..] = &given.devices[..] else { return Err(usage("Incorrect number of arguments.")) };
    if numbers.len() != 4 {
        return Err(usage("Incorrect number of arguments."));
    }
    let Which { addresses, .. } = which(dm, given, 1)?;
    let words: Vec<&[u8]> = numbers.iter().map(|word| word.as_bytes()).collect();
    let payload = [&words.join(&b' ')[..], b"\0"].concat();
    for address in addresses {
        ft::refuse(dm, &address, "set the geometry of")?;
        dm.exchange(Command::SetGeometry, &Request { address, payload: &payload, ..Request::default() })?;
    }
    Ok(())
}

pub(crate) fn make_nodes(dm: &mut Dm, given: &args::Which) -> Result<(), Failure> {
    let found = which(dm, given, usize::MAX)?;
    if found.addresses.is_empty() {
        return all_nodes(dm);
    }
    for address in found.addresses {
        if let Some(info) = dm.info(&address)? {
            dm.ensure_node(&info.name, info.number, USUAL_OWNER);
        } else {
            dm.remove_node(&address.name);
        }
    }
    Ok(())
}

/// Makes the nodes of all devices, and removes those of devices that are gone.
pub(crate) fn all_nodes(dm: &mut Dm) -> Result<(), Failure> {
    let devices = dm.list()?;
    for name in nodes::names() {
        let stays = name == nodes::CONTROL || devices.iter().any(|device| device.name == name);
        if !stays && nodes::is_block(&name) {
            dm.remove_node(&name);
        }
    }
    for device in devices {
        dm.ensure_node(&device.name, device.number, USUAL_OWNER);
    }
    Ok(())
}

pub(crate) fn mangle(dm: &mut Dm, given: &args::Which) -> Result<(), Failure> {
    let found = which(dm, given, usize::MAX)?;
    let names = if found.addresses.is_empty() {
        dm.list()?.into_iter().map(|device| device.name).collect()
    } else {
        found.addresses.into_iter().map(|address| address.name).collect::<Vec<_>>()
    };
    let mode = if dm.mangling == Mangling::None { Mangling::Auto } else { dm.mangling };
    let mut failed = false;
    for name in names {
        let Some(info) = dm.info(&Address { name, ..Address::default() })? else { return Err(Failure::Said) };
        failed |= !mangle_one(dm, &info.name, &info.uuid, mode)?;
    }
    if failed { Err(Failure::Said) } else { Ok(()) }
}

/// Whether that device has a name as it should be now.
fn mangle_one(dm: &mut Dm, name: &[u8], uuid: &[u8], mode: Mangling) -> Result<bool, Failure> {
    let line = |text: &[&[u8]]| [&text.concat()[..], b"\n"].concat();
    let mut out = std::io::stdout();
    match odd(name, mode) {
        Some(Odd::Twice) => {
            let why =
                "seems to be mangled more than once. Manual intervention required to rename the device.";
            say([b"The name \"", name, b"\" ", why.as_bytes()].concat());
            return Ok(false);
        }
        Some(Odd::Unmangled) => {
            let new = ftdm::mangle::mangled(name, Mangling::Hex).unwrap_or_default().into_owned();
            out.write_all(&line(&[name, b": renaming to ", &new]))?;
            let payload = [&new[..], b"\0"].concat();
            let address = Address { name: name.to_vec(), ..Address::default() };
            dm.exchange_with_event(
                Command::Rename,
                Request { address, payload: &payload, ..Request::default() },
            )?;
            if let Err(why) = nodes::rename(name, &new) {
                say(why);
            }
        }
        None if uuid.is_empty() => {
            out.write_all(&line(&[name, b": [no UUID]: name already in correct form"]))?;
        }
        None => out.write_all(&line(&[name, b": ", uuid, b": name and UUID already in correct form"]))?,
    }
    Ok(true)
}

pub(crate) fn wait(dm: &mut Dm, given: &args::Wait, out: &mut dyn Write) -> Result<(), Failure> {
    let Which { addresses, rest } = which(dm, &given.which, 1)?;
    if given.which.devices.len() > 2 {
        return Err(usage("Incorrect number of arguments."));
    }
    let [address] = &addresses[..] else { return Ok(fail("No device specified.")?) };
    let event = match rest.first() {
        Some(word) => atoi(word),
        None => 0,
    };
    let flags = if given.noflush { flags::NOFLUSH } else { 0 };
    let request = Request { address: address.clone(), event, flags, ..Request::default() };
    let reply = dm.exchange(Command::Wait, &request)?;
    if dm.verbose > 0 {
        info_lines(dm, &reply, out)?;
    }
    Ok(())
}

/// All devices, hidden layers too: what may not be changed is refused where it is looked at.
pub(crate) fn all(dm: &mut Dm) -> Result<Vec<Address>, Failure> {
    let all = visible(dm, true)?;
    Ok(all.into_iter().map(|device| Address { name: device.name, ..Address::default() }).collect())
}
