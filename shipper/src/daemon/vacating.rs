//! A side that gave its volumes up while somebody had them open: it waits until nobody has any more, and then becomes
//! the backup that its state says it is.
//!
//! Always holds: all I/O of the volumes fails meanwhile; nothing of a peer is taken.

use std::time::Duration;

use ftdm::stack::Stack;
use ftship_proto::frame::Frame;
use ftship_proto::message::{Message, RefuseCode};
use ftship_proto::state::{Content, DurableState, Role};
use mio::event::Event;

use crate::config::Config;
use crate::control::server::ClientId;
use crate::control::{Request, Response, Status};
use crate::link::door::Door;
use crate::link::visitor::Visitor;
use crate::runtime::reactor::{Driver, Reactor, summary};
use crate::runtime::tokens::VISITOR;
use crate::store::state_file::StateFile;

/// Time between two looks whether somebody has the volumes open.
const LOOK: Duration = Duration::from_millis(500);

/// What it says of itself.
const REASON: &str = "it handed over, and a process still has a volume open whose I/O fails: close it";

/// The volumes of a group, given up and still in use.
#[derive(Debug)]
pub(crate) struct Vacating {
    config: Config,
    /// Locked for as long as this is the daemon.
    state_file: StateFile,
    state: DurableState,
    stacks: Vec<Stack>,
    door: Door,
    visitor: Visitor,
    look_at: Duration,
    is_open: bool,
    answers: Vec<(ClientId, Response)>,
}

impl Vacating {
    /// Whether a daemon gave the volumes up, as the state says, and somebody has one of them open.
    ///
    /// # Errors
    /// When device-mapper cannot be asked.
    pub(crate) fn is_due(config: &Config, state: &DurableState) -> anyhow::Result<bool> {
        if state.role != Role::Backup || !matches!(state.content, Content::Outdated { .. }) {
            return Ok(false);
        }
        let stacks = stacks(config);
        Ok(is_open(&stacks) && is_given_up(&stacks)?)
    }

    /// Shuts the volumes for good.
    ///
    /// # Errors
    /// When a volume cannot be shut, or the address is taken.
    pub(crate) fn begin(
        config: &Config,
        state: DurableState,
        state_file: StateFile,
        reactor: &Reactor,
    ) -> anyhow::Result<Self> {
        let stacks = stacks(config);
        for stack in &stacks {
            stack.shut()?;
        }
        log::warn!("the volumes are given up, and a process still has one of them open: close it");
        Ok(Self {
            config: config.clone(),
            state_file,
            state,
            stacks,
            door: Door::open(config, reactor.registry()?)?,
            visitor: Visitor::new(reactor.registry()?),
            look_at: Duration::ZERO,
            is_open: true,
            answers: Vec::new(),
        })
    }

    fn turn_away(&mut self, visitor: &Frame) {
        let text = "the other side has a volume open that it gave up: close it".to_owned();
        let standing = Some(Box::new(self.state.standing(self.state.highest_epoch_seen)));
        let refusal = Message::Refuse { code: RefuseCode::Busy, text, standing };
        let generation = self.state.generation_number();
        self.visitor.answer(refusal.encode(generation, visitor.header.incarnation));
    }

    fn status(&self) -> Status {
        Status {
            group: self.config.group.to_string(),
            role: self.state.role.to_string(),
            state: "outdated".into(),
            reason: Some(REASON.into()),
            peer: self.config.peer.to_string(),
            generation: self.state.generation_number(),
            commit: self.config.commit,
            ack: Some(self.config.ack),
            warnings: self.state_file.damage().map(str::to_owned).into_iter().collect(),
            ..Status::default()
        }
    }
}

/// Those that are there. What is wrong with another is told by the backup that it is for.
fn stacks(config: &Config) -> Vec<Stack> {
    config.volume.iter().filter_map(|volume| Stack::open(&volume.name).ok()).collect()
}

/// Whether somebody has one of them open; also when that cannot be told.
fn is_open(stacks: &[Stack]) -> bool {
    stacks.iter().any(|stack| stack.info().map_or(true, |info| info.open_count > 0))
}

fn is_given_up(stacks: &[Stack]) -> anyhow::Result<bool> {
    for stack in stacks {
        if stack.is_given_up()? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Driver for Vacating {
    fn timeout(&self) -> Option<Duration> {
        [Some(self.look_at), self.door.timeout(), self.visitor.timeout()].into_iter().flatten().min()
    }

    fn socket_event(&mut self, now: Duration, event: &Event) {
        match event.token() {
            VISITOR => self.visitor.mark_readable(),
            token => self.door.event(now, token),
        }
    }

    fn request(&mut self, _now: Duration, client: ClientId, request: Request) {
        let answer = match request {
            Request::Status => Response::Status(Box::new(self.status())),
            _ => {
                let reason = "this side handed over, and a process still has a volume open: close it first";
                Response::Refused { reason: reason.into() }
            }
        };
        self.answers.push((client, answer));
    }

    fn run(&mut self, now: Duration) {
        while let Some(visitor) = self.door.admitted(now, VISITOR) {
            self.visitor.enters(now, visitor);
        }
        while let Some(frame) = self.visitor.listen(now) {
            self.turn_away(&frame);
        }
        if self.look_at <= now {
            self.look_at = now + LOOK;
            self.is_open = is_open(&self.stacks);
        }
    }

    fn is_over(&self) -> bool {
        !self.is_open
    }

    fn summary(&self, _now: Duration) -> String {
        summary("backup", ("outdated", Some(REASON.into())))
    }

    fn reload(&mut self, _now: Duration, config: &Config) {
        self.config = config.clone();
    }

    fn answers(&mut self) -> Vec<(ClientId, Response)> {
        std::mem::take(&mut self.answers)
    }

    fn stop(self: Box<Self>) {}
}
