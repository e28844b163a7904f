//! A role that failed and cannot begin again: the daemon stays, says why, and tries again.
//!
//! Always holds: no device is open meanwhile, nothing is listened on but the control socket.

use std::time::Duration;

use ftship_proto::state::Role;
use mio::event::Event;

use crate::config::Config;
use crate::control::server::ClientId;
use crate::control::{Request, Response, Status};
use crate::runtime::reactor::{Driver, summary};
use crate::store::state_file::StateFile;

/// See the head of this module.
#[derive(Debug)]
pub(crate) struct Stranded {
    config: Config,
    reason: String,
    /// As far as the state can be read.
    role: Option<Role>,
    generation: u64,
    answers: Vec<(ClientId, Response)>,
}

impl Stranded {
    pub(crate) fn new(config: &Config, reason: String) -> Self {
        let state = StateFile::open_to_read(&config.state).and_then(|mut file| file.read()).ok().flatten();
        Self {
            config: config.clone(),
            reason,
            role: state.as_ref().map(|state| state.role),
            generation: state.as_ref().map_or(0, |state| state.generation_number()),
            answers: Vec::new(),
        }
    }

    fn role(&self) -> String {
        self.role.map_or_else(|| "unknown".to_owned(), |role| role.to_string())
    }

    fn status(&self) -> Status {
        Status {
            group: self.config.group.to_string(),
            role: self.role(),
            state: "failed".into(),
            reason: Some(format!("{}; it is tried again", self.reason)),
            peer: self.config.peer.to_string(),
            generation: self.generation,
            commit: self.config.commit,
            ack: Some(self.config.ack),
            ..Status::default()
        }
    }
}

impl Driver for Stranded {
    fn timeout(&self) -> Option<Duration> {
        None
    }

    fn socket_event(&mut self, _now: Duration, _event: &Event) {}

    fn request(&mut self, _now: Duration, client: ClientId, request: Request) {
        let answer = match request {
            Request::Status => Response::Status(Box::new(self.status())),
            _ => Response::Refused { reason: format!("the daemon has failed: {}", self.reason) },
        };
        self.answers.push((client, answer));
    }

    fn run(&mut self, _now: Duration) {}

    fn is_over(&self) -> bool {
        false
    }

    fn has_failed(&self) -> bool {
        true
    }

    fn summary(&self, _now: Duration) -> String {
        summary(&self.role(), ("failed", Some(self.reason.clone())))
    }

    fn reload(&mut self, _now: Duration, config: &Config) {
        self.config = config.clone();
    }

    fn answers(&mut self) -> Vec<(ClientId, Response)> {
        std::mem::take(&mut self.answers)
    }

    fn stop(self: Box<Self>) {}
}
