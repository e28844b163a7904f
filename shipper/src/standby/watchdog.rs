//! The watchdog of a group: a process of its own that brings the volumes back onto dm-era when the
//! primary's daemon stops proving that it makes progress.
//!
//! The daemon's cut thread connects to `/run/ftdm/GROUP.watchdog`, is greeted with one byte once the
//! watchdog is ready, and then writes one byte per beat: its [`Phase`]. How long a silence may last
//! depends on the phase that was heard last. A connection that ends without a goodbye is a daemon that
//! was killed. A daemon that is giving its volumes up to the other side ([`Phase::Yielding`]) is answered, and then its
//! volumes are shut rather than brought back: what they hold back must not be written here any more.
//!
//! Always holds: what acting needs was opened before the daemon was greeted, and the whole process stays
//! in memory; a new daemon is greeted only after the last one's leftovers are gone, so that the two never
//! work on one stack at a time; a stack that only tracks is left alone, and so is one that was shut: the other side may
//! be the primary by now.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::ioctl::{Urgency, enter_io_path, set_urgency};
use ftdm::pause::pulse::Phase;
use ftdm::stack::{Rescue, Stack};

use crate::config::{Config, Volume, Watchdog as Settings};
use crate::control::DIRECTORY;
use crate::runtime::supervisor::{Supervisor, is_supervised};

/// The greeting, and the version of what follows it.
pub const GREETING: u8 = 2;
/// Said to each beat of [`Phase::Yielding`], once nothing of an earlier phase will be done any more.
pub const HEARD: u8 = b'y';
/// A daemon that ends as it should says so.
pub const GOODBYE: u8 = b'b';
/// Time between two looks. Beats wake nobody: on a small machine that would cost more than the cut.
const LOOK: Duration = Duration::from_millis(50);
/// Above the cut thread, which must not be able to keep this process from running.
const PRIORITY: u8 = 20;
/// What the kernel's memory killer is told: this process last.
const OOM_SCORE: &str = "-1000";

/// The socket of a group's watchdog.
#[must_use]
pub fn socket_path(group: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(format!("{group}.watchdog"))
}

/// A phase as a beat.
#[must_use]
pub const fn beat_of(phase: Phase) -> u8 {
    match phase {
        Phase::Tracking => b't',
        Phase::Capturing => b'c',
        Phase::Paused => b'p',
        Phase::Held => b'h',
        Phase::Renewed => b'r',
        Phase::Yielding => b'y',
    }
}

/// The phase of a beat. `None`: not a beat of this version.
#[must_use]
pub const fn phase_of(beat: u8) -> Option<Phase> {
    match beat {
        b't' => Some(Phase::Tracking),
        b'c' => Some(Phase::Capturing),
        b'p' => Some(Phase::Paused),
        b'h' => Some(Phase::Held),
        b'r' => Some(Phase::Renewed),
        b'y' => Some(Phase::Yielding),
        _ => None,
    }
}

/// Watches over the daemon of a group. One that was started by the daemon (`[watchdog] spawn`) ends with
/// it; any other, as that of a service manager, goes on and waits for the next.
///
/// # Errors
/// When another watchdog serves the group, the stack does not exist, or memory cannot be locked.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let group = config.group.as_str();
    let listener = listen(group).with_context(|| format!("watchdog of group {group}"))?;
    enter_io_path().context("locking memory")?;
    if let Err(error) = set_urgency(Urgency::RealTime(PRIORITY)) {
        log::warn!("watchdog: no real-time priority: {error}");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        log::warn!("watchdog: the kernel may end it when memory is short: {error}");
    }
    log::info!("watchdog of group {group}: ready");
    Supervisor::from_environment().ready("stands by");
    let result = serve(config, &listener);
    // Before the listener is closed: whoever finds no listener makes a new socket.
    if let Err(error) = std::fs::remove_file(socket_path(group)) {
        log::warn!("{}: {error}", socket_path(group).display());
    }
    log::info!("watchdog of group {group}: ended");
    result
}

