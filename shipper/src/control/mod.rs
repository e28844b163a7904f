//! The control socket `/run/ftdm/GROUP.sock`: one JSON object per line, a request and its answer.
//!
//! Always holds: the types here are the whole vocabulary, used by the daemon and by the commands.

pub mod client;
pub mod exit;
pub mod server;
pub mod text;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Ack, Commit};
use crate::runtime::metrics::Percentiles;
use crate::store::snapshots::Snapshot;

/// Folder of the sockets.
pub const DIRECTORY: &str = "/run/ftdm";

/// Largest line that either side accepts, in bytes.
pub const LINE_LIMIT: usize = 64 * 1024;

/// The socket of a group.
#[must_use]
pub fn socket_path(group: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(format!("{group}.sock"))
}

/// What can be asked of a daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How things stand.
    Status,
    /// Primary: cut now; answer after the cut, or, with `wait`, once the epoch is committed or staged.
    Checkpoint {
        /// Answer only when the epoch is committed.
        wait: bool,
        /// With `wait`: already when it is staged.
        #[serde(default)]
        staged: bool,
        /// The VM is paused: cut without a suspend, or refuse.
        #[serde(default)]
        quiesced: bool,
    },
    /// Primary, where a coordinator commits: commit this epoch and all before it; answer once that is durable.
    Commit {
        /// The epoch.
        epoch: u64,
    },
    /// Backup: become the primary of a new generation.
    Promote {
        /// The epoch that the volumes are to hold; needed where a coordinator commits.
        #[serde(default)]
        epoch: Option<u64>,
        /// Also where what the volumes hold is no epoch of the group.
        #[serde(default)]
        force: bool,
        /// The fencing token: has to be above any seen before.
        #[serde(default)]
        token: Option<u64>,
    },
    /// Primary: exchange the roles.
    Switch {
        /// Also while somebody has the volumes open: writes wait, and then fail.
        #[serde(default)]
        stall: bool,
    },
    /// Primary that another was promoted over: become its backup.
    Demote,
    /// Split brain: throw away what this side has of its own, and become the other's backup.
    DiscardMine,
    /// Backup: make a writable copy of the volumes as they are at a committed epoch, and go on.
    TestCopy {
        /// What it is called.
        name: String,
        /// Room for what changes, as `lvcreate -L` takes it, where the volume is not thin.
        #[serde(default)]
        size: Option<String>,
    },
    /// Primary: give the volumes what their devices have, on both sides.
    Resize,
    /// Primary: overwrite the backup with a new copy.
    FullSync,
    /// Read the configuration again, and take over what can change while the daemon runs.
    Reload,
    /// Primary: compare the backup's volumes with these, while everything goes on; answers at the end.
    Verify {
        /// Mend what differs.
        #[serde(default)]
        repair: bool,
    },
}

impl Request {
    /// Reads a line that a client sent.
    ///
    /// # Errors
    /// What is wrong with it, for that client.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| format!("not a request: {}", brief(&error)))
    }
}

impl Request {
    /// Whether everybody may ask it who may use the socket. A verify is none: it reads two volumes.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        match self {
            Self::Status => true,
            Self::Checkpoint { .. }
            | Self::Commit { .. }
            | Self::Promote { .. }
            | Self::Switch { .. }
            | Self::Demote
            | Self::DiscardMine
            | Self::TestCopy { .. }
            | Self::Resize
            | Self::FullSync
            | Self::Reload
            | Self::Verify { .. } => false,
        }
    }
}

impl Response {
    /// Reads a line that a daemon sent.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map_err(|error| format!("not an answer: {}", brief(&error)))
    }
}

/// An error's text without what lies between its beginning and the place that it names at its end: it may
/// repeat a whole line, and the answer that tells it must fit one.
fn brief(error: &serde_json::Error) -> String {
    const KEPT: usize = 200;
    let text = error.to_string();
    let start = text.floor_char_boundary(KEPT);
    let end = text.ceil_char_boundary(text.len().saturating_sub(KEPT));
    if start < end { format!("{} ... {}", &text[..start], &text[end..]) } else { text }
}

