//! The event loop of a daemon: sockets, control clients, signals, timers, and what lanes report.
//!
//! Always holds: the loop never blocks outside `poll`; everything that may block (disks, cuts,
//! compression) runs on threads of its own that report over channels and wake the loop.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::event::Event;
use mio::{Events, Poll, Registry, Token};

use crate::config::Config;
use crate::control::server::{ClientId, ControlServer};
use crate::control::{Request, Response};
use crate::runtime::tokens::{CONTROL, FIRST_ARRIVAL, FIRST_CLIENT, LISTENER, PEER, VISITOR, WAKER};
use crate::runtime::wake::LoopWaker;

/// Who asks for what is done before the end: nobody on the control socket.
const LAST_CLIENT: ClientId = ClientId(usize::MAX);

/// What a role does with what the loop brings. No method may block.
pub trait Driver {
    /// When [`Self::run`] is due at the latest.
    fn timeout(&self) -> Option<Duration>;
    /// Something happened on [`LISTENER`], [`PEER`], [`VISITOR`] or a connection in front of the door.
    fn socket_event(&mut self, now: Duration, event: &Event);
    /// A client asks; the answer may come at once or later, from [`Self::answers`].
    fn request(&mut self, now: Duration, client: ClientId, request: Request);
    /// Takes what lanes reported and what time brought, and does what follows from it.
    fn run(&mut self, now: Duration);
    /// Whether the role has ended and every answer was given: the daemon goes on in another one.
    fn is_over(&self) -> bool;
    /// Whether it does nothing any more because something failed: a new beginning, from what the disks say, may help.
    fn has_failed(&self) -> bool {
        false
    }
    /// How it stands, in a few words for people.
    fn summary(&self, now: Duration) -> String;
    /// Takes over from a configuration what can change while the daemon runs; all else is as it was.
    fn reload(&mut self, now: Duration, config: &Config);
    /// The answers that are ready.
    fn answers(&mut self) -> Vec<(ClientId, Response)>;
    /// Ends everything that was started; may take as long as the operation under way.
    fn stop(self: Box<Self>);
}

/// `primary: degraded: not connected`
#[must_use]
pub fn summary(role: &str, (state, reason): (&'static str, Option<String>)) -> String {
    reason.map_or_else(|| format!("{role}: {state}"), |reason| format!("{role}: {state}: {reason}"))
}

/// What the loop is run for.
pub trait Service {
    /// The driver of the role that the durable state says.
    ///
    /// # Errors
    /// When the role cannot begin.
    fn role(&mut self, reactor: &Reactor) -> anyhow::Result<Box<dyn Driver>>;
    /// The driver that stands in for a role that failed and cannot begin again, until it can.
    fn stranded(&mut self, error: &anyhow::Error) -> Box<dyn Driver>;
    /// The first role has begun and commands are taken.
    fn begun(&mut self, driver: &dyn Driver);
    /// Whether the end was asked for: what is asked of the driver then, and how long it may take at most.
    fn last_request(&mut self) -> Option<(Request, Duration)>;
    /// Whether a reload was asked for otherwise than by a command, since this was asked last.
    fn wants_reload(&mut self) -> bool;
    /// Reads the configuration again.
    fn reload(&mut self, now: Duration, driver: &mut dyn Driver) -> Response;
    /// Tells whoever supervises the daemon; returns when that is due again.
    fn supervise(&mut self, now: Duration, driver: &dyn Driver) -> Option<Duration>;
}

/// The wait before a role that failed is begun again: it doubles from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(30);
const LAST_RETRY: Duration = Duration::from_secs(600);

/// When a role that failed is begun again.
#[derive(Debug)]
struct Retry {
    wait: Duration,
    at: Option<Duration>,
    /// Since when nothing has failed.
    sound_since: Duration,
}

impl Retry {
    fn new() -> Self {
        Self { wait: FIRST_RETRY, at: None, sound_since: Duration::ZERO }
    }

    /// Takes in whether the role has failed. Returns whether it is to begin again.
    fn is_due(&mut self, now: Duration, has_failed: bool) -> bool {
        match self.at {
            None if has_failed => {
                // What fails again at once is not to be hurried; what held for long begins afresh.
                if now.saturating_sub(self.sound_since) > LAST_RETRY {
                    self.wait = FIRST_RETRY;
                }
                self.at = Some(now + self.wait);
                self.wait = (self.wait * 2).min(LAST_RETRY);
                false
            }
            None => false,
            Some(_) if !has_failed => {
                (self.at, self.sound_since) = (None, now);
                false
            }
            Some(at) => {
                let is_due = at <= now;
                if is_due {
                    (self.at, self.sound_since) = (None, now);
                }
                is_due
            }
        }
    }
}

/// Hands lanes a way to report to the loop.
#[derive(Debug)]
pub struct Reports<T> {
    sender: Sender<T>,
    waker: Arc<LoopWaker>,
}

impl<T> Clone for Reports<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<T> Reports<T> {
    /// A channel whose sending end wakes the loop.
    #[must_use]
    pub fn channel(waker: &Arc<LoopWaker>) -> (Self, Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (Self { sender, waker: Arc::clone(waker) }, receiver)
    }

    /// Reports. Once the loop has ended there is nobody left to tell.
    pub fn send(&self, report: T) {
        if self.sender.send(report).is_ok() {
            self.wake();
        }
    }

    /// Wakes the loop without a report.
    pub fn wake(&self) {
        self.waker.wake();
    }
}

/// The loop before it runs: what drivers need to set themselves up.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    waker: Arc<LoopWaker>,
    start: Instant,
}

