//! Finding, greeting and losing the backup.
//!
//! Always holds: a connection that is silent for the time-out is given up; whoever cannot be reached is tried steadily,
//! whoever is reached and lost again ever more rarely, up to [`LAST_BACKOFF`]; nothing but a greeting is exchanged before both sides have checked each other.

use std::time::Duration;

use super::{Primary, PrimaryAction, Replication, SyncStep};
use crate::frame::{Frame, FrameKind};
use crate::ids::Epoch;
use crate::lineage::Standing;
use crate::message::{Hello, Message, Welcome};
use crate::mutant::{self, Mutant};
use crate::protocol::{ACK_RECEIVED, COMPARE, CommitPolicy, EXTERNAL_COMMIT, PROTOCOL, PROTOCOL_MIN, VERIFY};
use crate::verify::Digests;
use ftdm_units::Sectors;

/// What this side offers and need not have.
const OPTIONAL_FEATURES: u64 = ACK_RECEIVED | VERIFY | COMPARE;
/// Wait before the second attempt to connect; doubled at each further one until in sync for a while.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait between two attempts.
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// How long a pair is in sync before what went wrong earlier is forgotten.
const STEADY: Duration = Duration::from_secs(10);
/// How long one attempt to connect takes at most: long enough for the kernel to try twice.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Wait behind an attempt that reached nobody: the next one may be the first that the link lets through.
const UNREACHED_WAIT: Duration = Duration::from_millis(250);
/// Least time from one attempt's beginning to the next one's.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);
/// Longest time between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How far the connection is.
#[derive(Debug)]
pub(super) enum Link {
    Down { retry_at: Duration },
    Connecting { deadline: Duration },
    Greeting { deadline: Duration },
    Up { welcome: Box<Welcome>, heard: Duration, ping_at: Duration },
}

/// The connection to the backup, and what is known of it.
#[derive(Debug)]
pub(super) struct PeerLink {
    pub(super) link: Link,
    backoff: Duration,
    /// Why there is no connection, as last seen.
    pub(super) error: Option<String>,
    /// The last epoch that the backup said is on its volumes.
    pub(super) applied: Epoch,
    /// The size that it said each volume could have there.
    pub(super) room: Option<Vec<Sectors>>,
}

impl Default for PeerLink {
    fn default() -> Self {
        let link = Link::Down { retry_at: Duration::ZERO };
        Self { link, backoff: FIRST_BACKOFF, error: None, applied: Epoch::NONE, room: None }
    }
}

impl PeerLink {
    /// The wait before the next attempt; each one is longer.
    fn next_wait(&mut self) -> Duration {
        let wait = self.backoff;
        self.backoff = (wait * 2).min(LAST_BACKOFF);
        wait
    }
}

