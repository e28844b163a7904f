//! `create`, `load` and `reload`: tables from a word, a file or standard input; one device or several.
//!
//! Always holds: what cannot be created whole is not created: a device whose table the kernel refuses is removed again.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use ftdm::ioctl::exchange::{Address, Target};

use super::args;
use super::concise;
use super::dm::{AddNode, Dm, Done, New, NodeForm, ReadAhead, fail, say};
use super::ft;
use super::nodes::Owner;
use super::tables;
use super::{Failure, Which, misused, usage};

/// Owner and mode of nodes that nobody says more of: Debian's.
pub(crate) const USUAL_OWNER: Owner = Owner { uid: 0, gid: 6, mode: 0o660 };

pub(crate) fn create(dm: &mut Dm, given: &args::Create) -> Result<(), Failure> {
    let form = node_form(given)?;
    if given.notable && given.table.is_some() && !given.concise {
        return Err(misused("--table and --notable are incompatible."));
    }
    if given.concise {
        return create_concise(dm, given, form);
    }
    if given.major.is_some() != given.minor.is_some() {
        return Err(misused("Please specify both major number and minor number."));
    }
    let (name, file) = match &given.words[..] {
        [] => return Ok(fail("Please provide a name for the new device.")?),
        [name] => (name, None),
        [name, file] => (name, Some(file.as_os_str())),
        _ => return Err(usage("Incorrect number of arguments.")),
    };
    let table = if given.notable { None } else { Some(read_table(given.table.as_deref(), file)?) };
    let new = New {
        name: dm.new_name(name.as_bytes())?,
        uuid: given.uuid.as_ref().map_or(Ok(Vec::new()), |uuid| dm.mangle_uuid(uuid.as_bytes()))?,
        major: given.major.as_deref().map_or(0, atoi),
        minor: given.minor.as_deref().map(atoi).filter(|minor| *minor <= MOST_MINORS),
        readonly: given.readonly,
        table,
    };
    make(dm, &new, given, form)
}

fn create_concise(dm: &mut Dm, given: &args::Create, form: NodeForm) -> Result<(), Failure> {
    if given.notable || given.table.is_some() || given.minor.is_some() || given.uuid.is_some() {
        return Ok(fail("--concise is incompatible with --[no]table, --minor, --uuid and --inactive.")?);
    }
    let text = match &given.words[..] {
        [] => read_stdin()?,
        [spec] => spec.as_bytes().to_vec(),
        _ => return Ok(fail("dmsetup create --concise takes at most one argument")?),
    };
    let devices = match concise::parse(text.strip_suffix(b"\n").unwrap_or(&text)) {
        Ok(devices) => devices,
        Err(incomplete) => {
            say(incomplete.why);
            return Ok(fail(incomplete.found)?);
        }
    };
    for device in devices {
        let readonly = match &device.flags[..] {
            b"ro" => true,
            b"rw" | b"" => given.readonly,
            other => {
                let wrong = [b"Invalid flags parameter '", other, b"' must be 'ro' or 'rw' or empty."];
                return Ok(fail(wrong.concat())?);
            }
        };
        let minor = OsStr::from_bytes(&device.minor);
        let minor =
            if device.minor.is_empty() { None } else { Some(atoi(minor)).filter(|n| *n <= MOST_MINORS) };
        let new = New {
            name: dm.new_name(&device.name)?,
            uuid: dm.mangle_uuid(&device.uuid)?,
            major: if minor.is_some() { devices_major() } else { 0 },
            minor: minor.map(|minor| minor & MINOR_BITS),
            readonly,
            table: Some(table_of(&device.lines.join(&b'\n'), "")?),
        };
        make(dm, &new, given, form)?;
    }
    Ok(())
}

/// The bits of a minor number; what is above counts as none.
const MINOR_BITS: u32 = 0xf_ffff;
const MOST_MINORS: u32 = 0x7fff_ffff;

/// Device-mapper's major number.
fn devices_major() -> u32 {
    let text = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    let of_mapper =
        |line: &str| line.trim().strip_suffix(" device-mapper").and_then(|major| major.parse().ok());
    text.lines().find_map(of_mapper).unwrap_or(0)
}

