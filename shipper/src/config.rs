//! The configuration of a group: one TOML schema for both hosts.
//!
//! Always holds: what [`Config::load`] returns has passed every check that needs no device; unknown
//! keys are refused, so that a misspelt one is never ignored silently, and all that is wrong is told at once.

mod check;
mod devices;
mod files;
mod live;
mod places;
mod schema;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use ftdm::discard::Discards;
use ftdm::name::StackName;
use ftship_proto::ids::GroupName;
use ftship_proto::primary::OnFailure;
use ftship_proto::protocol::{AckPolicy, CommitPolicy};
use ftship_proto::state::Role;
use serde::{Deserialize, Serialize};

use crate::link::host::HostAddress;

pub use check::Fault;
pub use devices::NamedDevices;
pub use files::{DIRECTORY, installed, path_of};
pub use live::Taken;

/// A group's configuration, `/etc/ftdm/GROUP.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Name of the group; the same on both hosts.
    #[serde(deserialize_with = "from_str")]
    pub group: GroupName,
    /// The first role of this host. Only `ftship format` reads it; afterwards the state decides.
    #[serde(deserialize_with = "role")]
    pub role: Role,
    /// Where this host listens while it is the backup.
    pub address: HostAddress,
    /// Where the other host listens.
    pub peer: HostAddress,
    /// Whether connections of the two hosts are protected.
    #[serde(default)]
    pub tls: Protection,
    /// With `tls = "off"`: also on addresses that others than this host can reach.
    #[serde(default)]
    pub tls_off_on_a_network: bool,
    /// A group of this system's users who may ask the daemon how things stand; without it root alone may.
    #[serde(default)]
    pub control_group: Option<String>,
    /// The administrator says that this host's kernel has what dm-era needs, though its release does not show that.
    #[serde(default)]
    pub allow_kernel: bool,
    /// The durable state: a small volume or a file.
    pub state: PathBuf,
    /// Time between two epochs.
    #[serde(default = "default_epoch", with = "humantime_serde")]
    pub epoch: Duration,
    /// While in sync dm-era is rolled so often, in the pause of a cut: how far back a later sync has to start.
    #[serde(with = "humantime_serde", default = "default_roll_interval")]
    pub roll_interval: Duration,
    /// dm-era is rolled only if a resync after a power cut would compare for longer than this.
    #[serde(with = "humantime_serde", default = "default_resync_target")]
    pub resync_target: Duration,
    /// Whether writes are captured all the time, or only what changed is looked at once in `epoch`.
    #[serde(default)]
    pub mode: Mode,
    /// With `mode = "interval"`: how the last of an interval's changes are taken.
    #[serde(default)]
    pub capture: CaptureBy,
    /// Who commits an epoch; the same on both hosts.
    #[serde(default)]
    pub commit: Commit,
    /// What the backup's STAGED promises; read on the backup only.
    #[serde(default)]
    pub ack: Ack,
    /// The protected volumes, which are cut and committed together: the same in the same order on both hosts.
    pub volume: Vec<Volume>,
    /// The log that captures writes on the primary.
    #[serde(default)]
    pub log: Log,
    /// The journal on the backup.
    pub journal: Journal,
    /// Limits and time-outs.
    #[serde(default)]
    pub limits: Limits,
    /// The process that stands by for a primary that stops.
    #[serde(default)]
    pub watchdog: Watchdog,
    /// What is run around the instant of an interval's epoch.
    #[serde(default)]
    pub hooks: Hooks,
    /// Comparing the backup with the primary.
    #[serde(default)]
    pub verify: Verify,
    /// Recovery points on the backup.
    #[serde(default)]
    pub snapshots: Snapshots,
    /// Records for audits.
    #[serde(default)]
    pub audit: Audit,
    /// Where this was read from.
    #[serde(skip)]
    pub path: PathBuf,
}

/// `tls`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// TLS 1.3 between two hosts that have pinned each other's keys; nothing else.
    #[default]
    Required,
    /// None: whoever reaches the path can read and change what is replicated.
    Off,
}

