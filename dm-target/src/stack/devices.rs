//! Device-mapper for everything that is not a cut: making, removing and asking for devices, with
//! udev where it runs and without it where it does not.
//!
//! Always holds: nothing here waits for a udev that does not answer; after a device is made its
//! settings are, before anything is pointed at it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use devicemapper::{DM, DevId, DmError, DmFlags, DmName, DmOptions, DmUuid, errors};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::os::fd::AsRawFd;

use super::{StackError, io_step};
use crate::block_io::LayerSettings;
use crate::discard::Discards;
use crate::ioctl::exchange::Address;
use crate::ioctl::{Command, DmControl, flags};
use crate::kernel_gate::kernel_release;
use crate::units::{DevNum, Sectors};

const CONTROL: &str = "/dev/mapper/control";
const UDEV_CONTROL: &str = "/run/udev/control";

/// A device as device-mapper describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) number: DevNum,
    pub(crate) uuid: String,
    pub(crate) open_count: u32,
    pub(crate) event: u32,
    pub(crate) suspended: bool,
    pub(crate) live: bool,
    pub(crate) inactive: bool,
}

/// The only target of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetLine {
    pub(crate) len: Sectors,
    pub(crate) target: String,
    pub(crate) parameters: String,
}

/// What a new device is made of.
pub(crate) struct NewDevice<'a> {
    pub(crate) name: &'a str,
    pub(crate) uuid: &'a str,
    pub(crate) line: TargetLine,
    /// Whether it takes the discards that its target offers.
    pub(crate) discards: Discards,
    /// The minor number that it is to have.
    pub(crate) minor: Option<u32>,
}

/// The connection to device-mapper.
pub(crate) struct Devices {
    dm: DM,
}

impl Devices {
    /// Connects, loading device-mapper when it is not there.
    pub(crate) fn open() -> Result<Self, StackError> {
        if !answers() {
            load_module("dm-mod");
        }
        if !answers() {
            return Err(missing("dm-mod"));
        }
        refuse_dead_udev()?;
        let dm = DM::new().map_err(|e| failed("open device-mapper", e))?;
        Ok(Self { dm })
    }