fn make(dm: &mut Dm, new: &New, given: &args::Create, form: NodeForm) -> Result<(), Failure> {
    if ft::is_ft(new.table.as_deref().unwrap_or_default()) {
        return ft::create(new, given);
    }
    if new.minor.is_some() && new.major != 0 && new.major != devices_major() {
        return Ok(fail(format!(
            "Major number {} is not device-mapper's, which is {}.",
            new.major,
            devices_major()
        ))?);
    }
    dm.create(new, form)?;
    if dm.verbose > 0 {
        let address = Address { name: new.name.clone(), ..Address::default() };
        if let Some(info) = dm.info(&address)? {
            super::show::info_lines(dm, &info, &mut std::io::stdout())?;
        }
    }
    Ok(())
}

pub(crate) fn load(dm: &mut Dm, given: &args::Load) -> Result<(), Failure> {
    if given.which.devices.len() > 2 {
        return Err(usage("Incorrect number of arguments."));
    }
    let Which { addresses, rest } = super::which(dm, &given.which, 1)?;
    let [address] = &addresses[..] else { return Ok(fail("Please specify device.")?) };
    let table = read_table(given.table.as_deref(), rest.first().map(OsString::as_os_str))?;
    if ft::is_ft(&table) {
        return ft::load(dm, address, &table, given);
    }
    ft::refuse(dm, address, "load a table into")?;
    Ok(dm.load(address, &table, given.readonly)?)
}

fn node_form(given: &args::Create) -> Result<NodeForm, Failure> {
    let mut owner = USUAL_OWNER;
    if let Some(user) = &given.uid {
        owner.uid = atoi(user);
    }
    if let Some(group) = &given.gid {
        owner.gid = atoi(group);
    }
    if let Some(mode) = &given.mode {
        let text = mode.to_string_lossy();
        owner.mode = match u32::from_str_radix(&text, 8) {
            Ok(bits) if bits != 0 => bits,
            _ => return Err(Failure::Misused(format!("Invalid argument for --mode: {text}. "))),
        };
    }
    Ok(NodeForm { owner, add: add_node(&given.node), read_ahead: read_ahead(&given.node)? })
}

pub(crate) fn add_node(given: &args::Node) -> AddNode {
    if given.addnodeoncreate { AddNode::OnCreate } else { AddNode::OnResume }
}

pub(crate) fn read_ahead(given: &args::Node) -> Result<ReadAhead, Failure> {
    let Some(text) = &given.readahead else { return Ok(ReadAhead::Auto) };
    if text.eq_ignore_ascii_case("auto") {
        return Ok(ReadAhead::Auto);
    }
    if text.eq_ignore_ascii_case("none") {
        return Ok(ReadAhead::Exactly(0));
    }
    let (least, digits) = text.strip_prefix('+').map_or((false, text.as_str()), |digits| (true, digits));
    let value = tables::number(digits.as_bytes()).map_or(0, |(value, _)| value.cast_signed());
    match u32::try_from(value) {
        Ok(sectors) if least => Ok(ReadAhead::AtLeast(sectors)),
        Ok(sectors) => Ok(ReadAhead::Exactly(sectors)),
        Err(_) => Err(Failure::Misused(format!("Negative read ahead value ({digits}) is not understood."))),
    }
}

/// A number as C's `atoi` reads it.
pub(crate) fn atoi(word: &OsStr) -> u32 {
    tables::number(word.as_bytes()).map_or(0, |(value, _)| u32::try_from(value & 0xffff_ffff).unwrap_or(0))
}

fn read_table(given: Option<&OsStr>, file: Option<&OsStr>) -> Result<Vec<Target>, Failure> {
    let (text, source) = match (given, file) {
        (Some(text), _) => (text.as_bytes().to_vec(), String::new()),
        (None, Some(path)) => {
            let shown = path.to_string_lossy().into_owned();
            match std::fs::File::open(path) {
                // What is no file has nothing in it.
                Ok(mut file) => {
                    let mut text = Vec::new();
                    let _ = file.read_to_end(&mut text);
                    (text, format!("in file '{shown}'"))
                }
                Err(_) => return Ok(fail(format!("Couldn't open '{shown}' for reading."))?),
            }
        }
        (None, None) => (read_stdin()?, "on stdin".to_owned()),
    };
    table_of(&text, &source)
}

fn table_of(text: &[u8], source: &str) -> Result<Vec<Target>, Failure> {
    match tables::parse(text, 1) {
        Ok(table) => Ok(table),
        Err(bad) => Ok(fail(format!("Invalid format on line {} of table {source}.", bad.number))?),
    }
}

fn read_stdin() -> Done<Vec<u8>> {
    let mut text = Vec::new();
    match std::io::stdin().read_to_end(&mut text) {
        Ok(_) => Ok(text),
        Err(e) => fail(format!("Failed to read stdin: {}", super::nodes::reason(&e))),
    }
}