fn listen(group: &str) -> io::Result<UnixListener> {
    std::fs::create_dir_all(DIRECTORY)?;
    let path = socket_path(group);
    if UnixStream::connect(&path).is_ok() {
        let text = format!("another one serves it ({})", path.display());
        return Err(io::Error::new(ErrorKind::AddrInUse, text));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve(config: &Config, listener: &UnixListener) -> anyhow::Result<()> {
    let idle_since = Instant::now();
    let mut served = false;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let prepare = |volume: &Volume| Rescue::prepare(Stack::open(&volume.name)?);
                let rescues = config.volume.iter().map(prepare).collect::<Result<_, _>>()?;
                let mut watched = Watched::new(stream, rescues, config);
                match watched.greet() {
                    Ok(()) => served |= watched.watch(),
                    Err(error) => log::warn!("watchdog: greeting the daemon: {error}"),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("waiting for the daemon"),
        }
        // The one that started this has ended, or never came.
        let is_over = served || idle_since.elapsed() > config.limits.timeout;
        if config.watchdog.spawn && !is_supervised() && is_over {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

/// How a connection stands after a look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Silence,
    Beat(Phase),
    Goodbye,
    Gone,
}

/// A daemon that is watched.
#[derive(Debug)]
struct Watched {
    stream: UnixStream,
    /// One of each volume.
    rescues: Vec<Rescue>,
    group: String,
    settings: Settings,
    phase: Phase,
    /// Counted in looks: time in which this process did not run either is nobody's silence.
    silence: Duration,
    /// The same, since the lease of holding the volume was renewed.
    unrenewed: Duration,
    /// How long that may be.
    lease: Duration,
    looked: Instant,
    /// It has sent a beat.
    began: bool,
    /// Nothing more is to be done until it beats again.
    acted: bool,
}

impl Watched {
    fn new(stream: UnixStream, rescues: Vec<Rescue>, config: &Config) -> Self {
        Self {
            stream,
            rescues,
            group: config.group.to_string(),
            settings: config.watchdog.clone(),
            phase: Phase::Tracking,
            silence: Duration::ZERO,
            unrenewed: Duration::ZERO,
            lease: config.limits.throttle_lease + config.watchdog.pause_timeout,
            looked: Instant::now(),
            began: false,
            acted: false,
        }
    }

    fn greet(&mut self) -> io::Result<()> {
        self.stream.write_all(&[GREETING])?;
        self.stream.set_nonblocking(true)
    }

    /// Watches until the daemon has ended. Returns whether it was one: somebody who only looks whether
    /// there is a watchdog hangs up without a beat.
    fn watch(&mut self) -> bool {
        loop {
            let now = Instant::now();
            let passed = (now - self.looked).min(LOOK * 2);
            self.silence += passed;
            self.unrenewed += passed;
            self.looked = now;
            match self.listen() {
                Heard::Goodbye => return true,
                Heard::Gone if !self.began => return false,
                Heard::Gone => {
                    log::error!("watchdog: the daemon of {} was killed", self.name());
                    self.act();
                    if self.phase != Phase::Yielding {
                        self.clear_up();
                    }
                    return true;
                }
                Heard::Beat(phase) => {
                    self.began = true;
                    if self.acted {
                        log::warn!("watchdog: the daemon of {} goes on", self.name());
                    }
                    (self.phase, self.silence, self.acted) = (phase, Duration::ZERO, false);
                    if phase == Phase::Yielding
                        && let Err(error) = self.stream.write_all(&[HEARD])
                    {
                        log::warn!("watchdog: answering the daemon: {error}");
                    }
                    if phase == Phase::Held && self.unrenewed > self.lease {
                        log::error!("watchdog: {} is held for longer than its lease", self.name());
                        self.act();
                    }
                }
                Heard::Silence => {
                    if !self.acted && self.is_due() {
                        log::error!(
                            "watchdog: the daemon of {} stopped {:?} ago ({:?})",
                            self.name(),
                            self.silence,
                            self.phase
                        );
                        self.act();
                    }
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    fn name(&self) -> &str {
        &self.group
    }

    /// Takes in all beats since the last look; only the last one counts.
    fn listen(&mut self) -> Heard {
        let mut buffer = [0; 256];
        let mut heard = Heard::Silence;
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::Gone,
                Ok(count) if buffer[count - 1] == GOODBYE => return Heard::Goodbye,
                Ok(count) => {
                    if buffer[..count].contains(&beat_of(Phase::Renewed)) {
                        self.unrenewed = Duration::ZERO;
                    }
                    heard = Heard::Beat(phase_of(buffer[count - 1]).unwrap_or(Phase::Capturing));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return heard,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Heard::Gone,
            }
        }
    }

    /// Whether the silence has lasted too long.
    fn is_due(&mut self) -> bool {
        match due(self.phase, self.silence, &self.settings) {
            Due::Never | Due::Later => false,
            Due::Now => true,
            // Draining takes as long as the disk does, and holds nobody back who would not wait anyway.
            Due::IfSuspended => self.rescues.iter_mut().any(|rescue| rescue.is_suspended().unwrap_or(true)),
        }
    }

    /// Brings every volume back, then lets go what only costs memory.
    fn act(&mut self) {
        self.acted = true;
        for rescue in &mut self.rescues {
            if self.phase == Phase::Yielding {
                shut(rescue);
            } else {
                bring_back(rescue);
            }
        }
        for rescue in &mut self.rescues {
            if let Err(error) = rescue.release_log() {
                log::warn!("watchdog: {}: flushing the log: {error}", rescue.stack().name());
            }
        }
    }

    /// Removes what a daemon left that has ended.
    fn clear_up(&self) {
        for stack in self.rescues.iter().map(Rescue::stack) {
            match stack.clear_up() {
                Ok(found) => log::debug!("watchdog: {}: cleared up: {found:?}", stack.name()),
                Err(error) => log::error!("watchdog: {}: clearing up: {error}", stack.name()),
            }
        }
    }
}

fn shut(rescue: &mut Rescue) {
    let done = rescue.shut();
    let name = rescue.stack().name();
    match done {
        Ok(()) => log::warn!("watchdog: {name} was being given up to the other side: it is shut"),
        Err(error) => log::error!("watchdog: {name} could not be shut: {error}"),
    }
}

fn bring_back(rescue: &mut Rescue) {
    let done = rescue.act();
    let name = rescue.stack().name();
    match done {
        Ok(done) => log::warn!(
            "watchdog: {name} runs{} (was suspended: {}), after {:?}",
            if done.moved { " on dm-era again" } else { "" },
            done.suspended,
            done.took
        ),
        Err(error) => log::error!("watchdog: {name} could not be brought back: {error}"),
    }
}

/// When a silence is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Never,
    Later,
    IfSuspended,
    Now,
}

fn due(phase: Phase, silence: Duration, settings: &Settings) -> Due {
    let limit = match phase {
        Phase::Tracking => return Due::Never,
        Phase::Capturing => settings.timeout,
        Phase::Paused if silence <= settings.pause_timeout => return Due::Later,
        Phase::Paused if silence <= settings.timeout => return Due::IfSuspended,
        Phase::Paused => return Due::Now,
        // Nothing that takes long is done here; how long it lasts in all is the lease's.
        Phase::Held | Phase::Renewed | Phase::Yielding => settings.pause_timeout,
    };
    if silence > limit { Due::Now } else { Due::Later }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_a_beat_of_its_own() {
        use Phase::{Capturing, Held, Paused, Renewed, Tracking, Yielding};
        for phase in [Tracking, Capturing, Paused, Held, Renewed, Yielding] {
            assert_eq!(phase_of(beat_of(phase)), Some(phase));
            assert_ne!(beat_of(phase), GOODBYE);
        }
        assert_eq!(phase_of(GOODBYE), None);
    }

    #[test]
    fn a_pause_is_ended_sooner_than_a_capture_and_tracking_never() {
        let settings = Settings::default();
        let (pause, capture) = (settings.pause_timeout, settings.timeout);
        let tick = Duration::from_millis(1);
        assert_eq!(due(Phase::Tracking, Duration::from_secs(3600), &settings), Due::Never);
        assert_eq!(due(Phase::Paused, pause, &settings), Due::Later);
        assert_eq!(due(Phase::Paused, pause + tick, &settings), Due::IfSuspended);
        assert_eq!(due(Phase::Paused, capture + tick, &settings), Due::Now);
        assert_eq!(due(Phase::Capturing, pause + tick, &settings), Due::Later);
        assert_eq!(due(Phase::Capturing, capture + tick, &settings), Due::Now);
        assert_eq!(due(Phase::Held, pause + tick, &settings), Due::Now);
        assert_eq!(due(Phase::Yielding, pause + tick, &settings), Due::Now);
    }
}
