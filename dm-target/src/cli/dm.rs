//! Device-mapper for the verbs: commands with the words that libdevmapper has for their failures, with nodes, cookies
//! and read-ahead.
//!
//! Always holds: a failure is on standard error when it is returned as [`Failed`]; each command that makes an event
//! for udev ends that event, on every path.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use ftdm::block_io::write_attribute;
use ftdm::ioctl::exchange::{Address, MAX_NAME, MAX_UUID, Reply, Request, Target, packed};
use ftdm::ioctl::{Command, DmControl, flags};
use ftdm::units::DevNum;
use nix::errno::Errno;

use super::cookie::Udev;
use super::nodes::{self, Owner};
use ftdm::mangle::{Mangling, Odd, mangled, odd, unmangled};

/// It failed, and standard error says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

pub(crate) type Done<T = ()> = Result<T, Failed>;

/// A line on standard error.
pub(crate) fn say(text: impl AsRef<[u8]>) {
    let mut line = text.as_ref().to_vec();
    line.push(b'\n');
    // With standard error gone there is only the exit code left.
    let _ = std::io::stderr().write_all(&line);
}

/// Says why, and that it failed.
pub(crate) fn fail<T>(text: impl AsRef<[u8]>) -> Done<T> {
    say(text);
    Err(Failed)
}

/// What a read-ahead is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReadAhead {
    #[default]
    Auto,
    /// At least so many sectors.
    AtLeast(u32),
    /// So many sectors.
    Exactly(u32),
}

/// When the node of a device is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AddNode {
    #[default]
    OnResume,
    OnCreate,
}

/// A device to be made. Name and UUID are as the kernel is to have them.
#[derive(Clone, Debug, Default)]
pub(crate) struct New {
    pub(crate) name: Vec<u8>,
    pub(crate) uuid: Vec<u8>,
    pub(crate) major: u32,
    pub(crate) minor: Option<u32>,
    pub(crate) readonly: bool,
    /// None: no table is loaded.
    pub(crate) table: Option<Vec<Target>>,
}

/// How the node of a device is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeForm {
    pub(crate) owner: Owner,
    pub(crate) add: AddNode,
    pub(crate) read_ahead: ReadAhead,
}

/// The connection, and how the command line wants it used.
pub(crate) struct Dm {
    pub(crate) control: DmControl,
    pub(crate) mangling: Mangling,
    pub(crate) udev: Udev,
    pub(crate) verbose: u8,
}