impl Reactor {
    /// A loop with nothing in it.
    ///
    /// # Errors
    /// When the kernel gives no descriptors.
    pub fn new() -> anyhow::Result<Self> {
        let poll = Poll::new().context("making the event loop")?;
        let waker = Arc::new(LoopWaker::new(poll.registry())?);
        Ok(Self { poll, waker, start: Instant::now() })
    }

    /// Where sockets are registered.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn registry(&self) -> anyhow::Result<Registry> {
        self.poll.registry().try_clone().context("sharing the event loop")
    }

    /// Wakes the loop.
    #[must_use]
    pub fn waker(&self) -> &Arc<LoopWaker> {
        &self.waker
    }

    /// Runs one role after the other until the service is to end. The users of the system's group `readers` may ask how
    /// things stand.
    ///
    /// # Errors
    /// When polling fails, the control socket cannot be made, or a role cannot begin.
    pub fn run(
        mut self,
        group: &str,
        readers: Option<&str>,
        service: &mut dyn Service,
    ) -> anyhow::Result<()> {
        let mut driver = service.role(&self)?;
        let registry = self.registry()?;
        let mut control = ControlServer::bind(group, readers, &registry, CONTROL, FIRST_CLIENT)
            .with_context(|| format!("control socket of group {group}"))?;
        let mut events = Events::with_capacity(256);
        service.begun(&*driver);
        let mut ending = None;
        let mut has_ended = false;
        let mut retry = Retry::new();
        while !has_ended {
            let now = self.start.elapsed();
            if ending.is_none()
                && let Some((last, patience)) = service.last_request()
            {
                ending = Some(now + patience);
                driver.request(now, LAST_CLIENT, last);
            }
            if service.wants_reload() {
                service.reload(now, &mut *driver);
            }
            driver.run(now);
            for (client, answer) in driver.answers() {
                has_ended |= client == LAST_CLIENT;
                control.answer(client, &answer);
            }
            has_ended |= ending.is_some_and(|at| at <= now);
            let is_retry = retry.is_due(now, driver.has_failed());
            if (driver.is_over() || is_retry) && ending.is_none() {
                // Ended first: both want the same devices.
                driver.stop();
                driver = match service.role(&self) {
                    Err(error) if is_retry => service.stranded(&error),
                    result => result?,
                };
                continue;
            }
            if has_ended {
                break;
            }
            let dues = [driver.timeout(), service.supervise(now, &*driver), ending, retry.at];
            let timeout = dues.into_iter().flatten().min().map(|at| at.saturating_sub(self.start.elapsed()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                result => result.context("waiting for events")?,
            }
            self.waker.looks();
            let now = self.start.elapsed();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER | PEER | VISITOR => driver.socket_event(now, event),
                    CONTROL => control.accept(&registry),
                    Token(FIRST_ARRIVAL..FIRST_CLIENT) => driver.socket_event(now, event),
                    Token(client) => {
                        let client = ClientId(client);
                        match control.ready(client, event.is_write_closed()) {
                            Some(Request::Reload) => {
                                control.answer(client, &service.reload(now, &mut *driver));
                            }
                            Some(request) => driver.request(now, client, request),
                            None => {}
                        }
                    }
                }
            }
        }
        drop(control);
        driver.stop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_begins_again_later_and_later_and_afresh_after_a_long_time() {
        let mut retry = Retry::new();
        let second = Duration::from_secs(1);
        assert!(!retry.is_due(second, false));
        assert!(!retry.is_due(2 * second, true));
        let mut now = 2 * second;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let at = retry.at.expect("it is due some time");
            waits.push((at - now).as_secs());
            assert!(!retry.is_due(at - second, true) && retry.is_due(at, true));
            // It fails again at once.
            now = at;
            assert!(!retry.is_due(now, true));
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);
        // It holds for a while.
        let at = retry.at.unwrap();
        assert!(retry.is_due(at, true) && !retry.is_due(at + second, false));
        let later = at + LAST_RETRY + 2 * second;
        assert!(!retry.is_due(later, true));
        assert_eq!(retry.at, Some(later + FIRST_RETRY));
    }
}
