//! The cut thread's end of the watchdog: starts one where there is none, and sends it beats.
//!
//! Always holds: a beat never blocks; [`Heartbeat::beat`](Pulse::beat) says that somebody stands by only
//! while a watchdog that has greeted holds the other end.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::pause::pulse::{Phase, Pulse};

use crate::config::Config;
use crate::runtime::supervisor::is_supervised;
use crate::standby::watchdog::{GOODBYE, GREETING, HEARD, beat_of, socket_path};

/// Beats of one phase need not be closer than this.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a watchdog may take until it greets.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// How long it may take to answer, and how often that is looked for. It looks every 50 ms itself.
const ANSWER_TIME: Duration = Duration::from_secs(2);
const ANSWER_LOOK: Duration = Duration::from_millis(2);
/// Time between two attempts to find or start one.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Line {
    socket: Option<UnixStream>,
    last: Option<(Phase, Instant)>,
    tried: Option<Instant>,
    child: Option<Child>,
}

/// The line to the watchdog.
#[derive(Debug)]
pub(in crate::primary) struct Heartbeat {
    group: String,
    config: PathBuf,
    spawn: bool,
    line: Mutex<Line>,
}

impl Heartbeat {
    /// Not connected yet.
    pub(in crate::primary) fn new(config: &Config) -> Self {
        Self {
            group: config.group.to_string(),
            config: config.path.clone(),
            // Under a service manager it is a service of its own: what this process starts would end with it.
            spawn: config.watchdog.spawn && !is_supervised(),
            line: Mutex::default(),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that a watchdog stands by, starting one where the configuration says so. Takes as long
    /// as a watchdog needs to start: never to be called in a pause.
    pub(in crate::primary) fn ensure(&self) {
        let mut line = self.line();
        if line.socket.is_some() || line.tried.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        match self.find(&mut line) {
            Ok(socket) => {
                log::info!("a watchdog stands by");
                (line.socket, line.last, line.tried) = (Some(socket), None, None);
            }
            Err(error) => {
                log::error!("no watchdog: {error:#}");
                line.tried = Some(Instant::now());
            }
        }
    }

    fn find(&self, line: &mut Line) -> anyhow::Result<UnixStream> {
        let begun = Instant::now();
        loop {
            match self.connect() {
                Ok(socket) => return Ok(socket),
                Err(error) if !self.spawn => {
                    let text = "start `ftship watchdog`, or set `spawn = true` under [watchdog]";
                    return Err(error).context(text);
                }
                Err(error) if begun.elapsed() > GREETING_TIME => return Err(error),
                Err(_) => {}
            }
            let is_running = match &mut line.child {
                Some(child) => child.try_wait().context("watching the watchdog")?.is_none(),
                None => false,
            };
            if !is_running {
                line.child = Some(self.start()?);
            }
            std::thread::sleep(INTERVAL);
        }
    }

    fn connect(&self) -> anyhow::Result<UnixStream> {
        let path = socket_path(&self.group);
        let mut socket = UnixStream::connect(&path).with_context(|| path.display().to_string())?;
        socket.set_read_timeout(Some(GREETING_TIME)).context("watchdog")?;
        let mut greeting = [0];
        socket.read_exact(&mut greeting).context("the watchdog did not greet")?;
        anyhow::ensure!(
            greeting == [GREETING],
            "the watchdog is of another version ({}): restart it",
            greeting[0]
        );
        socket.set_nonblocking(true).context("watchdog")?;
        Ok(socket)
    }

    /// In a process group of its own: what ends the daemon's must not end the watchdog.
    fn start(&self) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("finding this program")?;
        Command::new(program)
            .arg("watchdog")
            .arg(&self.config)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the watchdog")
    }

    /// Reads what the watchdog has answered. Whether it has heard of yielding.
    fn take_answers(&self) -> bool {
        let mut line = self.line();
        let Line { socket: Some(socket), .. } = &mut *line else { return false };
        let mut answers = [0; 64];
        let mut is_heard = false;
        while let Ok(count @ 1..) = socket.read(&mut answers) {
            is_heard |= answers[..count].contains(&HEARD);
        }
        is_heard
    }

    /// Says that the daemon ends as it should.
    pub(in crate::primary) fn goodbye(&self) {
        if let Some(socket) = &mut self.line().socket
            && let Err(error) = socket.write_all(&[GOODBYE])
        {
            log::warn!("saying goodbye to the watchdog: {error}");
        }
    }
}

impl Pulse for Heartbeat {
    fn beat(&self, phase: Phase) -> bool {
        let mut line = self.line();
        let now = Instant::now();
        let Line { socket: Some(socket), last, .. } = &mut *line else { return false };
        if last.is_some_and(|(sent, at)| sent == phase && now - at < INTERVAL) {
            return true;
        }
        match socket.write(&[beat_of(phase)]) {
            Ok(_) => {
                *last = Some((phase, now));
                true
            }
            // It does not look at what it is sent: it may hang itself.
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                line.socket = None;
                false
            }
        }
    }

    fn beat_heard(&self, phase: Phase) -> bool {
        self.take_answers();
        self.line().last = None;
        if !self.beat(phase) {
            return false;
        }
        let begun = Instant::now();
        while begun.elapsed() < ANSWER_TIME {
            if self.take_answers() {
                return true;
            }
            std::thread::sleep(ANSWER_LOOK);
        }
        false
    }
}