/// How libdevmapper calls a command.
fn called(command: Command, request: &Request<'_>) -> &'static str {
    match command {
        Command::Version => "version",
        Command::RemoveAll => "remove_all",
        Command::ListDevices => "names",
        Command::Create => "create",
        Command::Remove => "remove",
        Command::Rename => "rename",
        Command::Suspend if request.flags & flags::SUSPEND != 0 => "suspend",
        Command::Suspend => "resume",
        Command::Status => "info",
        Command::Wait => "waitevent",
        Command::TableLoad => "reload",
        Command::TableClear => "clear",
        Command::TableDeps => "deps",
        Command::TableStatus if request.flags & flags::STATUS_TABLE != 0 => "table",
        Command::TableStatus => "status",
        Command::ListVersions => "versions",
        Command::Message => "message",
        Command::SetGeometry => "setgeometry",
        Command::TargetVersion => "target-version",
    }
}

impl Dm {
    /// A name or UUID for the kernel. `what`: `name` or `UUID`.
    fn mangle(&self, text: &[u8], what: &str) -> Result<Vec<u8>, Vec<u8>> {
        let max = if what == "name" { MAX_NAME } else { MAX_UUID };
        let Ok(mangled) = mangled(text, self.mangling) else {
            let why = " contains mixed mangled and unmangled characters or it's already mangled improperly.";
            return Err([b"The ", what.as_bytes(), b" \"", text, b"\"", why.as_bytes()].concat());
        };
        if mangled.len() > max {
            return Err(
                [b"Mangled form of the ", what.as_bytes(), b" too long for \"", text, b"\"."].concat()
            );
        }
        Ok(mangled.into_owned())
    }

    /// The name of a device for the kernel.
    pub(crate) fn mangle_name(&self, name: &[u8]) -> Done<Vec<u8>> {
        if name.len() > MAX_NAME {
            return fail([b"Name \"", name, b"\" too long."].concat());
        }
        self.mangle(name, "name").or_else(|why| {
            say(why);
            fail([b"Failed to mangle device name \"", name, b"\"."].concat())
        })
    }

    /// A UUID for the kernel.
    pub(crate) fn mangle_uuid(&self, uuid: &[u8]) -> Done<Vec<u8>> {
        self.mangle(uuid, "UUID").or_else(|why| {
            say(why);
            fail([b"Failed to mangle device uuid \"", uuid, b"\"."].concat())
        })
    }

    /// The name of a new device.
    pub(crate) fn new_name(&self, name: &[u8]) -> Done<Vec<u8>> {
        if name.contains(&b'/') {
            return fail([b"Name \"", name, b"\" invalid. It contains \"/\"."].concat());
        }
        if name == nodes::CONTROL {
            return fail(b"Name \"control\" invalid. Device-mapper's own node has it.");
        }
        self.mangle_name(name)
    }

    /// A name that the kernel has, for people. One that this mode would not have made is refused.
    pub(crate) fn unmangle_name(&self, name: &[u8]) -> Done<Vec<u8>> {
        self.shown(name, "name")
    }

    pub(crate) fn unmangle_uuid(&self, uuid: &[u8]) -> Done<Vec<u8>> {
        self.shown(uuid, "UUID")
    }

    fn shown(&self, text: &[u8], what: &str) -> Done<Vec<u8>> {
        let why = match odd(text, self.mangling) {
            None => return Ok(unmangled(text, self.mangling).into_owned()),
            Some(Odd::Unmangled) => "should be mangled but it contains blacklisted characters.",
            Some(Odd::Twice) => "seems to be mangled more than once. This is not allowed in auto mode.",
        };
        fail([b"The ", what.as_bytes(), b" \"", text, b"\" ", why.as_bytes()].concat())
    }

    /// What the kernel has to say of a command. Its refusal is for the caller to explain.
    pub(crate) fn try_exchange(&mut self, command: Command, request: &Request<'_>) -> Result<Reply, Errno> {
        log::debug!("{} {:?}", called(command, request), String::from_utf8_lossy(&request.address.name));
        self.control.exchange(command, request)
    }

    /// The same, but a refusal is explained.
    pub(crate) fn exchange(&mut self, command: Command, request: &Request<'_>) -> Done<Reply> {
        self.exchange_for(command, request, &request.address)
    }

    /// The same, with the device called as `shown`.
    fn exchange_for(&mut self, command: Command, request: &Request<'_>, shown: &Address) -> Done<Reply> {
        self.try_exchange(command, request).map_err(|errno| {
            say(refusal(called(command, request), shown, errno));
            Failed
        })
    }

    /// A command that udev hears of.
    pub(crate) fn exchange_with_event(&mut self, command: Command, request: Request<'_>) -> Done<Reply> {
        let shown = request.address.clone();
        self.exchange_with_event_for(command, request, &shown)
    }

    fn exchange_with_event_for(
        &mut self,
        command: Command,
        mut request: Request<'_>,
        shown: &Address,
    ) -> Done<Reply> {
        let event = match self.udev.begin(0) {
            Ok(event) => event,
            Err(why) => return fail(why),
        };
        request.event = event.number;
        let done = self.exchange_for(command, &request, shown);
        event.end(done.as_ref().is_ok_and(|reply| reply.flags & flags::UEVENT_GENERATED != 0));
        done
    }

    /// What device-mapper says of a device; `None` when there is none.
    pub(crate) fn info(&mut self, address: &Address) -> Done<Option<Reply>> {
        let request = Request { address: address.clone(), ..Request::default() };
        match self.try_exchange(Command::Status, &request) {
            Ok(reply) => Ok(Some(reply)),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => fail(refusal("info", address, errno)),
        }
    }

    /// All devices, as the kernel lists them.
    pub(crate) fn list(&mut self) -> Done<Vec<ftdm::ioctl::exchange::Listed>> {
        Ok(self.exchange(Command::ListDevices, &Request::default())?.devices())
    }

    /// A table or status.
    pub(crate) fn lines(&mut self, address: &Address, flags: u32) -> Done<(Reply, Vec<Target>)> {
        let request = Request { address: address.clone(), flags, ..Request::default() };
        let reply = self.exchange(Command::TableStatus, &request)?;
        match reply.table() {
            Ok(lines) => Ok((reply, lines)),
            Err(e) => fail(format!("device-mapper: status of unknown form: {e}")),
        }
    }

    /// Loads a table.
    pub(crate) fn load(&mut self, address: &Address, table: &[Target], readonly: bool) -> Done {
        self.load_for(address, address, table, readonly)
    }

    fn load_for(&mut self, address: &Address, shown: &Address, table: &[Target], readonly: bool) -> Done {
        let Some(payload) = packed(table) else {
            let long = table.iter().find(|line| line.kind.len() > 15).map(|line| line.kind.clone());
            return fail([b"Target type name ", &long.unwrap_or_default()[..], b" is too long."].concat());
        };
        let request = Request {
            address: address.clone(),
            flags: if readonly { flags::READONLY } else { 0 },
            targets: u32::try_from(table.len()).unwrap_or(u32::MAX),
            payload: &payload,
            ..Request::default()
        };
        self.exchange_for(Command::TableLoad, &request, shown).map(drop)
    }

    /// Resumes a device, makes its node and sets its read-ahead.
    pub(crate) fn resume(
        &mut self,
        address: &Address,
        how: u32,
        node: Option<Owner>,
        read_ahead: ReadAhead,
    ) -> Done<Reply> {
        let request = Request { address: address.clone(), flags: how, ..Request::default() };
        let reply = self.exchange_with_event(Command::Suspend, request)?;
        // As dmsetup: of a device that is not called by its name the node is left alone.
        if let Some(owner) = node
            && !address.name.is_empty()
        {
            self.add_node(&address.name, reply.number, owner);
        }
        set_read_ahead(reply.number, read_ahead);
        Ok(reply)
    }

    /// Makes a node, unless udev does.
    pub(crate) fn add_node(&self, name: &[u8], number: DevNum, owner: Owner) {
        if !self.udev.makes_nodes() {
            self.ensure_node(name, number, owner);
        }
    }

    /// Makes a node where there is none, udev or not.
    pub(crate) fn ensure_node(&self, name: &[u8], number: DevNum, owner: Owner) {
        if let Err(why) = nodes::add(name, number, owner) {
            say(why);
        }
    }

    /// Makes a device: with a table a live one, or none.
    pub(crate) fn create(&mut self, new: &New, form: NodeForm) -> Done {
        let number = new.minor.map(|minor| DevNum { major: new.major, minor });
        let address = Address { name: new.name.clone(), uuid: new.uuid.clone(), number };
        let persistent = if number.is_some() { flags::PERSISTENT_DEV } else { 0 };
        let request = Request { address, flags: persistent, ..Request::default() };
        let made = self.exchange(Command::Create, &request)?;
        if form.add == AddNode::OnCreate {
            self.ensure_node(&new.name, made.number, form.owner);
        }
        let Some(table) = new.table.as_ref().filter(|table| !table.is_empty()) else { return Ok(()) };
        let here = Address { number: Some(made.number), ..Address::default() };
        let shown = Address { name: new.name.clone(), ..here.clone() };
        let resume = Request { address: here.clone(), ..Request::default() };
        let live = self
            .load_for(&here, &shown, table, new.readonly)
            .and_then(|()| self.exchange_with_event_for(Command::Suspend, resume.clone(), &shown));
        if live.is_err() {
            if self.exchange_with_event_for(Command::Remove, resume, &shown).is_err() {
                say("Failed to revert device creation.");
            }
            self.remove_node(&new.name);
            return Err(Failed);
        }
        if form.add == AddNode::OnResume {
            self.add_node(&new.name, made.number, form.owner);
        }
        set_read_ahead(made.number, form.read_ahead);
        Ok(())
    }

    /// Removes a device and its node.
    pub(crate) fn remove(&mut self, address: &Address, flags: u32) -> Done {
        let request = Request { address: address.clone(), flags, ..Request::default() };
        let reply = self.exchange_with_event(Command::Remove, request)?;
        self.remove_node(&reply.name);
        Ok(())
    }

    pub(crate) fn remove_node(&self, name: &[u8]) {
        if !self.udev.makes_nodes()
            && !name.is_empty()
            && let Err(why) = nodes::remove(name)
        {
            say(why);
        }
    }

    /// The address of a device that is named on the command line: by its name, or by a path to its node.
    pub(crate) fn named(&self, word: &OsStr) -> Done<Address> {
        let name = word.as_bytes();
        if name.contains(&b'/') {
            let number = std::fs::metadata(word).ok().map(|found| DevNum::from_rdev(found.rdev()));
            let found =
                number.and_then(|number| std::fs::read(format!("/sys/dev/block/{number}/dm/name")).ok());
            return match found {
                Some(name) => Ok(Address { name: name.trim_ascii_end().to_vec(), ..Address::default() }),
                None => fail([b"Device ", name, b" not found"].concat()),
            };
        }
        Ok(Address { name: self.mangle_name(name)?, ..Address::default() })
    }

    pub(crate) fn by_uuid(&self, uuid: &OsStr) -> Done<Address> {
        Ok(Address { uuid: self.mangle_uuid(uuid.as_bytes())?, ..Address::default() })
    }
}

/// How libdevmapper words a refusal of the kernel.
pub(crate) fn refusal(called: &str, address: &Address, errno: Errno) -> Vec<u8> {
    let number = address.number.map(|n| format!("({}:{})", n.major, n.minor)).unwrap_or_default();
    let line = [
        b"device-mapper: ",
        called.as_bytes(),
        b" ioctl on ",
        &address.name,
        b" ",
        number.as_bytes(),
        &address.uuid,
        b" failed: ",
        errno.desc().as_bytes(),
    ];
    line.concat()
}

fn sysfs(number: DevNum) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{number}"))
}

/// The read-ahead of a device in sectors.
pub(crate) fn read_ahead(number: DevNum) -> Option<u64> {
    let text = std::fs::read_to_string(sysfs(number).join("bdi/read_ahead_kb")).ok()?;
    text.trim().parse::<u64>().ok().map(|kib| kib * 2)
}

fn set_read_ahead(number: DevNum, wanted: ReadAhead) {
    let sectors = match wanted {
        ReadAhead::Auto => return,
        ReadAhead::AtLeast(least) if read_ahead(number).is_some_and(|now| now >= least.into()) => return,
        ReadAhead::AtLeast(sectors) | ReadAhead::Exactly(sectors) => sectors,
    };
    let text = format!("{}", sectors.div_ceil(2));
    let attribute = File::options().write(true).open(sysfs(number).join("bdi/read_ahead_kb"));
    if let Err(e) = attribute.and_then(|attribute| write_attribute(&attribute, &text)) {
        log::warn!("read-ahead of {number}: {e}");
    }
}