/// `mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every write is captured; an epoch is what was captured since the one before.
    #[default]
    Continuous,
    /// Writes are tracked; an epoch is the blocks that changed in the interval.
    Interval,
}

/// `capture`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureBy {
    /// By dm-log-writes, while the volumes run.
    #[default]
    Log,
    /// They are read while the volumes stand still; only dm-era is needed.
    Era,
}

/// `commit`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// The backup, once it holds the epoch durably.
    #[default]
    Auto,
    /// A coordinator: `ftship commit GROUP --epoch N`.
    External,
}

impl From<Commit> for CommitPolicy {
    fn from(commit: Commit) -> Self {
        match commit {
            Commit::Auto => Self::Auto,
            Commit::External => Self::External,
        }
    }
}

/// `ack`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// What is staged survives a power cut of the backup.
    #[default]
    Durable,
    /// What is staged was received whole; a power cut of the backup in the next moments loses it.
    Received,
}

impl From<Ack> for AckPolicy {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Durable => Self::Durable,
            Ack::Received => Self::Received,
        }
    }
}

/// One protected volume.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Volume {
    /// Name given to `ftdm create` on the primary.
    #[serde(deserialize_with = "from_str")]
    pub name: StackName,
    /// The logical volume: the origin on the primary, the copy on the backup.
    pub device: PathBuf,
    /// Where dm-era keeps its state: what `ftship setup` makes the stack with.
    #[serde(default)]
    pub metadata: Option<PathBuf>,
    /// The granule in which changes are tracked.
    #[serde(default = "default_block")]
    pub block: ByteSize,
    /// What becomes of the guest's discards.
    #[serde(default, deserialize_with = "from_str")]
    pub discards: Discards,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// RAM disks (`brd`), two for each volume, used in turn. When none are named, the first ones that are free.
    pub devices: Vec<PathBuf>,
    /// Size of each when this daemon loads `brd` itself.
    pub size: ByteSize,
}

impl Default for Log {
    fn default() -> Self {
        Self { devices: Vec::new(), size: ByteSize::mib(64) }
    }
}

/// `[journal]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Journal {
    /// A logical volume, or a regular file, of at least 16 MiB.
    pub device: PathBuf,
    /// Size of the file that `ftship format` makes when there is none.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// Longest time that committed epochs wait in the journal.
    #[serde(default = "default_apply_delay", with = "humantime_serde")]
    pub apply_delay: Duration,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// A cut whose pause would last longer is void.
    #[serde(with = "humantime_serde")]
    pub pause_budget: Duration,
    /// How far the budget is stretched: it doubles at each void cut in a row.
    #[serde(with = "humantime_serde")]
    pub pause_limit: Duration,
    /// With `capture = "era"`: how long the volumes may stand still for what has changed to be read.
    #[serde(with = "humantime_serde")]
    pub era_pause: Duration,
    /// Epochs cut and not acknowledged.
    pub window: usize,
    /// A peer that is silent for this long is gone.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Percent of the log beyond which replication degrades.
    pub log_watermark: u8,
    /// Void cuts in a row after which replication degrades.
    pub void_cuts: u32,
    /// What happens when the log passes its watermark.
    pub overrun: Overrun,
    /// With `throttle`: how long writes wait at most while the backup makes no progress.
    #[serde(with = "humantime_serde")]
    pub throttle_lease: Duration,
    /// How long writes wait at most while the roles are exchanged.
    #[serde(with = "humantime_serde")]
    pub switch_hold: Duration,
    /// What becomes of writes when a primary learns that the other side was promoted.
    pub on_fence: OnFence,
    /// With `freeze`: how long they wait at most for somebody to decide.
    #[serde(with = "humantime_serde")]
    pub fence_lease: Duration,
}

/// `[limits] on-fence`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFence {
    /// They go on: the volume is never hurt by a promote of the other side.
    Continue,
    /// They wait, once for each promote, until somebody decides which side is to go on.
    Freeze,
}

