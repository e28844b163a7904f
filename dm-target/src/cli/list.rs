//! Verbs that list: devices, what they use, targets, versions.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Command as Process;

use ftdm::ioctl::Command;
use ftdm::ioctl::exchange::{Address, Listed, Request};
use ftdm::ioctl::flags;
use ftdm::units::DevNum;

use super::args::{self, Words};
use super::create::USUAL_OWNER;
use super::dm::Dm;
use super::show::{block_name, has_target, info_lines, names, none_found, shown, visible};
use super::{Failure, ft, tree, usage};

/// How devices are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Number,
    Block,
    Mapped,
}

fn named(options: Option<&OsString>) -> Result<Named, Failure> {
    let mut named = Named::Number;
    for word in
        options.map(|word| word.to_string_lossy().into_owned()).iter().flat_map(|text| text.split(','))
    {
        named = match word {
            "devno" => Named::Number,
            "blkdevname" => Named::Block,
            "devname" => Named::Mapped,
            other => return Err(Failure::Misused(format!("Option not recognised: {other}."))),
        };
    }
    Ok(named)
}

pub(crate) fn ls(dm: &mut Dm, given: &args::List, out: &mut dyn Write) -> Result<(), Failure> {
    if !given.which.devices.is_empty() {
        return Err(usage("Incorrect number of arguments."));
    }
    if given.tree && given.target.is_none() && given.exec.is_none() {
        return tree::ls(dm, given, out);
    }
    let named = named(given.options.as_ref())?;
    let devices = visible(dm, given.all)?;
    if devices.is_empty() {
        return none_found(out);
    }
    for device in &devices {
        if let Some(target) = &given.target
            && !has_target(dm, device, target)?
        {
            continue;
        }
        let name = dm.unmangle_name(&device.name)?;
        if let Some(command) = &given.exec {
            out.flush()?;
            dm.ensure_node(&device.name, device.number, USUAL_OWNER);
            run(command, &device.name)?;
            continue;
        }
        let number = device.number;
        let called = match (named, block_name(number)) {
            (Named::Block, Some(block)) => block.into_bytes(),
            (Named::Mapped, Some(_)) => name.clone(),
            _ if given.target.is_some() => format!("{}, {}", number.major, number.minor).into_bytes(),
            _ => number.to_string().into_bytes(),
        };
        out.write_all(&[&name[..], b"\t(", &called, b")\n"].concat())?;
    }
    Ok(())
}

/// Runs a command with a device's node as its last word.
fn run(command: &OsStr, name: &[u8]) -> Result<(), Failure> {
    let mut words =
        command.as_bytes().split(|b| *b == b' ').filter(|word| !word.is_empty()).map(OsStr::from_bytes);
    let Some(program) = words.next() else { return Err(Failure::Said) };
    let mut process = Process::new(program);
    process.args(words).arg(super::nodes::path(name));
    // What becomes of it is its own business.
    if let Err(e) = process.status() {
        log::info!("{}: {e}", program.to_string_lossy());
    }
    Ok(())
}

pub(crate) fn deps(dm: &mut Dm, given: &args::Deps, out: &mut dyn Write) -> Result<(), Failure> {
    let named = named(given.options.as_ref())?;
    let (devices, all) = shown(dm, &given.which, given.all)?;
    if all && devices.is_empty() {
        return none_found(out);
    }
    let several = all || devices.len() > 1;
    let mapped = if named == Named::Mapped { names(dm)? } else { Default::default() };
    for address in &devices {
        if !super::show::selects(dm, &given.which, address)? {
            continue;
        }
        let flags = if given.inactive { flags::QUERY_INACTIVE_TABLE } else { 0 };
        let request = Request { address: address.clone(), flags, ..Request::default() };
        let reply = dm.exchange(Command::TableDeps, &request)?;
        if dm.verbose > 0
            && let Some(info) = dm.info(address)?
        {
            info_lines(dm, &info, out)?;
        }
        if several && dm.verbose == 0 {
            out.write_all(&[&dm.unmangle_name(&reply.name)?[..], b": "].concat())?;
        }
        let uses = ft::uses(&reply).unwrap_or_else(|| reply.uses());
        write!(out, "{} dependencies\t:", uses.len())?;
        for number in uses {
            let name = |number: DevNum| block_name(number).unwrap_or_else(|| number.to_string()).into_bytes();
            let text = match named {
                Named::Number => format!("{}, {}", number.major, number.minor).into_bytes(),
                Named::Block => name(number),
                Named::Mapped => mapped.get(&number).cloned().unwrap_or_else(|| name(number)),
            };
            out.write_all(&[b" (", &text[..], b")"].concat())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

pub(crate) fn targets(dm: &mut Dm, out: &mut dyn Write) -> Result<(), Failure> {
    for Listed { name, version: [major, minor, patch], .. } in
        dm.exchange(Command::ListVersions, &Request::default())?.versions()
    {
        writeln!(out, "{:<16} v{major}.{minor}.{patch}", String::from_utf8_lossy(&name))?;
    }
    Ok(())
}

pub(crate) fn target_version(dm: &mut Dm, given: &Words, out: &mut dyn Write) -> Result<(), Failure> {
    if given.words.is_empty() {
        return Err(usage("Incorrect number of arguments."));
    }
    for word in &given.words {
        let address = Address { name: word.as_bytes().to_vec(), ..Address::default() };
        let reply = dm.exchange(Command::TargetVersion, &Request { address, ..Request::default() })?;
        for Listed { name, version: [major, minor, patch], .. } in reply.versions() {
            writeln!(out, "{:<16} v{major}.{minor}.{patch}", String::from_utf8_lossy(&name))?;
        }
    }
    Ok(())
}

pub(crate) fn version(dm: &mut Dm, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "Library version:   ftdm {}", env!("CARGO_PKG_VERSION"))?;
    let [major, minor, patch] = dm.exchange(Command::Version, &Request::default())?.version;
    writeln!(out, "Driver version:    {major}.{minor}.{patch}")?;
    Ok(())
}