    /// Makes sure that the kernel has these targets, loading their modules when needed.
    pub(crate) fn require(&self, targets: &[(&str, &'static str)]) -> Result<(), StackError> {
        for (target, module) in targets {
            if !self.has(target)? {
                load_module(module);
            }
            if !self.has(target)? {
                return Err(missing(module));
            }
        }
        Ok(())
    }

    fn has(&self, target: &str) -> Result<bool, StackError> {
        let known = self.dm.list_versions().map_err(|e| failed("list the kernel's targets", e))?;
        Ok(known.iter().any(|(name, ..)| name == target))
    }

    /// Names and numbers of all devices.
    pub(crate) fn list(&self) -> Result<Vec<(String, DevNum)>, StackError> {
        let all = self.dm.list_devices().map_err(|e| failed("list devices", e))?;
        Ok(all
            .iter()
            .map(|(name, d, _)| (name.to_string(), DevNum { major: d.major, minor: d.minor }))
            .collect())
    }

    /// The device of this name. `None` when there is none.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Described>, StackError> {
        self.describe(&id(name)?, name)
    }

    /// The device of this UUID.
    pub(crate) fn find_uuid(&self, uuid: &str) -> Result<Option<Described>, StackError> {
        let id = DmUuid::new(uuid).map_err(|e| failed(format!("use the UUID {uuid}"), e))?;
        self.describe(&DevId::Uuid(id), uuid)
    }

    fn describe(&self, id: &DevId<'_>, called: &str) -> Result<Option<Described>, StackError> {
        let info = match self.dm.device_info(id) {
            Ok(info) => info,
            Err(e) if errno(&e) == Some(Errno::ENXIO) => return Ok(None),
            Err(e) => return Err(failed(format!("look up {called}"), e)),
        };
        let flags = info.flags();
        Ok(Some(Described {
            name: info.name().map(ToString::to_string).unwrap_or_default(),
            number: DevNum { major: info.device().major, minor: info.device().minor },
            uuid: info.uuid().map(ToString::to_string).unwrap_or_default(),
            open_count: u32::try_from(info.open_count()).unwrap_or(0),
            event: info.event_nr(),
            suspended: flags.contains(DmFlags::DM_SUSPEND),
            live: flags.contains(DmFlags::DM_ACTIVE_PRESENT),
            inactive: flags.contains(DmFlags::DM_INACTIVE_PRESENT),
        }))
    }

    /// The live table of `name`. `None` unless it has exactly one target.
    pub(crate) fn table(&self, name: &str) -> Result<Option<TargetLine>, StackError> {
        let options = DmOptions::default().set_flags(DmFlags::DM_STATUS_TABLE);
        let (_, lines) = self
            .dm
            .table_status(&id(name)?, options)
            .map_err(|e| failed(format!("read the table of {name}"), e))?;
        let [(0, len, target, parameters)] = &lines[..] else { return Ok(None) };
        let line = TargetLine {
            len: Sectors(*len),
            target: target.clone(),
            parameters: parameters.trim().to_owned(),
        };
        Ok(Some(line))
    }

    /// Makes a device, live and with the settings of a layer. On an error nothing of it is left.
    pub(crate) fn make(&self, new: &NewDevice<'_>) -> Result<Described, StackError> {
        let name = dm_name(new.name)?;
        let uuid = DmUuid::new(new.uuid).map_err(|e| failed(format!("name {}", new.name), e))?;
        match new.minor {
            None => {
                let created = self.dm.device_create(name, Some(uuid), DmOptions::default());
                created.map(drop).map_err(|e| failed(format!("create {}", new.name), e))?;
            }
            // The crate has no minor numbers.
            Some(minor) => {
                let number = Some(DevNum { major: 0, minor });
                let address = Address { name: new.name.into(), uuid: new.uuid.into(), number };
                let mut control = DmControl::open().map_err(io_step("open device-mapper"))?;
                let created = control.ask(Command::Create, address, flags::PERSISTENT_DEV);
                created.map(drop).map_err(|e| refused(format!("create {} as minor {minor}", new.name), e))?;
            }
        }
        let made = self.activate(new);
        if made.is_err()
            && let Err(e) = self.remove(new.name)
        {
            log::error!("{} was left behind: {e}", new.name);
        }
        made
    }

    /// Loads a table, which the next resume makes live.
    pub(crate) fn load(&self, name: &str, line: &TargetLine, options: DmOptions) -> Result<(), StackError> {
        self.load_lines(name, std::slice::from_ref(line), options)
    }

    /// The same of several targets, one after the other.
    fn load_lines(&self, name: &str, lines: &[TargetLine], options: DmOptions) -> Result<(), StackError> {
        let mut start = 0;
        let table: Vec<_> = lines
            .iter()
            .map(|line| {
                let begins = start;
                start += line.len.0;
                (begins, line.len.0, line.target.clone(), line.parameters.clone())
            })
            .collect();
        let target = lines.first().map_or("", |line| &line.target);
        let loaded = self.dm.table_load(&id(name)?, &table, options);
        loaded.map(drop).map_err(|e| failed(format!("load the table of {name} ({target})"), e))
    }

    /// Makes a device of several targets, one after the other, live. On an error nothing of it is left.
    pub(crate) fn join(&self, name: &str, uuid: &str, lines: &[TargetLine]) -> Result<DevNum, StackError> {
        self.with_table(name, uuid, lines, || {
            let resumed = self.dm.device_suspend(&id(name)?, DmOptions::private());
            resumed.map_err(|e| failed(format!("activate {name}"), e))?;
            let made = self.find(name)?.ok_or_else(|| StackError::Vanished(name.to_owned()))?;
            Ok(made.number)
        })
    }

    /// Has the kernel open the devices that these targets name, and nothing else: what makes a device when its number
    /// is opened makes it now. The name and the UUID are free again afterwards.
    pub(crate) fn touch(&self, name: &str, uuid: &str, lines: &[TargetLine]) -> Result<(), StackError> {
        self.with_table(name, uuid, lines, || Ok(()))?;
        self.remove(name)
    }

    /// Makes a device and loads its table, for `then`. On an error nothing of it is left.
    fn with_table<T>(
        &self,
        name: &str,
        uuid: &str,
        lines: &[TargetLine],
        then: impl FnOnce() -> Result<T, StackError>,
    ) -> Result<T, StackError> {
        let known = DmUuid::new(uuid).map_err(|e| failed(format!("name {name}"), e))?;
        let created = self.dm.device_create(dm_name(name)?, Some(known), DmOptions::default());
        created.map_err(|e| failed(format!("create {name}"), e))?;
        let done = self.load_lines(name, lines, DmOptions::private()).and_then(|()| then());
        if done.is_err()
            && let Err(e) = self.remove(name)
        {
            log::error!("{name} was left behind: {e}");
        }
        done
    }

    /// Drops a table that is loaded and not live.
    pub(crate) fn clear(&self, name: &str) -> Result<(), StackError> {
        let cleared = self.dm.table_clear(&id(name)?);
        cleared.map(drop).map_err(|e| failed(format!("drop the table of {name}"), e))
    }

    /// Gives a device that has none a UUID.
    pub(crate) fn set_uuid(&self, name: &str, uuid: &str) -> Result<(), StackError> {
        let step = || format!("give {name} its UUID");
        let new = DmUuid::new(uuid).map_err(|e| failed(step(), e))?;
        let set = self.dm.device_rename(dm_name(name)?, &DevId::Uuid(new));
        set.map(drop).map_err(|e| failed(step(), e))
    }

    fn activate(&self, new: &NewDevice<'_>) -> Result<Described, StackError> {
        // udev scans none of them, the visible one included: what a guest wrote there is not the host's.
        let options = DmOptions::private();
        self.load(new.name, &new.line, options)?;
        self.dm
            .device_suspend(&id(new.name)?, options)
            .map_err(|e| failed(format!("activate {}", new.name), e))?;
        let made = self.find(new.name)?.ok_or_else(|| StackError::Vanished(new.name.to_owned()))?;
        let settings = match new.discards {
            Discards::Off => LayerSettings::open(made.number)?,
            Discards::Pass => LayerSettings::open_with_discards(made.number)?,
        };
        settings.apply()?;
        Ok(made)
    }

    /// Removes a device and, where udev does not, its node. Nothing to remove is no error.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StackError> {
        match self.dm.device_remove(&id(name)?, DmOptions::default()) {
            Ok(_) => {}
            Err(e) if errno(&e) == Some(Errno::ENXIO) => {}
            Err(e) if errno(&e) == Some(Errno::EBUSY) => {
                return Err(StackError::Busy {
                    name: name.to_owned(),
                    by: "another process holds it open".to_owned(),
                });
            }
            Err(e) => return Err(failed(format!("remove {name}"), e)),
        }
        let node = node(name);
        match fs::symlink_metadata(&node) {
            Ok(found) if found.is_symlink() && !node.exists() => {
                fs::remove_file(&node).or_else(ignore_missing).map_err(|e| StackError::Node(node, e))
            }
            _ => Ok(()),
        }
    }