/// `[limits] overrun`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overrun {
    /// Replication ends, the volume goes on at full speed.
    Degrade,
    /// Writes wait for room, for as long as the backup makes progress.
    Throttle,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pause_budget: Duration::from_millis(10),
            pause_limit: Duration::from_millis(100),
            era_pause: Duration::from_millis(500),
            window: 8,
            timeout: Duration::from_secs(5),
            log_watermark: 75,
            void_cuts: 20,
            overrun: Overrun::Degrade,
            throttle_lease: Duration::from_secs(2),
            switch_hold: Duration::from_secs(10),
            on_fence: OnFence::Continue,
            fence_lease: Duration::from_secs(60),
        }
    }
}

/// `[watchdog]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Watchdog {
    /// The primary's daemon starts one where there is none, and that one ends with it. Otherwise one has
    /// to be there: without it nothing is captured.
    pub spawn: bool,
    /// A daemon that captures and is silent for this long has stopped.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// The same while the volume stands still for a cut.
    #[serde(with = "humantime_serde")]
    pub pause_timeout: Duration,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { spawn: true, timeout: Duration::from_secs(3), pause_timeout: Duration::from_millis(500) }
    }
}

/// `[hooks]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Hooks {
    /// A program and its arguments, which makes the guest's file systems clean and holds them still.
    pub freeze: Vec<String>,
    /// One that lets them go on; run whatever became of the first.
    pub thaw: Vec<String>,
    /// How long each of them may take, and how long they are held still at most.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// What becomes of an epoch whose hook failed.
    pub on_failure: OnHookFailure,
}

impl Default for Hooks {
    fn default() -> Self {
        let timeout = Duration::from_secs(5);
        Self { freeze: Vec::new(), thaw: Vec::new(), timeout, on_failure: OnHookFailure::default() }
    }
}

impl Hooks {
    /// Whether there are any, and then what is to be done when they fail.
    #[must_use]
    pub fn policy(&self) -> Option<OnFailure> {
        let policy = match self.on_failure {
            OnHookFailure::Skip => OnFailure::Skip,
            OnHookFailure::Cut => OnFailure::Cut,
        };
        (!self.freeze.is_empty() || !self.thaw.is_empty()).then_some(policy)
    }
}

/// `[hooks] on-failure`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnHookFailure {
    /// This interval has no epoch.
    #[default]
    Skip,
    /// It is cut all the same.
    Cut,
}

/// `[verify]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Verify {
    /// The primary begins one by itself, so long after its start and then after each begin.
    #[serde(with = "humantime_serde")]
    pub every: Option<Duration>,
    /// Those mend what differs.
    pub repair: bool,
    /// The primary reads at most so many bytes a second.
    pub rate: Option<ByteSize>,
}

/// `[snapshots]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Snapshots {
    /// The backup keeps a recovery point so often: a thin snapshot of a committed epoch.
    #[serde(with = "humantime_serde")]
    pub every: Option<Duration>,
    /// How many are kept.
    pub keep: usize,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { every: None, keep: 24 }
    }
}

/// `[audit]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Audit {
    /// A file to which the primary appends `EPOCH SHA256...`, a digest of each whole volume, read in the pause of
    /// each cut. For audits and tests only: the pause then lasts as long as the reading.
    pub digest_file: Option<PathBuf>,
}

fn default_epoch() -> Duration {
    Duration::from_millis(50)
}

fn default_roll_interval() -> Duration {
    Duration::from_secs(300)
}

fn default_resync_target() -> Duration {
    Duration::from_secs(10)
}

/// The tracking granule of volumes that name none.
pub(crate) fn default_block() -> ByteSize {
    ByteSize::kib(64)
}

fn default_apply_delay() -> Duration {
    Duration::from_millis(500)
}

fn from_str<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn role<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "primary" => Ok(Role::Primary),
        "backup" => Ok(Role::Backup),
        other => Err(serde::de::Error::custom(format!("`{other}`: a role is \"primary\" or \"backup\""))),
    }
}