/// The daemon's answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To `status`.
    Status(Box<Status>),
    /// To `checkpoint`: everything written before the request is in this epoch.
    Checkpoint {
        /// The epoch.
        epoch: u64,
    },
    /// To `commit`.
    Committed {
        /// The last epoch that is durably committed: the one named, or a later one.
        epoch: u64,
    },
    /// To `promote`: the volumes hold exactly this epoch.
    Promoted {
        /// The epoch.
        epoch: u64,
    },
    /// To `test-copy`: what was made.
    Snapshot(Box<Snapshot>),
    /// To `verify`: what it found.
    Verified(Box<VerifyOutcome>),
    /// To `reload`.
    Reloaded {
        /// Keys whose new values hold.
        live: Vec<String>,
        /// Keys whose old values hold until the daemon is restarted.
        restart: Vec<String>,
        /// Keys that no daemon looks at, also after a restart.
        #[serde(default)]
        ignored: Vec<String>,
    },
    /// To `resize`: the volumes have their new sizes, or had them before.
    Resized {
        /// In the group's order.
        volumes: Vec<ResizedVolume>,
    },
    /// To `full-sync`, `switch`, `demote` and `discard-mine`.
    Started,
    /// To `promote`: its token is not above one that was seen already; nothing was changed.
    Stale {
        /// For people.
        reason: String,
    },
    /// Who asks may not ask this; nothing was changed.
    Forbidden {
        /// For people.
        reason: String,
    },
    /// The request does not fit the daemon's role or state; nothing was changed.
    Refused {
        /// For people.
        reason: String,
    },
    /// The request was taken, and did not succeed.
    Failed {
        /// For people.
        reason: String,
    },
}

/// A volume before and after a `resize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizedVolume {
    /// Its name.
    pub name: String,
    /// Bytes that it had.
    pub before: u64,
    /// Bytes that it has.
    pub after: u64,
}

/// How a daemon stands. Times are in milliseconds, sizes in bytes; both since the daemon's start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Name of the group.
    pub group: String,
    /// `primary` or `backup`, from the durable state.
    pub role: String,
    /// `in sync`, `syncing`, `degraded`, `outdated`, `split brain`, `frozen`, `inconsistent`, `tracking lost` or `failed`.
    pub state: String,
    /// Why, when the state is not `in sync`; else what is wrong all the same.
    pub reason: Option<String>,
    /// Whether the peer is connected and greeted.
    pub connected: bool,
    /// Address of the peer.
    pub peer: String,
    /// Why the last attempt to connect failed.
    pub link_error: Option<String>,
    /// The key that the peer has proven to have; nothing while it is not connected, or where `tls` is off.
    #[serde(default)]
    pub peer_key: Option<String>,
    /// Number of the current generation.
    pub generation: u64,
    /// Who commits: `auto` or `external`.
    pub commit: Commit,
    /// What STAGED promises: `durable` or `received`. The primary knows it while connected.
    pub ack: Option<Ack>,
    /// The epochs.
    pub epochs: Epochs,
    /// The volumes, in the group's order.
    #[serde(default)]
    pub volumes: Vec<VolumeFigures>,
    /// What is wrong and has cost nothing yet: a damaged place on the device of the state or the journal, a recovery point
    /// that cannot be removed.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Primary: verifies.
    #[serde(default)]
    pub verify: Option<VerifyFigures>,
    /// What the other side said of itself when it was met last: where the histories do not meet.
    #[serde(default)]
    pub peer_standing: Option<String>,
    /// Primary without a backup: the epoch since which it goes on alone.
    #[serde(default)]
    pub alone_since: Option<u64>,
    /// Primary: figures of the cuts and of shipping.
    pub primary: Option<PrimaryFigures>,
    /// Backup: figures of the journal.
    pub backup: Option<BackupFigures>,
}

/// Verifies since the daemon's start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VerifyFigures {
    /// The one under way.
    pub running: Option<VerifyRunning>,
    /// What the last one found that came to its end.
    pub last: Option<VerifyOutcome>,
    /// How many did.
    pub count: u64,
    /// Bytes that any of them found changed on the primary and never shipped: each verify counts anew what is not mended.
    #[serde(default)]
    pub untracked_bytes: u64,
    /// When the next one is due, where they are configured.
    pub next_seconds: Option<u64>,
}

