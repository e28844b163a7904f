//! The last resort: the volumes of a backup are made usable without a daemon, with any part of its state and journal
//! missing, for the hour when the primary is gone.
//!
//! Always holds: what can be said of the volumes is said before anybody agrees; until then neither the volumes nor what
//! the state says are changed; the state machine decides about this promote as about any other, so its new generation is
//! durable before the volumes are released, and what the volumes hold is never called more than it is.
//!
//! | what is there | what the volumes will hold |
//! |---|---|
//! | a sound state, a journal that can be read | the last epoch up to which the journal is whole; a mixture if a later one was begun to be applied |
//! | a sound state that says so | a mixture, or what this side wrote itself |
//! | a sound state, no journal | what they hold now: perhaps an epoch, perhaps a mixture of two |
//! | no state | what they hold now, of which nothing is known |

use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use ftship_proto::backup::{BackupAction, BackupEvent, Holding, PromoteRefused};
use ftship_proto::ids::Epoch;
use ftship_proto::state::{Content, DurableState, Role};

use super::lanes::Taken;
use super::opened::{Journal, Opened, open_journal};
use crate::config::Config;
use crate::runtime::reactor::{Reactor, Reports};
use crate::store::journal_device::JournalFault;
use crate::store::state_file::{StateError, StateFile, of_another_group};
use crate::store::storage::StorageError;