    /// Sends a message to the only target of `name`.
    pub(crate) fn message(&self, name: &str, text: &str) -> Result<(), StackError> {
        let sent = self.dm.target_msg(&id(name)?, None, text);
        sent.map(drop).map_err(|e| failed(format!("send `{text}` to {name}"), e))
    }
}

/// The node of a device by its name.
pub(crate) fn node(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}

/// Makes the node of a device where udev did not.
pub(crate) fn ensure_node(name: &str, number: DevNum) -> Result<(), StackError> {
    let node = node(name);
    let leads_there = || fs::metadata(&node).is_ok_and(|m| DevNum::from_rdev(m.rdev()) == number);
    if leads_there() {
        return Ok(());
    }
    let made = fs::remove_file(&node)
        .or_else(ignore_missing)
        .and_then(|()| symlink(format!("../dm-{}", number.minor), &node));
    made.map_err(|e| StackError::Node(node.clone(), e))?;
    if leads_there() { Ok(()) } else { Err(StackError::Node(node, io::ErrorKind::NotFound.into())) }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Whether device-mapper is there: its node alone may be, without a driver behind it.
fn answers() -> bool {
    match fs::File::open(CONTROL) {
        Ok(_) => true,
        Err(e) => e.kind() != io::ErrorKind::NotFound && e.raw_os_error() != Some(Errno::ENODEV as i32),
    }
}

/// A udev that left its socket behind would be waited for without end.
fn refuse_dead_udev() -> Result<(), StackError> {
    if !Path::new(UDEV_CONTROL).exists() {
        return Ok(());
    }
    let answers = || -> nix::Result<()> {
        let probe = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(probe.as_raw_fd(), &UnixAddr::new(UDEV_CONTROL)?)
    };
    match answers() {
        Err(Errno::ECONNREFUSED) => Err(StackError::DeadUdev(UDEV_CONTROL)),
        _ => Ok(()),
    }
}

/// Loads a module. Whether that helped shows in what the kernel then has.
pub(crate) fn load_module(module: &str) {
    load_module_with(module, &[]);
}

/// Loads a module with parameters.
pub(crate) fn load_module_with(module: &str, parameters: &[String]) {
    for program in ["modprobe", "/sbin/modprobe"] {
        let mut command = Process::new(program);
        command.arg("--quiet").arg(module).args(parameters);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status() {
            Ok(status) => {
                log::debug!("modprobe {module}: {status}");
                return;
            }
            Err(e) => log::debug!("{program}: {e}"),
        }
    }
}

/// The error for a module that the kernel does not have.
pub(crate) fn missing(module: &'static str) -> StackError {
    StackError::Missing { module, release: kernel_release() }
}

fn dm_name(name: &str) -> Result<&DmName, StackError> {
    DmName::new(name).map_err(|e| failed(format!("use the name {name}"), e))
}

fn id(name: &str) -> Result<DevId<'_>, StackError> {
    dm_name(name).map(DevId::Name)
}

fn errno(error: &DmError) -> Option<Errno> {
    match error {
        DmError::Core(errors::Error::Ioctl(_, _, _, errno)) => Some(**errno),
        _ => None,
    }
}

fn failed(step: impl Into<String>, error: DmError) -> StackError {
    match errno(&error) {
        Some(errno) => refused(step, errno),
        None => StackError::Step { step: step.into(), reason: error.to_string() },
    }
}

fn refused(step: impl Into<String>, errno: Errno) -> StackError {
    let reason = format!("{}; the kernel's log may say more", errno.desc());
    StackError::Step { step: step.into(), reason }
}