/// A verify under way.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct VerifyRunning {
    /// Compared.
    pub checked_bytes: u64,
    /// To be compared.
    pub volume_bytes: u64,
    /// That differ, so far.
    pub differing_bytes: u64,
    /// Since its begin.
    pub seconds: f64,
}

/// What a verify found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VerifyOutcome {
    /// When it ended: seconds since 1970, by this host's clock.
    pub finished: u64,
    /// How long it took.
    pub seconds: f64,
    /// Compared.
    pub checked_bytes: u64,
    /// Blocks whose digests differed in the scan, and that were compared at a cut: what was being written, mostly.
    pub candidates: u64,
    /// Where the backup held something else, the first 256.
    pub differing: Vec<Differing>,
    /// Bytes that differed.
    pub differing_bytes: u64,
    /// Of those that differed, the ones that changed on the primary and were never shipped, the first 256.
    #[serde(default)]
    pub untracked: Vec<Differing>,
    /// Their bytes, of all of them.
    #[serde(default)]
    pub untracked_bytes: u64,
    /// Of those, mended.
    pub repaired_bytes: u64,
    /// Bytes that could not be compared because the guest kept discarding them.
    pub undecided_bytes: u64,
}

/// A run of sectors that differs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Differing {
    /// Name of the volume.
    pub volume: String,
    /// First sector, of 512 bytes.
    pub sector: u64,
    /// Sectors.
    pub sectors: u64,
}

/// One volume.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VolumeFigures {
    /// Its name on the primary.
    pub name: String,
    /// The logical volume of this host.
    pub device: String,
    /// Bytes; 0 where this daemon does not have it open.
    pub size: u64,
    /// Bytes of the logical volume now: more than `size` where it was enlarged. 0: not known.
    #[serde(default)]
    pub device_size: u64,
    /// Primary: log bytes in use.
    pub log_used: u64,
    /// Primary: log bytes in all; 0 before the first capture.
    pub log_size: u64,
    /// Primary: bytes that the VM wrote while captured.
    pub bytes_written: u64,
}

/// Epoch numbers; 0 is none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Epochs {
    /// Last one cut (primary).
    pub cut: u64,
    /// Last one acknowledged by the backup, of those that can be committed.
    pub staged: u64,
    /// Last one committed: what a promote of the backup gives.
    pub committed: u64,
    /// Last one on the backup's volumes.
    pub applied: u64,
    /// Cut and not acknowledged, or where a coordinator commits, not committed (primary).
    pub in_flight: usize,
    /// Committed since the daemon's start.
    pub committed_count: u64,
}

/// The stages of a cut, in the order in which they come.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PauseStages {
    /// Before the pause: reading the log so far.
    pub follow: Percentiles,
    /// Draining what is in flight.
    pub suspend: Percentiles,
    /// Flushing.
    pub flush: Percentiles,
    /// Reading the headers of the rest of the log.
    pub log: Percentiles,
    /// Reading suspects.
    pub suspects: Percentiles,
    /// Checking, and changing the log where that was due.
    pub verify: Percentiles,
    /// Letting the volumes run.
    pub resume: Percentiles,
    /// After the pause: reading the data of the rest of the log.
    pub data: Percentiles,
}

