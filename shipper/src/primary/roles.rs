//! Changes of a primary's role: who uses the volumes, and what operators ask for.
//!
//! Always holds: nobody is told that roles are exchanged before it was looked, behind the last epoch, that nothing was
//! written since; the state machine decides everything else.

use std::time::Duration;

use ftship_proto::primary::{PrimaryEvent, Until};

use super::PrimaryDriver;
use crate::control::Response;
use crate::control::server::ClientId;

/// How often it is looked who uses the volumes, while that matters.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl PrimaryDriver {
    /// Looks who uses the volumes, when it is time.
    pub(super) fn look(&mut self, now: Duration) {
        if self.core.wants_usage() && self.look_at <= now {
            self.look_at = now + LOOK_INTERVAL;
            self.core.handle(now, PrimaryEvent::Used(self.usage.look()));
            self.act(now);
        }
    }

    /// Goes on with what is here, though another was promoted over it.
    pub(super) fn take_up(&mut self, now: Duration, client: ClientId) {
        let mut generation = [0; 16];
        if let Err(error) = getrandom::fill(&mut generation) {
            let reason = format!("no random generation id: {error}");
            return self.answers.push((client, Response::Failed { reason }));
        }
        self.waiting.push(client);
        self.core.handle(now, PrimaryEvent::TakeUp { id: client.0 as u64, generation });
    }

    /// Exchanges the roles: a last epoch first, which the backup has to commit.
    pub(super) fn switch(&mut self, now: Duration, client: ClientId) {
        let usage = self.usage.look();
        if usage.open || self.switching.is_some() {
            let reason = "the volume is in use, or a switch is under way: stop the VM first".into();
            return self.answers.push((client, Response::Refused { reason }));
        }
        self.switching = Some((client, self.usage.writes()));
        self.waiting.push(client);
        let (id, until) = (client.0 as u64, Until::Committed);
        self.core.handle(now, PrimaryEvent::Checkpoint { id, until });
    }

    /// The last epoch is committed: hands over, if nothing was written behind it.
    pub(super) fn hand_over(&mut self, now: Duration) {
        let Some((client, writes)) = self.switching.take() else { return };
        let mut generation = [0; 16];
        let id = client.0 as u64;
        if let Err(error) = getrandom::fill(&mut generation) {
            return self.answer(id, Response::Failed { reason: format!("no random generation id: {error}") });
        }
        let usage = self.usage.look();
        if usage.open || writes.is_none() || self.usage.writes() != writes {
            let reason = "the volume was written to meanwhile: stop the VM first".into();
            return self.answer(id, Response::Refused { reason });
        }
        self.core.handle(now, PrimaryEvent::Used(usage));
        self.core.handle(now, PrimaryEvent::Switch { id, generation });
    }

    /// Steps down, where nobody uses the volumes at this moment.
    pub(super) fn demote(&mut self, now: Duration, client: ClientId, discard: bool) {
        self.waiting.push(client);
        self.core.handle(now, PrimaryEvent::Used(self.usage.look()));
        self.core.handle(now, PrimaryEvent::Demote { id: client.0 as u64, discard });
    }
}
