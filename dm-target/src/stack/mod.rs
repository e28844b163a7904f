//! The stack of one volume: a visible linear device over dm-era over the origin, and while
//! capturing a log-writes device between; where discards are passed a gate stands on dm-era
//! ([`crate::discard`]).
//!
//! Always holds: the visible device points at a layer only after that layer's discards are off; no function here
//! asks a suspended dm-era device for its status (the kernel would block).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::block_io::{Access, BlockDevice, LayerSettings, OpenError, SettingError};
use crate::discard::Discards;
use crate::discard::valve::Valve;
use crate::era::status::{EraStatus, EraStatusError};
use crate::ioctl::DmControl;
use crate::log_writes::status::LogStatus;
use crate::name::{Part, StackName, VolumeId};
use crate::pause::pulse::Pulse;
use crate::pause::{Layers, SHUT, Top};
use crate::table::{BlockSectors, FtTable};
use crate::units::{DevNum, Era, Sectors};

mod bypass;
mod checks;
mod create;
pub(crate) mod devices;
pub mod era_device;
pub mod guard;
mod held;
mod recover;
mod rescue;
mod shut;
mod size;
pub mod still_round;
pub mod written;
mod written_error;

pub use bypass::Bypassed;
pub use checks::tracked_before;
pub use create::{create, create_as, finish, has_leftovers, load, remove, served};
use devices::{Described, Devices, TargetLine};
pub use held::Held;
pub(crate) use recover::{remove_log, remove_rams};
pub use rescue::{Rescue, Rescued};
pub use size::ResizeError;

/// The targets of a stack and the modules they are in.
const TARGETS: [(&str, &str); 2] = [("linear", "dm-mod"), ("era", "dm-era")];

/// What can go wrong with a stack. Each says what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// No stack of that name.
    #[error("there is no ftdm device {0}")]
    NotFound(String),
    /// A device of that name is there and is not part of this stack.
    #[error("the name {name} is taken by {what}: choose another")]
    NameTaken {
        /// The device-mapper name.
        name: String,
        /// What has it.
        what: String,
    },
    /// A stack of that name exists with another table.
    #[error("it exists with another table: `{existing}`; remove it first to change it")]
    Different {
        /// Its table.
        existing: String,
    },
    /// A stack of that name passes discards, or does not.
    #[error("it exists with discards {existing}; remove it first to change that")]
    OtherDiscards {
        /// What it does.
        existing: Discards,
    },
    /// Somebody uses it.
    #[error("{name} is in use: {by}")]
    Busy {
        /// The device.
        name: String,
        /// Who or how.
        by: String,
    },
    /// A device that the table names must not be used.
    #[error("{role} {}: {why}", path.display())]
    Refused {
        /// `origin` or `metadata`.
        role: &'static str,
        /// Its path.
        path: PathBuf,
        /// What was found and what to do.
        why: String,
    },
    /// A device that the table names could not be opened.
    #[error("{role} {source}")]
    Device {
        /// `origin` or `metadata`.
        role: &'static str,
        /// Why.
        source: OpenError,
    },
    /// The kernel lacks a module.
    #[error(
        "the kernel has no {module} (tried modprobe): it is in Debian's package linux-image-{release} \
         (not in its -cloud variants)"
    )]
    Missing {
        /// Module name.
        module: &'static str,
        /// The running kernel.
        release: String,
    },
    /// udev's socket is there, nobody answers.
    #[error("{0} exists but no udev answers there: start systemd-udevd, or remove that socket")]
    DeadUdev(&'static str),
    /// dm-era came up with an era that is not above the one it had: its history is not to be trusted.
    #[error(
        "tracking lost: the metadata was at era {before} and is at era {now}; \
         what changed before is unknown, a full verify is needed"
    )]
    TrackingLost {
        /// In the superblock before the load, or as recorded.
        before: Era,
        /// Now; 0 when the metadata is blank.
        now: Era,
    },
    /// The metadata says that the volume went on without it, or it does so now.
    #[error(
        "tracking lost: dm-era's metadata failed, and the volume went on without it; what changed since is \
         unknown, a full copy or comparison is needed{}", cure(metadata.as_deref())
    )]
    Bypassed {
        /// The metadata device, unless it is out of the stack already.
        metadata: Option<PathBuf>,
    },
    /// Nobody would bring the volume back if this process were killed in the pause.
    #[error("nobody guards the pause: try again")]
    Unguarded,
    /// A step of device-mapper failed.
    #[error("cannot {step}: {reason}")]
    Step {
        /// What was being done.
        step: String,
        /// Why it failed.
        reason: String,
    },
    /// A device disappeared between two steps.
    #[error("{0} disappeared while it was being set up: another process changes it too")]
    Vanished(String),
    /// A node under `/dev/mapper` could not be made or removed.
    #[error("{path}: {1}", path = .0.display())]
    Node(PathBuf, #[source] io::Error),
    /// The stack is not of the form that ftdm makes.
    #[error("{name} is not as ftdm makes it: {what}; ftdm remove and create it again")]
    Form {
        /// The device.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The kernel does not shut discards off and let them through.
    #[error(
        "--discards pass (`discards = \"pass\"`) does not work on kernel {release}: {source}; use --discards off"
    )]
    DiscardsRefused {
        /// `uname -r`.
        release: String,
        /// What it answered.
        source: io::Error,
    },
    /// A queue setting was not accepted.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// dm-era reports nonsense or an error.
    #[error(transparent)]
    Era(#[from] EraStatusError),
    /// A device of the stack could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

fn cure(metadata: Option<&Path>) -> String {
    metadata.map_or_else(
        || ". Run `ftdm remove`, then `ftdm create`".to_owned(),
        |path| format!(". For a new history zero the first 4096 bytes of {}", path.display()),
    )
}

pub(crate) fn io_step(step: impl Into<String>) -> impl FnOnce(io::Error) -> StackError {
    let step = step.into();
    move |e| StackError::Step { step, reason: e.to_string() }
}

/// What [`create`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The stack is new.
    Made,
    /// It was there, with the same table.
    AlreadyThere,
}

