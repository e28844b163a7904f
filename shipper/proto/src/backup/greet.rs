//! Meeting and losing the primary: who is let in, and what a lost link leaves behind.
//!
//! Always holds: nothing of a peer is taken before its `Hello` was checked against the group, the
//! volumes and the lineage here; a refused peer changes nothing.

use std::time::Duration;

use super::{Backup, BackupAction, CopyStep, Link, Peer, Phase, phase_of};
use crate::frame::FrameHeader;
use crate::ids::Epoch;
use crate::message::{Hello, Message, RefuseCode, Welcome};
use crate::mutant::{self, Mutant};
use crate::protocol::{FEATURES_KNOWN, PROTOCOL};
use crate::state::Role;

/// Time between two reports to the primary; they also show that this side is alive.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Backup {
    pub(super) fn accepted(&mut self, now: Duration) {
        if !matches!(self.link, Link::Down) {
            self.disconnected();
        }
        self.link = Link::Greeting { deadline: now + self.config.timeout };
    }

    pub(super) fn disconnected(&mut self) {
        self.link = Link::Down;
        self.blocked = None;
        // What has not arrived wholly will never be committed.
        if self.open.take().is_some() && !mutant::is(Mutant::KeepOpenEpoch) {
            self.journal.drop_open();
        }
        if let Phase::Copying(copying) = &self.phase {
            match copying.step {
                // Nothing was overwritten yet.
                CopyStep::Draining => self.phase = phase_of(&self.state),
                // The state that is being written decides.
                CopyStep::Marking | CopyStep::Sealing => {}
                CopyStep::Base | CopyStep::Flushing | CopyStep::Flushed => self.phase = Phase::Inconsistent,
            }
        }
    }

    pub(super) fn close(&mut self, reason: String) {
        if !matches!(self.link, Link::Down) {
            self.disconnected();
            self.act(BackupAction::Close { reason });
        }
    }

    pub(super) fn refuse(&mut self, code: RefuseCode, text: String) {
        let reason = format!("refused the peer: {text}");
        self.act(BackupAction::Send(Message::Refuse { code, text }));
        self.link = Link::Down;
        self.act(BackupAction::Close { reason });
    }

    /// Says goodbye to a greeted peer that broke the protocol, or that cannot be served further.
    pub(super) fn bye(&mut self, text: String) {
        self.act(BackupAction::Send(Message::Bye { text: text.clone() }));
        self.close(text);
    }

    pub(super) fn link_timeout(&mut self, now: Duration) {
        match &mut self.link {
            Link::Greeting { deadline } if *deadline <= now => {
                self.close("the peer did not say hello in time".into());
            }
            // While this side does not read, silence says nothing about the peer.
            Link::Up { heard, .. } if self.blocked.is_none() && *heard + self.config.timeout <= now => {
                self.close(format!("nothing heard from the primary for {:?}", self.config.timeout));
            }
            Link::Up { report_at, .. } if *report_at <= now => {
                *report_at = now + REPORT_INTERVAL;
                self.report();
            }
            _ => {}
        }
    }

    pub(super) fn report(&mut self) {
        let (journal_used, journal_size) = self.journal_use();
        let (committed, applied) = (self.committed, self.applied);
        self.act(BackupAction::Send(Message::Report { committed, applied, journal_used, journal_size }));
    }

    pub(super) fn hello(&mut self, now: Duration, header: &FrameHeader, hello: Hello) {
        if let Err((code, text)) = self.check_hello(&hello) {
            return self.refuse(code, text);
        }
        let welcome = Welcome {
            protocol: PROTOCOL,
            features: 0,
            lineage: self.state.lineage.clone(),
            highest_epoch_seen: self.highest_epoch(),
            committed: self.committed,
            chain_digest: self.digest,
            content: self.state.content,
            role: self.state.role,
        };
        self.act(BackupAction::Send(Message::Welcome(welcome)));
        self.link = Link::Up {
            peer: Peer {
                incarnation: header.incarnation,
                generation: header.generation,
                group: hello.group,
                lineage: hello.lineage,
            },
            heard: now,
            report_at: now + REPORT_INTERVAL,
            replicates: false,
        };
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), (RefuseCode, String)> {
        if !(hello.protocol_min..=hello.protocol_max).contains(&PROTOCOL) {
            let text = format!(
                "the peer speaks protocol {} to {}, this side {PROTOCOL}: update the older side",
                hello.protocol_min, hello.protocol_max
            );
            return Err((RefuseCode::Version, text));
        }
        let unknown = hello.features_mandatory & !FEATURES_KNOWN;
        if unknown != 0 {
            let text = format!("the peer insists on features {unknown:#x}, unknown here: update this side");
            return Err((RefuseCode::Version, text));
        }
        self.check_phase()?;
        self.check_volumes(hello)?;
        let mine = self.state.lineage.last();
        if mine.is_some_and(|mine| !hello.lineage.iter().any(|theirs| theirs.generation == mine.generation)) {
            let text = "what this backup holds does not descend from the peer's history: \
                        format this backup anew if its content may be overwritten"
                .to_owned();
            return Err((RefuseCode::SplitBrain, text));
        }
        Ok(())
    }

    fn check_phase(&self) -> Result<(), (RefuseCode, String)> {
        match &self.phase {
            Phase::Promoted => {
                let generation = self.state.lineage.last().map_or(0, |entry| entry.generation.number);
                let text = format!("this side was promoted and is the primary of generation {generation}");
                Err((RefuseCode::Promoted, text))
            }
            Phase::Promoting(_) => Err((RefuseCode::Promoted, "this side is being promoted".into())),
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
            if theirs.size != mine.size {
                return mismatch(format!(
                    "volume {index} has {} on the peer and {} here: make them equal",
                    theirs.size, mine.size
                ));
            }
            if theirs.logical_block_size < mine.logical_block_size {
                return mismatch(format!(
                    "volume {index} has logical blocks of {} bytes on the peer and {} here",
                    theirs.logical_block_size, mine.logical_block_size
                ));
            }
        }
        match self.state.group.as_ref().and_then(|known| known.mismatch(&hello.group)) {
            Some(what) => mismatch(format!("this backup holds another volume: {what}")),
            None => Ok(()),
        }
    }

    /// The highest epoch number that this side ever saw sealed; new ones go above it.
    pub(super) fn highest_epoch(&self) -> Epoch {
        let sealed = self.sealed.back().map_or(self.applied, |last| last.epoch);
        sealed.max(self.state.highest_epoch_seen)
    }
}
