//! Changes of a primary's role: who uses the volumes, and what operators ask for.
//!
//! Always holds: it is looked who uses the volumes at the moment of asking; the state machine decides everything else.

use std::time::Duration;

use ftship_proto::primary::{DemoteRefused, PrimaryEvent};
use ftship_proto::state::Role;

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
    pub(super) fn take_up(&mut self, now: Duration, client: ClientId, token: Option<u64>) {
        let mut generation = [0; 16];
        if let Err(error) = getrandom::fill(&mut generation) {
            let reason = format!("no random generation id: {error}");
            return self.clients.answer_at_once(client, Response::Failed { reason });
        }
        self.clients.wait(client);
        self.core.handle(now, PrimaryEvent::TakeUp { id: client.0 as u64, token, generation });
    }

    /// Exchanges the roles; with `stall` also while somebody has the volumes open.
    pub(super) fn switch(&mut self, now: Duration, client: ClientId, stall: bool) {
        let mut generation = [0; 16];
        if let Err(error) = getrandom::fill(&mut generation) {
            let reason = format!("no random generation id: {error}");
            return self.clients.answer_at_once(client, Response::Failed { reason });
        }
        self.clients.wait(client);
        self.core.handle(now, PrimaryEvent::Used(self.usage.look()));
        self.core.handle(now, PrimaryEvent::Switch { id: client.0 as u64, generation, stall });
    }

    /// What whoever asked for a change of the role is told.
    pub(super) fn demoted(&self, result: Result<(), DemoteRefused>) -> Response {
        match (result, self.core.state().role) {
            (Err(failed @ (DemoteRefused::Failed(_) | DemoteRefused::Unknown)), _) => {
                Response::Failed { reason: failed.to_string() }
            }
            (Err(DemoteRefused::Stale(stale)), _) => Response::Stale { reason: stale.to_string() },
            (Err(refused), _) => Response::Refused { reason: refused.to_string() },
            (Ok(()), Role::Primary) => Response::Promoted { epoch: self.core.promoted_at().0 },
            (Ok(()), Role::Backup) => Response::Started,
        }
    }

    /// Steps down, where nobody uses the volumes at this moment.
    pub(super) fn demote(&mut self, now: Duration, client: ClientId, discard: bool) {
        self.clients.wait(client);
        self.core.handle(now, PrimaryEvent::Used(self.usage.look()));
        self.core.handle(now, PrimaryEvent::Demote { id: client.0 as u64, discard });
    }
}