/// Where the visible device's I/O goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To dm-era: what changes is tracked.
    Tracking,
    /// To log-writes, and on to dm-era: what changes is logged and tracked.
    Capturing,
    /// To the origin in dm-era's place: nothing is tracked.
    Passthrough,
    /// Nowhere: all of it fails, because this side has given the volume up ([`Stack::shut`]).
    Shut,
    /// Somewhere that ftdm did not point it, or nowhere.
    Unknown,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tracking => "tracking",
            Self::Capturing => "capturing",
            Self::Passthrough => "passthrough",
            Self::Shut => "shut",
            Self::Unknown => "unknown",
        })
    }
}

/// What a stack is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackStatus {
    /// Size of the visible device.
    pub sectors: Sectors,
    /// Where its I/O goes.
    pub mode: Mode,
    /// Its I/O is held back.
    pub suspended: bool,
    /// dm-era's own words; `None` while that device is suspended and cannot be asked, or is bypassed.
    pub era: Option<EraStatus>,
    /// log-writes' own, while there is one that can be asked.
    pub log: Option<LogStatus>,
}

/// What device-mapper says of the visible device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackInfo {
    /// Its number.
    pub number: DevNum,
    /// Its UUID.
    pub uuid: String,
    /// How many hold it open.
    pub open_count: u32,
    /// Its event counter.
    pub event: u32,
    /// Its I/O is held back.
    pub suspended: bool,
    /// It has a live table.
    pub live: bool,
    /// A table is loaded that the next resume makes live.
    pub inactive: bool,
}

/// A stack that exists.
#[derive(Clone, Debug)]
pub struct Stack {
    pub(crate) name: StackName,
    pub(crate) id: VolumeId,
    pub(crate) top: DevNum,
    pub(crate) era: DevNum,
    gate: Option<DevNum>,
    outlet: Option<DevNum>,
    /// Captures pass discards on.
    passes: bool,
    /// Of the visible device.
    pub(crate) size: Sectors,
    /// Of the part of the origin that dm-era tracks: at least as much.
    tracked: Sectors,
    origin: DevNum,
    history: Option<History>,
}

/// Where dm-era keeps what changed, and in which granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// The device that keeps dm-era's state.
    pub metadata: DevNum,
    /// dm-era's granule.
    pub block: BlockSectors,
}

impl Stack {
    /// Finds the stack `name`.
    ///
    /// # Errors
    /// [`StackError::NotFound`], or what is wrong with it.
    pub fn open(name: &StackName) -> Result<Self, StackError> {
        Self::find(&Devices::open()?, name)
    }