impl Primary {
    pub(super) fn connected(&mut self, now: Duration) {
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL,
            features_optional: OPTIONAL_FEATURES,
            features_mandatory: self.mandatory_features(),
            group: self.config.group.clone(),
            lineage: self.durable.state.lineage.clone(),
            last_epoch: self.standing().last_epoch,
            last_digest: self.commits.committed_digest,
            alone: self.durable.state.alone,
            token: self.durable.state.token,
            numbered: self.numbered(),
            with_loss: self.durable.state.with_loss,
        };
        self.act(PrimaryAction::Send(Message::Hello(hello)));
        self.peer.link = Link::Greeting { deadline: now + self.config.timeout };
    }

    fn mandatory_features(&self) -> u64 {
        match self.config.commit {
            CommitPolicy::Auto => 0,
            CommitPolicy::External => EXTERNAL_COMMIT,
        }
    }

    /// Drops the connection, if there is one, and degrades.
    pub(super) fn lose_link(&mut self, now: Duration, reason: &str) {
        if !matches!(self.peer.link, Link::Down { .. }) {
            self.act(PrimaryAction::Close { reason: reason.to_owned() });
            self.disconnected(now, reason);
        }
    }

    pub(super) fn disconnected(&mut self, now: Duration, reason: &str) {
        if let Link::Down { .. } = self.peer.link {
            return;
        }
        // Reset only by being in sync for a while: a pair that fails anew at each attempt is not to be hurried.
        if self.syncing.in_sync_since.take().is_some_and(|since| now >= since + STEADY) {
            self.peer.backoff = FIRST_BACKOFF;
        }
        match (self.ask_soon(), &self.peer.link) {
            (Some(wait), _) => self.peer.link = Link::Down { retry_at: now + wait },
            (None, Link::Connecting { deadline }) => {
                let begun = deadline.saturating_sub(self.attempt_time());
                self.peer.link =
                    Link::Down { retry_at: (now + UNREACHED_WAIT).max(begun + BETWEEN_ATTEMPTS) };
            }
            _ => {
                let wait = self.peer.next_wait();
                self.peer.link = Link::Down { retry_at: now + wait };
            }
        }
        self.peer.error = Some(reason.to_owned());
        self.words_unknown(reason);
        self.peer.room = None;
        self.resize_unanswered();
        if mutant::is(Mutant::SwitchForgotten) {
            self.switch_unheard(now);
        }
        if matches!(self.replication, Replication::Syncing | Replication::InSync) {
            self.degrade(reason);
        }
    }

    /// Whether there is no use in connecting.
    pub(super) fn is_barred(&self) -> bool {
        self.has_failed() || self.is_stepping_down() || self.switch_bars_link() || self.is_resizing()
    }

    fn attempt_time(&self) -> Duration {
        self.config.timeout.min(ATTEMPT)
    }

    pub(super) fn link_timeout(&mut self, now: Duration) {
        let is_done = self.is_barred();
        let deadline = now + self.attempt_time();
        match &mut self.peer.link {
            Link::Down { .. } if is_done => {}
            Link::Down { retry_at } if *retry_at <= now => {
                self.peer.link = Link::Connecting { deadline };
                self.act(PrimaryAction::Connect);
            }
            Link::Connecting { deadline } if *deadline <= now => {
                self.lose_link(now, "the backup cannot be reached");
            }
            Link::Greeting { deadline } if *deadline <= now => {
                self.lose_link(now, "the backup did not answer the greeting in time");
            }
            Link::Up { heard, .. } if *heard + self.config.timeout <= now => {
                let reason = format!("nothing heard from the backup for {:?}", self.config.timeout);
                self.lose_link(now, &reason);
            }
            Link::Up { ping_at, .. } if *ping_at <= now => {
                *ping_at = now + (self.config.timeout / 3).min(PING_INTERVAL);
                self.act(PrimaryAction::Send(Message::Ping { token: 0 }));
            }
            _ => {}
        }
    }

    pub(super) fn frame(&mut self, now: Duration, frame: &Frame) {
        if frame.header.kind == FrameKind::Differs {
            return self.differs(now, frame);
        }
        let message = match Message::decode(frame) {
            Ok(message) => message,
            Err(error) => return self.lose_link(now, &format!("the backup sent nonsense: {error}")),
        };
        match (&mut self.peer.link, message) {
            (Link::Down { .. } | Link::Connecting { .. }, _) => {}
            (Link::Greeting { .. }, Message::Welcome(welcome)) => self.welcome(now, welcome),
            (_, Message::Refuse { text, standing, .. }) => {
                if let Some(standing) = standing {
                    self.meet(now, &standing);
                }
                self.lose_link(now, &format!("the backup refuses: {text}"));
            }
            (Link::Up { heard, .. }, message) => {
                *heard = now;
                self.message(now, frame, message);
            }
            (Link::Greeting { .. }, other) => {
                self.lose_link(now, &format!("the backup answered the greeting with {}", other.name()));
            }
        }
    }

    fn message(&mut self, now: Duration, frame: &Frame, message: Message) {
        match message {
            Message::SyncReady if self.syncing.step == SyncStep::Asked => self.sync_ready(now),
            Message::Staged { epoch, digest } => self.staged_by_backup(now, epoch, digest),
            Message::Report { committed, applied, durable, room, .. } => {
                if applied != self.peer.applied {
                    self.syncing.attempt.progressed(now);
                }
                self.peer.applied = applied;
                self.peer.room = room;
                self.reported(now, committed, durable);
                self.resize_if_room(now);
            }
            Message::Digests { token, result } => match result {
                Ok(Digests::Short(digests)) => self.told(frame, token, Some(digests)),
                Err(_) if self.is_comparing() => self.told(frame, token, None),
                Ok(Digests::Whole(digests)) => self.peer_digests(now, token, Ok(digests)),
                Err(reason) => self.peer_digests(now, token, Err(reason)),
            },
            Message::Ping { token } => self.act(PrimaryAction::Send(Message::Pong { token })),
            Message::Pong { .. } => {}
            Message::Bye { text, cause } => {
                self.staging_refused(cause);
                self.lose_link(now, &format!("the backup said goodbye: {text}"));
            }
            other => self.lose_link(now, &format!("a {} message is not for a primary", other.name())),
        }
    }

    fn welcome(&mut self, now: Duration, welcome: Welcome) {
        let mandatory = self.mandatory_features();
        let is_offered = (PROTOCOL_MIN..=PROTOCOL).contains(&welcome.protocol)
            && welcome.features & !(mandatory | OPTIONAL_FEATURES) == 0
            && welcome.features & mandatory == mandatory;
        if !is_offered {
            return self
                .lose_link(now, "the backup chose a protocol or features that this side did not offer");
        }
        if self.switch_unheard(now) {
            return;
        }
        let standing = Standing {
            role: welcome.role,
            content: welcome.content,
            lineage: welcome.lineage.clone(),
            last_epoch: welcome.committed,
            alone: None,
            numbered: None,
            with_loss: false,
        };
        if !self.meet(now, &standing) {
            let text = match self.fence_text() {
                text if text.is_empty() => {
                    format!("the histories do not meet: the other side is the {standing}")
                }
                text => text,
            };
            return self.lose_link(now, &text);
        }
        self.peer.error = None;
        self.peer.link = Link::Up { welcome: Box::new(welcome), heard: now, ping_at: now };
        self.greeted(now);
    }
}