/// How often timers are looked at while the disks work.
const LOOK: Duration = Duration::from_millis(50);

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum LastResortError {
    /// It is not what should be done here. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// A promote that was decided before another one.
    #[error("{0}")]
    Stale(String),
    /// Something failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// A backup whose loss somebody may accept.
pub struct LastResort {
    config: Config,
    /// None: it is to be made.
    state: Option<StateFile>,
    opened: Opened,
    /// What is wrong, for people.
    findings: Vec<String>,
    /// Whether the state could be read; and if it could and the journal could not, the last epoch that it names.
    known: Known,
    has_journal: bool,
}

/// What is known without the journal.
enum Known {
    /// Nothing: there is no state.
    Nothing,
    /// What the state says.
    State,
    /// The state says that the volumes held an epoch, this one or a later one.
    From(Epoch),
}

impl LastResort {
    /// Opens what is left of a backup, and its volumes.
    ///
    /// # Errors
    /// When the volumes cannot be used; or another remedy is the right one.
    pub fn open(config: &Config, with_journal: bool) -> Result<Self, LastResortError> {
        let mut findings = Vec::new();
        let (file, state) = open_state(config, &mut findings)?;
        let mut known = if state.is_some() { Known::State } else { Known::Nothing };
        let mut state = match state {
            Some(state) => state,
            None => unknown_state(config)?,
        };
        let generation = state.generation_number();
        if state.role == Role::Primary {
            let text = format!(
                "this host is the primary of generation {generation} already, so its volumes are usable: start its daemon"
            );
            return Err(LastResortError::Refused(text));
        }
        if state.content == Content::Blank {
            let text =
                "nothing of the group ever reached this backup: its volumes hold nothing to go on with";
            return Err(LastResortError::Refused(text.into()));
        }
        // Without the state nobody can tell what the journal's epochs continue.
        let is_usable = with_journal && matches!(known, Known::State);
        let journal = if is_usable { usable_journal(config, &state, &mut findings)? } else { None };
        let has_journal = journal.is_some();
        if !has_journal && state.content == Content::Consistent {
            // Nothing tells which epoch that is, nor whether another one was being applied.
            known = Known::From(state.highest_epoch_seen);
            state.content = Content::Inconsistent { base_id: [0; 16], base: None };
        }
        let mut opened = Opened::new(config, state, journal)?;
        findings.append(&mut opened.damage);
        Ok(Self { config: config.clone(), state: file, opened, findings, known, has_journal })
    }

    /// What is wrong, what the volumes will hold, and what is lost: for people, a line each.
    #[must_use]
    pub fn claim(&self) -> Vec<String> {
        let volumes: Vec<String> =
            self.config.volume.iter().map(|volume| volume.device.display().to_string()).collect();
        let volumes = volumes.join(", ");
        let mut lines: Vec<String> = self.findings.iter().map(|what| format!("found: {what}")).collect();
        let (holds, lost) = match (&self.known, self.opened.core().holding()) {
            (Known::Nothing, _) => (
                "MIXTURE POSSIBLE: nothing is known of what the volumes hold, because there is no state"
                    .to_owned(),
                "which epochs are lost is not known".to_owned(),
            ),
            (Known::From(epoch), _) => (
                format!(
                    "MIXTURE POSSIBLE: the volumes hold epoch {epoch} or a later one. Which one is not known without the \
                     journal, nor whether applying another one was half done"
                ),
                "epochs that were acknowledged and not applied yet are lost, if there were any".to_owned(),
            ),
            (Known::State, Holding::Exactly { epoch, lost }) => (
                format!("the volumes will hold exactly epoch {epoch}"),
                match lost {
                    Some(through) => format!(
                        "epochs {} to {through}, which were acknowledged or may have been, are lost",
                        epoch.next()
                    ),
                    None => "no epoch that this host acknowledged is lost, as far as it can know".to_owned(),
                },
            ),
            (Known::State, Holding::Mixture { base }) => (
                match base {
                    Some(base) => {
                        format!("MIXTURE: the volumes hold epoch {base} and parts of what came after it")
                    }
                    None => {
                        "MIXTURE: the volumes hold parts of several epochs: a sync in place did not end, or \
                             applying an epoch was half done"
                            .to_owned()
                    }
                },
                "no whole epoch is left".to_owned(),
            ),
            (Known::State, Holding::Own { fork }) => {
                let fork = fork.map_or("an epoch".to_owned(), |fork| format!("epoch {fork}"));
                (
                    format!("the volumes hold {fork}, and what this host wrote after it as a primary"),
                    "what the other side made since it was promoted over this one is lost".to_owned(),
                )
            }
            (Known::State, Holding::Nothing) => ("the volumes hold nothing".to_owned(), String::new()),
        };
        lines.push(format!("{volumes}: {holds}"));
        lines.push(format!("lost: {lost}; so is all that the primary wrote and never sent here"));
        if !matches!((&self.known, self.opened.core().holding()), (Known::State, Holding::Exactly { .. })) {
            lines.push("check the content before it is used (fsck, the database's own check)".to_owned());
        }
        lines
    }

    /// Applies what is whole, and makes this host the primary of a new generation, durably. Returns the epoch at which that
    /// begins.
    ///
    /// # Errors
    /// When it is refused, or a device fails: then the state is what it was, unless that says otherwise.
    pub fn promote(self, epoch: Option<Epoch>, token: Option<u64>) -> Result<Epoch, LastResortError> {
        let Self { config, state, opened, has_journal, .. } = self;
        let state = match state {
            Some(state) => state,
            None => StateFile::create(&config.state).map_err(anyhow::Error::from)?,
        };
        let mut id = [0; 16];
        getrandom::fill(&mut id).context("no random generation id")?;
        let reactor = Reactor::new()?;
        let (reports, received) = Reports::channel(reactor.waker());
        let (mut core, lanes) = opened.start(state, reports)?;
        let start = Instant::now();
        core.handle(start.elapsed(), BackupEvent::Promote { id, epoch, force: true, token });
        loop {
            while let Some(action) = core.poll_action() {
                match lanes.take(core.state(), action) {
                    Taken::Queued => {}
                    Taken::VolumesClosed => return Err(anyhow::anyhow!("the volumes are closed").into()),
                    Taken::Other(BackupAction::PromoteDone(result)) => {
                        return result.map_err(|refused| refusal(&config, refused, has_journal));
                    }
                    Taken::Other(BackupAction::ReportLoss { text }) => log::error!("{text}"),
                    // There is nobody to talk to.
                    Taken::Other(_) => {}
                }
            }
            match received.recv_timeout(LOOK) {
                Ok(report) => {
                    if let Some(event) = report.into_event() {
                        core.handle(start.elapsed(), event);
                    }
                }
                Err(_) => core.handle_timeout(start.elapsed()),
            }
        }
    }
}

fn refusal(config: &Config, refused: PromoteRefused, has_journal: bool) -> LastResortError {
    match refused {
        PromoteRefused::Stale(stale) => LastResortError::Stale(stale.to_string()),
        PromoteRefused::Failed(reason) if has_journal && reason.starts_with("journal") => {
            LastResortError::Failed(anyhow::anyhow!(
                "{reason}. `ftship promote {} --accept-loss --without-journal` leaves the journal alone",
                config.group
            ))
        }
        PromoteRefused::Failed(reason) => LastResortError::Failed(anyhow::anyhow!(reason)),
        other => LastResortError::Refused(other.to_string()),
    }
}

/// The state's device or file, if it is there, and the state, if it can be read.
fn open_state(
    config: &Config,
    findings: &mut Vec<String>,
) -> Result<(Option<StateFile>, Option<DurableState>), LastResortError> {
    let elsewhere = "Point `state` in the configuration at a device or file that can be used, or at a file that is not there \
                     yet, and try again";
    let mut file = match StateFile::open(&config.state) {
        Ok(file) => file,
        Err(StateError::Storage(StorageError::Io { path, error, .. }))
            if error.kind() == io::ErrorKind::NotFound && !path.starts_with("/dev") =>
        {
            findings.push(format!("state {}: is not there, and will be made", path.display()));
            return Ok((None, None));
        }
        Err(StateError::Storage(error @ StorageError::InUse(_))) => {
            return Err(LastResortError::Refused(format!("state {error}")));
        }
        Err(error) => return Err(anyhow::anyhow!("{error}. {elsewhere}").into()),
    };
    match file.load() {
        Ok(state) => {
            if let Some(reason) = of_another_group(&config.state, &state, &config.group) {
                return Err(LastResortError::Refused(reason));
            }
            findings.extend(file.damage().map(str::to_owned));
            Ok((Some(file), Some(state)))
        }
        Err(error @ (StateError::Blank(_) | StateError::Damaged { .. })) => {
            findings.push(error.to_string());
            Ok((Some(file), None))
        }
        Err(error @ StateError::Unusable { .. }) => Err(LastResortError::Refused(error.to_string())),
        Err(error) => Err(anyhow::anyhow!("{error}. {elsewhere}").into()),
    }
}

/// In place of a state that cannot be read.
fn unknown_state(config: &Config) -> anyhow::Result<DurableState> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).context("no random id")?;
    let content = Content::Inconsistent { base_id: [0; 16], base: None };
    Ok(DurableState { content, ..DurableState::new_backup(config.group.clone(), id) })
}

/// The journal, if it can be read.
fn usable_journal(
    config: &Config,
    state: &DurableState,
    findings: &mut Vec<String>,
) -> Result<Option<Journal>, LastResortError> {
    match open_journal(config, state) {
        Ok(journal) => Ok(Some(journal)),
        Err(fault @ (JournalFault::Refused { .. } | JournalFault::Storage(StorageError::InUse(_)))) => {
            Err(LastResortError::Refused(fault.to_string()))
        }
        Err(fault) => {
            findings.push(fault.to_string());
            Ok(None)
        }
    }
}