    fn find(devices: &Devices, name: &StackName) -> Result<Self, StackError> {
        let top = devices.find(name.top())?.ok_or_else(|| StackError::NotFound(name.to_string()))?;
        let id = VolumeId::from_top_uuid(&top.uuid).ok_or_else(|| StackError::NotFound(name.to_string()))?;
        let form = |what: &str| StackError::Form { name: name.era(), what: what.to_owned() };
        let hidden = |part| devices.find_uuid(&id.of(part));
        let era = hidden(Part::Era)?.ok_or_else(|| form("it is missing"))?;
        let gate = hidden(Part::Gate)?.map(|found| found.number);
        let outlet = hidden(Part::Outlet)?.map(|found| found.number).filter(|_| gate.is_some());
        let line = devices.table(&era.name)?.ok_or_else(|| form("it has no table of one target"))?;
        let words: Vec<&str> = line.parameters.split_whitespace().collect();
        let parsed = match (line.target.as_str(), &words[..]) {
            ("era", [metadata, origin, block]) => {
                let history = metadata.parse().ok().zip(block.parse().ok().and_then(BlockSectors::new));
                origin.parse().ok().zip(history.map(|(metadata, block)| Some(History { metadata, block })))
            }
            ("linear", [origin, "0"]) => origin.parse().ok().map(|origin| (origin, None)),
            _ => None,
        };
        let (origin, history) = parsed.ok_or_else(|| form("its table is not dm-era's"))?;
        let visible = devices.table(name.top())?;
        Ok(Self {
            name: name.clone(),
            id,
            top: top.number,
            era: era.number,
            gate,
            outlet,
            passes: gate.is_some(),
            size: visible.map_or(line.len, |visible| visible.len.min(line.len)),
            tracked: line.len,
            origin,
            history,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &StackName {
        &self.name
    }

    /// What identifies its volume.
    #[must_use]
    pub fn id(&self) -> &VolumeId {
        &self.id
    }

    /// Size of the volume, as the visible device shows it.
    #[must_use]
    pub fn size(&self) -> Sectors {
        self.size
    }

    /// Sectors of the origin that dm-era tracks. It may be more than the visible device shows.
    #[must_use]
    pub fn tracked(&self) -> Sectors {
        self.tracked
    }

    /// Where dm-era keeps what changed.
    ///
    /// # Errors
    /// [`StackError::Bypassed`] when nothing is tracked any more.
    pub fn history(&self) -> Result<History, StackError> {
        self.history.ok_or(StackError::Bypassed { metadata: None })
    }

    /// The visible device.
    #[must_use]
    pub fn top(&self) -> DevNum {
        self.top
    }

    /// The dm-era device.
    #[must_use]
    pub fn era(&self) -> DevNum {
        self.era
    }

    /// The device over dm-era that takes no discards, where discards are passed.
    #[must_use]
    pub fn gate(&self) -> Option<DevNum> {
        self.gate
    }

    /// The device over dm-era that the daemon gives discards to, where discards are passed.
    pub(crate) fn outlet(&self) -> Option<DevNum> {
        self.outlet
    }

    /// Whether it is made so that discards can be passed.
    #[must_use]
    pub fn discards(&self) -> Discards {
        if self.gate.is_some() { Discards::Pass } else { Discards::Off }
    }

    /// From now on this handle's captures refuse discards, however the stack is made.
    pub fn refuse_discards(&mut self) {
        self.passes = false;
    }

    pub(crate) fn passes(&self) -> bool {
        self.passes
    }

    /// What the visible device and the log stand on: the gate, or dm-era itself.
    pub(crate) fn floor(&self) -> DevNum {
        self.gate.unwrap_or(self.era)
    }

    /// What lets discards through to the volume.
    pub(crate) fn valve(&self) -> Result<Valve, StackError> {
        Valve::open(self.era, self.outlet, self.size)
            .map_err(io_step(format!("open the limits of discards of {}", self.name)))
    }

    /// The protected volume.
    #[must_use]
    pub fn origin(&self) -> DevNum {
        self.origin
    }

    /// Its table, with device numbers, as the kernel shows tables.
    ///
    /// # Errors
    /// [`StackError::Bypassed`] when nothing is tracked any more.
    pub fn table(&self) -> Result<FtTable, StackError> {
        let History { metadata, block } = self.history()?;
        let (metadata, origin) = (metadata.to_string().into(), self.origin.to_string().into());
        Ok(FtTable { sectors: self.size, metadata, origin, block })
    }

    /// What device-mapper says of the visible device.
    ///
    /// # Errors
    /// When it is gone.
    pub fn info(&self) -> Result<StackInfo, StackError> {
        let found = Devices::open()?.find(self.name.top())?;
        let top = found.ok_or_else(|| StackError::NotFound(self.name.to_string()))?;
        let Described { number, uuid, open_count, event, suspended, live, inactive, .. } = top;
        Ok(StackInfo { number, uuid, open_count, event, suspended, live, inactive })
    }

    /// What the stack is doing.
    ///
    /// # Errors
    /// The kernel's, or a status of unknown form.
    pub fn status(&self) -> Result<StackStatus, StackError> {
        let devices = Devices::open()?;
        let mut control = DmControl::open().map_err(io_step("open device-mapper"))?;
        let suspended = control.state(self.top).map_err(io_step(format!("ask {}", self.name)))?.suspended;
        let log = devices.find_uuid(&self.id.log())?;
        let mode = self.mode(&devices, log.as_ref())?;
        let era_state = control.state(self.era).map_err(io_step(format!("ask {}", self.name.era())))?;
        let asked = !era_state.suspended && self.history.is_some();
        let era = if asked { Some(era_status(&mut control, self)?) } else { None };
        let log = match log {
            Some(log) if log.live && !log.suspended => {
                let line = control.status_line(log.number);
                line.map_err(io_step(format!("ask {}", self.name.log())))?.parse().ok()
            }
            _ => None,
        };
        Ok(StackStatus { sectors: self.size, mode, suspended, era, log })
    }

    fn mode(&self, devices: &Devices, log: Option<&Described>) -> Result<Mode, StackError> {
        let Some(TargetLine { target, parameters, .. }) = devices.table(self.name.top())? else {
            return Ok(Mode::Unknown);
        };
        if target == SHUT {
            return Ok(Mode::Shut);
        }
        let below = match parameters.split_once(' ') {
            Some((device, "0")) if target == "linear" => device.parse::<DevNum>().ok(),
            _ => None,
        };
        Ok(match below {
            Some(n) if n == self.floor() && self.history.is_none() => Mode::Passthrough,
            Some(n) if n == self.floor() => Mode::Tracking,
            Some(n) if log.is_some_and(|log| log.number == n) => Mode::Capturing,
            _ => Mode::Unknown,
        })
    }

    /// The visible device, for a pause of which `pulse` hears.
    fn visible<P: Pulse>(&self, pulse: P) -> Result<Top<P>, StackError> {
        let control = DmControl::open().map_err(io_step("open device-mapper"))?;
        Ok(Top { layers: Layers::top(self.top, self.size), control, pulse })
    }

    /// Opens the visible device for one user alone, who does not write to it: nobody else has it open, mounted or as a
    /// part of another device.
    ///
    /// # Errors
    /// When somebody has, or it cannot be opened.
    pub fn open_alone(&self) -> Result<BlockDevice, StackError> {
        let access = Access { write: false, direct: true, exclusive: true };
        let device = BlockDevice::open_dm(self.top, access)?;
        match self.info()?.open_count {
            0 | 1 => Ok(device),
            others => {
                Err(StackError::Busy { name: self.name.to_string(), by: format!("{} others", others - 1) })
            }
        }
    }

    /// Opens the volume below the visible device, in its size, for the one who has that device alone: what is written is tracked
    /// like what is written there.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_tracked(&self) -> Result<BlockDevice, StackError> {
        let access = Access { write: true, direct: true, exclusive: false };
        Ok(BlockDevice::open_dm(self.era, access)?.limited_to(self.size))
    }

    /// Whether the visible device refuses the writes of programs from now on. It lasts until this says otherwise, also
    /// when the device gets another table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_read_only(&self, is_read_only: bool) -> Result<(), StackError> {
        let verb = if is_read_only { "forbid" } else { "allow" };
        BlockDevice::open_dm(self.top, Access::default())?
            .set_read_only(is_read_only)
            .map_err(io_step(format!("{verb} writes to {}", self.name)))
    }

    /// Opens the volume below dm-era to discard on it what the guest has discarded elsewhere: its content is
    /// anything then, so that nobody needs to know where it changed. The guest's own discards stay refused.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_for_discards(&self) -> Result<BlockDevice, StackError> {
        let access = Access { write: true, direct: true, exclusive: false };
        Ok(BlockDevice::open(self.origin.to_string().as_ref(), access)?)
    }