/// Figures of a primary.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PrimaryFigures {
    /// Configured time between epochs.
    pub epoch_ms: f64,
    /// How long the volumes were paused by a cut.
    pub pause_ms: Percentiles,
    /// What of it each stage took.
    #[serde(default)]
    pub pause_stages_ms: PauseStages,
    /// How long giving discards to the volume took, in the pauses that had any; a part of `pause_ms`.
    #[serde(default)]
    pub discard_ms: Percentiles,
    /// From cut to committed, since the pair was last found in sync.
    pub commit_lag_ms: Percentiles,
    /// Bytes that the VM wrote while captured.
    pub bytes_written: u64,
    /// Bytes sent for epochs.
    pub bytes_shipped: u64,
    /// Bytes sent for what syncs copy.
    pub base_bytes_shipped: u64,
    /// Sectors read in the pause because the log alone does not prove them.
    pub suspect_sectors: u64,
    /// Cuts that failed their checks.
    pub void_cuts: u64,
    /// Times that a hook failed before a cut.
    #[serde(default)]
    pub hooks_failed: u64,
    /// Ticks without a cut because the window was full.
    pub void_ticks: u64,
    /// Ticks without a cut because nothing was written since the last one.
    #[serde(default)]
    pub idle_ticks: u64,
    /// Bytes that the guest has discarded and that are to be given to the volume.
    #[serde(default)]
    pub discards_pending: u64,
    /// Bytes given to the volume as discards.
    #[serde(default)]
    pub discards_given: u64,
    /// Bytes discarded by the guest and forgotten, for want of room.
    #[serde(default)]
    pub discards_forgotten: u64,
    /// Times that the log was exchanged.
    pub log_rotations: u64,
    /// Times that writes were held back until there was room in the log (`overrun = "throttle"`).
    pub holds: u64,
    /// Log bytes in use, of the volume whose log is fullest.
    pub log_used: u64,
    /// Log bytes of that volume in all.
    pub log_size: u64,
    /// The sync under way.
    #[serde(default)]
    pub sync: Option<SyncStatus>,
    /// The last sync that came to its end.
    #[serde(default)]
    pub last_sync: Option<SyncStatus>,
    /// Seconds for which a resync would compare if this host lost its power now: an estimate.
    #[serde(default)]
    pub resync_seconds: f64,
    /// Bytes of the volumes.
    pub volume_size: u64,
}

/// How what a sync copies reaches the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncCarrier {
    /// As one epoch; until that is committed the backup keeps the epoch that it has.
    Staged,
    /// Over its volumes, which are inconsistent until the end.
    InPlace,
}

/// A sync. Sizes are bytes of the volumes but for `sent` and `digests`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct SyncStatus {
    /// Known once the size of the first round is.
    pub carrier: Option<SyncCarrier>,
    /// What was written since this epoch is copied; nothing: everything.
    pub base: Option<u64>,
    /// Rounds of copying so far, the one under way included.
    pub rounds: u32,
    /// Bytes that these rounds cover.
    pub bytes: u64,
    /// Of those of the present round, how many are still to be copied.
    pub left: u64,
    /// Bytes sent for them.
    pub sent: u64,
    /// Bytes that were not sent, the backup having them.
    #[serde(default)]
    pub skipped: u64,
    /// Bytes of the questions and answers that found that, both ways.
    #[serde(default)]
    pub digests: u64,
    /// How long it has taken.
    pub seconds: f64,
    /// Bytes of the volumes a second so far, those that were not sent included; nothing yet: 0.
    #[serde(default)]
    pub rate: f64,
    /// How long what is left of the present round takes at this rate.
    #[serde(default)]
    pub seconds_left: Option<f64>,
}

/// Figures of a backup.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct BackupFigures {
    /// Journal bytes in use.
    pub journal_used: u64,
    /// Journal bytes in all.
    pub journal_size: u64,
    /// Bytes received for epochs.
    pub epoch_bytes: u64,
    /// Bytes received for base copies.
    pub base_bytes: u64,
    /// Bytes discarded on the volume, because the guest had discarded them.
    #[serde(default)]
    pub discarded: u64,
    /// Discards that the volume did not take.
    #[serde(default)]
    pub discard_errors: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_longest_line_fits_a_line_and_says_where() {
        for character in ["x", "\u{7f}", "\\u0001"] {
            let verb = character.repeat((LINE_LIMIT - 100) / character.len());
            let reason = Request::parse(format!("{{\"verb\":\"{verb}\"}}").as_bytes()).unwrap_err();
            assert!(reason.starts_with("not a request: unknown variant") && reason.contains("full-sync"));
            let answer = serde_json::to_vec(&Response::Refused { reason }).unwrap();
            assert!(answer.len() < LINE_LIMIT, "{} bytes", answer.len());
        }
    }
}
