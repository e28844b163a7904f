//! Answering what the volumes hold: at once, or when exactly one epoch is on them.
//!
//! Always holds: an answer about an epoch is of what the volumes hold with that epoch and none after it: no pass goes
//! beyond an epoch that somebody asked about, and the volumes are hashed behind that pass, in the volume lane's order.
//! The lane has at most [`MAX_HASHINGS`] before it. Nothing durable comes of a question; with the connection it is forgotten, also where it is being answered: the next
//! primary numbers its questions as it likes.

use std::time::Duration;

use super::phase::CopyStep;
use super::{Backup, BackupAction, Link, Phase, Sealed};
use crate::ids::Epoch;
use crate::message::Message;
use crate::mutant::{self, Mutant};
use crate::verify::{DigestLength, Digests, HashRequest};

/// Most questions that wait for their epoch.
const MAX_QUESTIONS: usize = 16;
/// Most hashings that the lane has before it, each of at most [`MAX_HASHED`](crate::verify::MAX_HASHED). A primary has
/// fewer questions open.
const MAX_HASHINGS: u32 = 32;

/// Hashings that were ordered and are not done; the lane does them in this order.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    /// Asked for over connections that have ended: the first of all.
    of_others: u32,
    /// Over the present one.
    asked: u32,
}

impl Backup {
    pub(super) fn question(&mut self, now: Duration, request: HashRequest) -> Result<(), String> {
        let Link::Up { peer, .. } = &self.link else { return Ok(()) };
        let is_agreed = match request.length {
            DigestLength::Whole => peer.knows_verify,
            DigestLength::Short => peer.knows_compare,
        };
        if !is_agreed {
            return Err("a question about the volumes, which was not agreed on".into());
        }
        request.check(&peer.group)?;
        let token = request.token;
        let is_rewritten = self.phase.copying() == Some(CopyStep::Base) && request.epoch.is_none();
        let passed = self.passed();
        if !matches!(self.phase, Phase::Consistent) && !is_rewritten {
            self.cannot_tell(token, "the volumes are being rewritten");
        } else if request.epoch.is_none() || request.epoch == passed || mutant::is(Mutant::HashAtAnyEpoch) {
            // Behind whatever was ordered before, in the lane's order; nothing goes beyond that epoch in front of it.
            if self.hashing.asked >= MAX_HASHINGS {
                return Err("too many questions at a time".into());
            }
            self.hash(request);
        } else if request.epoch < passed {
            self.cannot_tell(token, "that epoch is past");
        } else if self.questions.len() >= MAX_QUESTIONS {
            return Err("too many questions at a time".into());
        } else {
            self.questions.push(request);
            self.schedule_apply(now);
        }
        Ok(())
    }

    /// The last epoch that is on the volumes, or on its way there.
    fn passed(&self) -> Epoch {
        self.apply.under_way().map_or(self.applied, |last| last.epoch)
    }

    /// Whether an epoch may be applied that somebody waits for.
    pub(super) fn is_asked(&self) -> bool {
        let is_asked = |sealed: &Sealed| self.questions.iter().any(|request| request.epoch <= sealed.epoch);
        !self.questions.is_empty()
            && self.sealed.iter().take_while(|sealed| self.is_applicable(sealed)).any(is_asked)
    }

    /// The beginning of `epochs`, up to the first that somebody asks about.
    pub(super) fn up_to_question(&self, mut epochs: Vec<Sealed>) -> Vec<Sealed> {
        if let Some(first) = self.questions.iter().map(|request| request.epoch).min() {
            let kept = epochs.iter().take_while(|sealed| sealed.epoch <= first).count();
            // Asked about an epoch that never came: it is answered with the next one, as past.
            epochs.truncate(kept.max(1));
        }
        epochs
    }

    /// Asks what the volumes hold behind the pass that ends with `last`.
    pub(super) fn put_questions(&mut self, last: Epoch) {
        let due = self.questions.extract_if(.., |request| request.epoch <= last).collect::<Vec<_>>();
        for request in due {
            if request.epoch == last {
                self.hash(request);
            } else {
                self.cannot_tell(request.token, "that epoch is not on the volumes by itself");
            }
        }
    }

    fn hash(&mut self, request: HashRequest) {
        if self.hashing.asked + self.hashing.of_others >= MAX_HASHINGS {
            // Connections that have ended left them.
            return self.cannot_tell(request.token, "earlier questions are still being answered");
        }
        self.hashing.asked += 1;
        self.act(BackupAction::HashVolumes(request));
    }

    /// The connection has ended over which they were asked.
    pub(super) fn forget_questions(&mut self) {
        self.questions.clear();
        self.hashing.of_others += std::mem::take(&mut self.hashing.asked);
    }

    pub(super) fn volumes_hashed(&mut self, token: u64, result: Result<Digests, String>) {
        if let Some(left) = self.hashing.of_others.checked_sub(1) {
            self.hashing.of_others = left;
            return;
        }
        self.hashing.asked = self.hashing.asked.saturating_sub(1);
        if let Link::Up { peer, .. } = &self.link
            && (peer.knows_verify || peer.knows_compare)
        {
            self.act(BackupAction::Send(Message::Digests { token, result }));
        }
    }

    fn cannot_tell(&mut self, token: u64, reason: &str) {
        self.act(BackupAction::Send(Message::Digests { token, result: Err(reason.into()) }));
    }
}