    /// Opens the dm-era device to read the volume as it is below any log, in the size of the visible device.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_era(&self) -> Result<BlockDevice, OpenError> {
        let device = BlockDevice::open_dm(self.era, Access { direct: true, ..Access::default() })?;
        Ok(device.limited_to(self.size))
    }
}

fn era_status(control: &mut DmControl, stack: &Stack) -> Result<EraStatus, StackError> {
    let line = control.status_line(stack.era).map_err(io_step(format!("ask {}", stack.name.era())))?;
    Ok(line.parse()?)
}

/// Names and numbers of all stacks.
///
/// # Errors
/// When device-mapper is not there.
pub fn list() -> Result<Vec<(String, DevNum)>, StackError> {
    let devices = Devices::open()?;
    let mut stacks = Vec::new();
    for (name, number) in devices.list()? {
        if devices.find(&name)?.is_some_and(|d| VolumeId::from_top_uuid(&d.uuid).is_some()) {
            stacks.push((name, number));
        }
    }
    stacks.sort();
    Ok(stacks)
}

/// Makes the settings of the visible device, after a table was made live on it.
pub(crate) fn settle_top(top: DevNum) -> Result<(), SettingError> {
    LayerSettings::open(top)?.apply()
}

/// For settings that are made after the volume was brought back to where it only tracks: a refusal is logged, and what
/// is under way goes on. Below stands a layer that takes no discards, so the visible device has inherited that; and what
/// a capture needs is asked for again before the next one.
pub(crate) fn unless_refused(name: &StackName, settled: Result<&(), &SettingError>) {
    if let Err(e) = settled {
        log::warn!("{name} runs, but without all its settings: {e}");
    }
}
