//! Meeting and losing the primary: who is let in, and what a lost link leaves behind.
//!
//! Always holds: nothing of a peer is taken before its `Hello` was checked against the group, the
//! volumes and the lineage here; a refused peer changes nothing.

use std::time::Duration;

use super::phase::{CopyStep, PromoteStep};
use super::{Backup, BackupAction, Link, Peer, Phase};
use crate::frame::FrameHeader;
use crate::ids::Epoch;
use crate::lineage::{Relation, Standing, compare};
use crate::message::{ByeCause, Hello, Message, RefuseCode, Welcome};
use crate::mutant::{self, Mutant};
use crate::protocol::{
    ACK_RECEIVED, AckPolicy, COMPARE, CommitPolicy, EXTERNAL_COMMIT, PROTOCOL, PROTOCOL_MIN, VERIFY,
    common_version, unknown_features,
};
use crate::state::Role;

/// Longest time between two reports to the primary; they also show that this side is alive.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Backup {
    pub(super) fn accepted(&mut self, now: Duration) {
        if !matches!(self.link, Link::Down) {
            self.disconnected(now);
        }
        self.link = Link::Greeting { deadline: now + self.config.timeout };
        self.correspondent = None;
    }

    pub(super) fn disconnected(&mut self, now: Duration) {
        self.link = Link::Down;
        self.blocked = None;
        self.forget_questions();
        // What has not arrived wholly will never be committed.
        if self.open.take().is_some() && !mutant::is(Mutant::KeepOpenEpoch) {
            self.journal.drop_open();
        }
        match self.phase.copying() {
            // Nothing was overwritten yet.
            Some(CopyStep::Draining) => self.enter(Phase::of(&self.state)),
            Some(CopyStep::Clearing | CopyStep::Base | CopyStep::Flushing | CopyStep::Flushed) => {
                self.enter(Phase::Inconsistent);
            }
            // The state that is being written decides.
            Some(CopyStep::Marking | CopyStep::Sealing) | None => {}
        }
        self.schedule_apply(now);
    }

    pub(super) fn not_listening(&mut self, now: Duration) {
        if let Link::Up { heard, .. } = &mut self.link {
            *heard = now;
        }
    }

    pub(super) fn close(&mut self, now: Duration, reason: String) {
        if !matches!(self.link, Link::Down) {
            self.disconnected(now);
            self.act(BackupAction::Close { reason });
        }
    }

    pub(super) fn refuse(&mut self, code: RefuseCode, text: String) {
        let reason = format!("refused the peer: {text}");
        // Until the new generation is durable nobody may act on it.
        let is_told = !matches!(self.phase, Phase::Promoting(PromoteStep::Marking));
        let standing = is_told.then(|| Box::new(self.standing()));
        self.act(BackupAction::Send(Message::Refuse { code, text, standing }));
        self.link = Link::Down;
        self.act(BackupAction::Close { reason });
    }

    /// Says goodbye to a greeted peer that broke the protocol, or that cannot be served further.
    pub(super) fn bye(&mut self, now: Duration, text: String) {
        self.leave(now, text, ByeCause::Other);
    }

    /// The same, with the cause.
    pub(super) fn leave(&mut self, now: Duration, text: String, cause: ByeCause) {
        self.act(BackupAction::Send(Message::Bye { text: text.clone(), cause }));
        self.close(now, text);
    }

    pub(super) fn link_timeout(&mut self, now: Duration) {
        match &mut self.link {
            Link::Greeting { deadline } if *deadline <= now => {
                self.close(now, "the peer did not say hello in time".into());
            }
            Link::Clearing { deadline, .. } if *deadline <= now => {
                self.close(now, "what another primary left could not be dropped in time".into());
            }
            // While this side does not read, silence says nothing about the peer.
            Link::Up { heard, .. } if self.blocked.is_none() && *heard + self.config.timeout <= now => {
                self.close(now, format!("nothing heard from the primary for {:?}", self.config.timeout));
            }
            Link::Up { report_at, .. } if *report_at <= now => {
                *report_at = now + (self.config.timeout / 3).min(REPORT_INTERVAL);
                self.report();
            }
            _ => {}
        }
    }

    pub(super) fn report(&mut self) {
        let (journal_used, journal_size) = self.journal_use();
        let (committed, applied, durable) = (self.committed, self.applied, self.durable());
        self.reported = durable;
        let (durable, room) = (Some(durable), self.room());
        let report = Message::Report { committed, applied, durable, journal_used, journal_size, room };
        self.act(BackupAction::Send(report));
    }

    pub(super) fn hello(&mut self, now: Duration, header: &FrameHeader, hello: Hello) {
        self.correspondent = Some(header.incarnation);
        let checked = self.check_hello(header, &hello);
        self.is_disputed = checked.is_err() && self.differs_from(&hello);
        if let Err((code, text)) = checked {
            return self.refuse(code, text);
        }
        let peer = Peer {
            incarnation: header.incarnation,
            generation: header.generation,
            protocol: common_version(hello.protocol_min, hello.protocol_max).unwrap_or(PROTOCOL),
            knows_received: (hello.features_optional | hello.features_mandatory) & ACK_RECEIVED != 0,
            knows_verify: (hello.features_optional | hello.features_mandatory) & VERIFY != 0,
            knows_compare: (hello.features_optional | hello.features_mandatory) & COMPARE != 0,
            group: hello.group,
            lineage: hello.lineage,
        };
        if hello.token > self.state.token {
            self.state.token = hello.token;
            self.write_state();
        }
        self.link = Link::Clearing { deadline: now + self.config.timeout, peer: Box::new(peer) };
        self.greet(now);
    }

    /// Welcomes the primary once nothing is here that it must not find.
    pub(super) fn greet(&mut self, now: Duration) {
        let Link::Clearing { peer, .. } = &self.link else { return };
        let group = peer.group.clone();
        if self.is_external() {
            // Whatever was decided before the link was lost comes to its end first.
            if self.is_settling() {
                return;
            }
            if self.awaits_another(peer.incarnation) {
                return self.drop_foreign();
            }
        }
        let peer = Peer::clone(peer);
        if !self.is_as_large_as(&group) {
            return;
        }
        let received =
            if peer.knows_received && self.config.ack == AckPolicy::Received { ACK_RECEIVED } else { 0 };
        let external = if self.is_external() { EXTERNAL_COMMIT } else { 0 };
        let verify = if peer.knows_verify { VERIFY } else { 0 };
        let compare = if peer.knows_compare { COMPARE } else { 0 };
        let welcome = Welcome {
            protocol: peer.protocol,
            features: received | external | verify | compare,
            lineage: self.state.lineage.clone(),
            highest_epoch_seen: self.highest_epoch(),
            committed: self.committed,
            chain_digest: self.digest,
            content: self.state.content,
            role: self.state.role,
            journal_size: Some(self.journal.capacity()),
            held: Some(self.held()),
            sizes: self.other_sizes(&peer.group),
        };
        // Replies are stamped with the peer's incarnation, so the link comes first.
        self.link = Link::Up { peer, heard: now, report_at: now, replicates: false };
        self.act(BackupAction::Send(Message::Welcome(welcome)));
    }

    fn check_hello(&self, header: &FrameHeader, hello: &Hello) -> Result<(), (RefuseCode, String)> {
        if common_version(hello.protocol_min, hello.protocol_max).is_none() {
            let text = format!(
                "the peer speaks protocol {} to {}, this side {PROTOCOL_MIN} to {PROTOCOL}: update the older side",
                hello.protocol_min, hello.protocol_max
            );
            return Err((RefuseCode::Version, text));
        }
        let unknown = unknown_features(hello.features_mandatory);
        if unknown != 0 {
            let text = format!("the peer insists on features {unknown:#x}, unknown here: update this side");
            return Err((RefuseCode::Feature, text));
        }
        let theirs = match hello.features_mandatory & EXTERNAL_COMMIT {
            0 => CommitPolicy::Auto,
            _ => CommitPolicy::External,
        };
        if theirs != self.config.commit {
            let text = format!(
                "the peer's configuration says commit = \"{theirs}\", this side's \"{}\": make them equal",
                self.config.commit
            );
            return Err((RefuseCode::CommitPolicy, text));
        }
        if hello.lineage.last().is_none_or(|last| last.generation.number != header.generation) {
            let text =
                "the peer greets as a primary without a generation of its own: format its state".to_owned();
            return Err((RefuseCode::ProtocolError, text));
        }
        self.check_phase()?;
        self.check_volumes(hello)?;
        self.check_history(hello)
    }

    /// Whether a person has to choose between this side's history and the peer's.
    fn differs_from(&self, hello: &Hello) -> bool {
        let relation = compare(&self.standing(), &hello.standing());
        matches!(relation, Relation::SplitBrain { .. } | Relation::Overtakes { .. })
    }

    fn check_history(&self, hello: &Hello) -> Result<(), (RefuseCode, String)> {
        let (mine, theirs) = (self.standing(), hello.standing());
        let text = match compare(&mine, &theirs) {
            Relation::Same | Relation::Fresh | Relation::Outdated { .. } => return Ok(()),
            Relation::Unrelated => "what this backup holds does not descend from the peer's history: \
                                    format this backup again if its content may be overwritten"
                .to_owned(),
            Relation::Overtakes { fork } => format!(
                "this backup's history is newer than the peer's, which ends at epoch {fork}: promote this side, or \
                 `ftship resolve --discard-mine` here if its content may be overwritten"
            ),
            Relation::SplitBrain { .. } if theirs.was_put_back(&mine) => format!(
                "this backup holds epoch {}, and the peer, the {theirs}, never made it: the peer's disks were put back to an \
                 earlier time. `ftship promote` here goes on with what this side holds; `ftship resolve --discard-mine` here \
                 gives that up for what the peer has",
                mine.last_epoch
            ),
            Relation::SplitBrain { fork } => format!(
                "split brain: both sides went on behind epoch {fork}; the peer is the {theirs}, this side the {mine}: \
                 `ftship resolve --discard-mine` on the side whose history is to be thrown away"
            ),
        };
        Err((RefuseCode::SplitBrain, text))
    }

    /// Where this side stands, for the other.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let is_primary = self.state.role == Role::Primary;
        self.state.standing(if is_primary { self.promoted_at() } else { self.committed })
    }

    fn check_phase(&self) -> Result<(), (RefuseCode, String)> {
        match &self.phase {
            Phase::Promoted | Phase::Promoting(PromoteStep::Releasing) => {
                let generation = self.state.lineage.last().map_or(0, |entry| entry.generation.number);
                let text = format!("this side was promoted and is the primary of generation {generation}");
                Err((RefuseCode::Promoted, text))
            }
            Phase::Promoting(_) => Err((RefuseCode::Busy, "this side is being promoted: ask again".into())),
            Phase::Copying(_) => Err((RefuseCode::Busy, "an earlier full sync is still winding up".into())),
            _ if self.state.role == Role::Primary => {
                Err((RefuseCode::Promoted, "this side is a primary".into()))
            }
            _ => Ok(()),
        }
    }

    fn check_volumes(&self, hello: &Hello) -> Result<(), (RefuseCode, String)> {
        if *hello.group.name() != self.config.group {
            let text =
                format!("the peer's group is {}, this one is {}", hello.group.name(), self.config.group);
            return Err((RefuseCode::Group, text));
        }
        let mismatch = |text: String| Err((RefuseCode::VolumeMismatch, text));
        if hello.group.volumes().len() != self.config.volumes.len() {
            return mismatch(format!(
                "the peer has {} volumes, this side {}",
                hello.group.volumes().len(),
                self.config.volumes.len()
            ));
        }
        for (index, (theirs, mine)) in hello.group.volumes().iter().zip(&self.config.volumes).enumerate() {
            if let Err(unfit) = theirs.fits(*mine) {
                return mismatch(format!("volume {index} of this host: {unfit}"));
            }
        }
        match self.state.group.as_ref().and_then(|known| known.mismatch(&hello.group)) {
            Some(what) => mismatch(format!("this backup holds another volume: {what}")),
            None => self.check_sizes(&hello.group).or_else(mismatch),
        }
    }

    /// The highest epoch number that this side ever saw sealed; new ones go above it.
    pub(super) fn highest_epoch(&self) -> Epoch {
        self.journal.floor().max(self.applied).max(self.state.highest_epoch_seen)
    }
}