/// Why a configuration is refused. The text names the file, the line or key, and what is legal.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, not of this schema, or holds values that are out of range.
    #[error("{}", lines(path, faults))]
    Refused {
        /// The file.
        path: String,
        /// All that is wrong with it, in the order of its lines; at least one.
        faults: Vec<Fault>,
    },
    /// A running daemon cannot put it into force: the new values that it could take do not fit the old ones that it keeps.
    #[error(
        "{path}: what a reload would put into force does not fit what needs a restart ({}): restart the daemon\n{}",
        restart.join(", "),
        lines(path, faults)
    )]
    NeedsRestart {
        /// The file.
        path: String,
        /// Keys that changed and need a restart.
        restart: Vec<&'static str>,
        /// All that would be wrong; at least one.
        faults: Vec<Fault>,
    },
}

/// `FILE:LINE: KEY: REASON; nearest: VALUE`, a line for each fault.
fn lines(path: &str, faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{path}:{fault}")).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// When the file cannot be read, is not of the schema, or holds a value out of range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: name.clone(), source })?;
        let mut config = Self::parse(&name, &text)?;
        // Units and sockets are named after the file, or after the group: they are one.
        let is_named = path.file_stem().is_some_and(|stem| stem == config.group.as_str());
        if path.parent() == Some(Path::new(DIRECTORY)) && !is_named {
            let (key, reason) = ("group".to_owned(), format!("is {}, unlike the file's name", config.group));
            let faults = vec![Fault { line: None, key, reason, nearest: None }];
            return Err(ConfigError::Refused { path: name, faults });
        }
        if config.hooks.policy().is_some() && is_writable_by_all(path) {
            let (key, reason) =
                ("hooks".to_owned(), "every user may write this file, and hooks run as root".into());
            let nearest = Some(format!("`chmod o-w {name}`"));
            return Err(ConfigError::Refused {
                path: name,
                faults: vec![Fault { line: None, key, reason, nearest }],
            });
        }
        config.path = path.to_owned();
        Ok(config)
    }

    /// Checks a configuration that was read from `path`.
    ///
    /// # Errors
    /// As [`Self::load`], but for reading.
    pub fn parse(path: &str, text: &str) -> Result<Self, ConfigError> {
        check::read(text).map_err(|faults| ConfigError::Refused { path: path.into(), faults })
    }

    /// What this group and another one of the same host would both use.
    #[must_use]
    pub fn collides(&self, other: &Self) -> Option<String> {
        let (mine, theirs) = (NamedDevices::from(self), NamedDevices::from(other));
        let theirs: Vec<_> = theirs.all().chain(&other.log.devices).collect();
        if let Some(device) = mine.all().chain(&self.log.devices).find(|device| theirs.contains(device)) {
            return Some(format!("it uses {}", device.display()));
        }
        let names: Vec<&str> = other.volume.iter().map(|volume| volume.name.top()).collect();
        if let Some(volume) = self.volume.iter().find(|volume| names.contains(&volume.name.top())) {
            return Some(format!("it calls a volume {}", volume.name));
        }
        let (mine, theirs) = (self.address.canonical(), other.address.canonical());
        let is_everywhere =
            |host: &HostAddress| host.literal().is_some_and(|address| address.ip().is_unspecified());
        let meet = mine == theirs || is_everywhere(&mine) || is_everywhere(&theirs);
        (mine.port() == theirs.port() && meet).then(|| format!("it listens at port {}", mine.port()))
    }

    /// The two RAM disks of each volume. `None` when none are named.
    #[must_use]
    pub fn log_pairs(&self) -> Option<Vec<[PathBuf; 2]>> {
        let (pairs, _) = self.log.devices.as_chunks::<2>();
        (!pairs.is_empty()).then(|| pairs.to_vec())
    }
}

fn is_writable_by_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o002 != 0)
}

/// What comes twice.
fn twice<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = Vec::new();
    for one in all {
        if seen.contains(&one) {
            return Some(one);
        }
        seen.push(one);
    }
    None
}

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;
