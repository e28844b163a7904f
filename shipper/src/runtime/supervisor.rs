//! The one door to whoever supervises the daemon: systemd's notification protocol (sd_notify(3)), a datagram of
//! `KEY=VALUE` lines.
//!
//! Always holds: nobody waits for it. Without a supervisor nothing is said; what cannot be said is dropped.
//! A value is one line: whichever characters it holds, it begins no assignment of its own.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use ftship_proto::text::one_line;

/// Whether this process was started by a service manager: what it starts would end with it, so that other
/// processes of the group are the manager's to start.
#[must_use]
pub fn is_supervised() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The supervisor, if there is one.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// A sign of life is wanted so often.
    every: Option<Duration>,
    due: Duration,
    /// What it was told last.
    status: String,
}

impl Supervisor {
    /// The one that the environment names.
    #[must_use]
    pub fn from_environment() -> Self {
        let path = std::env::var("NOTIFY_SOCKET").ok();
        let socket = path.as_deref().and_then(|path| {
            connect(path).map_err(|error| log::warn!("the supervisor's socket {path}: {error}")).ok()
        });
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        // Twice as often as it must be, as is the custom.
        let every = number("WATCHDOG_USEC").filter(|_| is_mine).map(|us| Duration::from_micros(us / 2));
        Self { socket, every, ..Self::default() }
    }

    /// The service has begun.
    pub fn ready(&mut self, status: &str) {
        status.clone_into(&mut self.status);
        self.say(&[("READY", "1"), ("STATUS", status)]);
    }

    /// Somebody else has said how things stand, see [`LongWork`]: it is said again.
    pub fn forget(&mut self) {
        self.status.clear();
    }

    /// It is ending.
    pub fn stopping(&self) {
        self.say(&[("STOPPING", "1"), ("STATUS", "commits a last epoch, then ends")]);
    }

    /// A sign of life, when one is due, and how things stand, when that has changed; returns when the next is due.
    pub fn live(&mut self, now: Duration, status: impl FnOnce() -> String) -> Option<Duration> {
        self.socket.as_ref()?;
        let status = status();
        if status != self.status {
            self.say(&[("STATUS", &status)]);
            self.status = status;
        }
        let every = self.every?;
        if now >= self.due {
            self.say(&[("WATCHDOG", "1")]);
            self.due = now + every;
        }
        Some(self.due)
    }

    fn say(&self, values: &[(&str, &str)]) {
        let lines: Vec<_> = values.iter().map(|(key, value)| format!("{key}={}", one_line(value))).collect();
        let text = lines.join("\n");
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            log::debug!("telling the supervisor: {error}");
        }
    }
}

/// Work before a role begins that takes as long as it takes. The time for a start is for a daemon that hangs: for one that
/// gets on it is extended.
#[derive(Debug)]
pub struct LongWork {
    supervisor: Supervisor,
    said: Instant,
    logged: Instant,
}

/// How often it is said how far the work is, and logged.
const SAID_EVERY: Duration = Duration::from_secs(1);
const LOGGED_EVERY: Duration = Duration::from_secs(30);
/// How long the work may take to get on.
const EXTENSION: Duration = Duration::from_secs(90);

impl LongWork {
    /// Nothing is said of work that is done at once.
    #[must_use]
    pub fn begin() -> Self {
        Self::begin_for(Supervisor::from_environment(), Instant::now())
    }

    fn begin_for(supervisor: Supervisor, now: Instant) -> Self {
        Self { supervisor, said: now, logged: now }
    }

    /// It gets on: says how far it is, when that is due.
    pub fn goes_on(&mut self, how_far: impl FnOnce() -> String) {
        self.goes_on_at(Instant::now(), how_far);
    }

    fn goes_on_at(&mut self, now: Instant, how_far: impl FnOnce() -> String) {
        if now.duration_since(self.said) < SAID_EVERY {
            return;
        }
        self.said = now;
        let (status, extension) = (how_far(), EXTENSION.as_micros().to_string());
        let values = [("EXTEND_TIMEOUT_USEC", &*extension), ("WATCHDOG", "1"), ("STATUS", &status)];
        self.supervisor.say(&values);
        if now.duration_since(self.logged) >= LOGGED_EVERY {
            self.logged = now;
            log::info!("{status}");
        }
    }
}

/// A path, or behind an `@` a name in the abstract namespace.
fn connect(path: &str) -> std::io::Result<UnixDatagram> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A supervisor that wants signs of life so often, and what it hears.
    fn pair(every: Option<Duration>) -> (Supervisor, impl Fn() -> Option<String>) {
        let (socket, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let heard = move || {
            let mut buffer = [0; 256];
            theirs.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
        };
        (Supervisor { socket: Some(socket), every, ..Supervisor::default() }, heard)
    }

    #[test]
    fn it_hears_what_changes_and_signs_of_life_in_time() {
        let ms = Duration::from_millis;
        let (mut supervisor, heard) = pair(Some(ms(100)));
        supervisor.ready("syncing");
        assert_eq!(heard().unwrap(), "READY=1\nSTATUS=syncing");
        assert_eq!(supervisor.live(ms(5), || "syncing".into()), Some(ms(105)));
        assert_eq!((heard().unwrap(), heard()), ("WATCHDOG=1".into(), None));
        supervisor.live(ms(50), || "in sync".into());
        assert_eq!((heard().unwrap(), heard()), ("STATUS=in sync".into(), None));
        supervisor.live(ms(105), || "in sync".into());
        assert_eq!((heard().unwrap(), heard()), ("WATCHDOG=1".into(), None));
    }

    #[test]
    fn a_status_of_several_lines_says_nothing_but_a_status() {
        let (mut supervisor, heard) = pair(None);
        supervisor.ready("syncing\nMAINPID=1");
        assert_eq!(heard().unwrap(), "READY=1\nSTATUS=syncing MAINPID=1");
        let status = "the peer said: x\nWATCHDOG=trigger\r\u{2028}";
        supervisor.live(Duration::ZERO, || status.into());
        assert_eq!(heard().unwrap(), "STATUS=the peer said: x WATCHDOG=trigger  ");
        supervisor.live(Duration::ZERO, || status.into());
        assert_eq!(heard(), None, "the same again");
    }

    #[test]
    fn work_that_gets_on_has_more_time_and_says_how_far_it_is() {
        let (supervisor, heard) = pair(None);
        let begun = Instant::now();
        let mut work = LongWork::begin_for(supervisor, begun);
        work.goes_on_at(begun + SAID_EVERY / 2, || panic!("it is not due"));
        work.goes_on_at(begun + SAID_EVERY, || "half".into());
        assert_eq!(heard().unwrap(), "EXTEND_TIMEOUT_USEC=90000000\nWATCHDOG=1\nSTATUS=half");
        work.goes_on_at(begun + SAID_EVERY, || panic!("it was said"));
        assert_eq!(heard(), None);
    }

    #[test]
    fn nobody_is_told_anything_where_there_is_none() {
        let mut nobody = Supervisor::default();
        nobody.ready("x");
        assert_eq!(nobody.live(Duration::ZERO, || panic!("asked")), None);
    }
}
