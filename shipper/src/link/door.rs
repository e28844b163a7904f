//! The one door of a daemon, in either role: who knocks is let in to a role only after it has proven who it is.
//!
//! Always holds: at most [`ARRIVALS`] stand in front of it, each for a bounded time and with bounded memory; whoever
//! comes from the configured peer's address is not kept out by others; what is turned away costs one line of the log
//! for each address and minute, and touches nothing that stands.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::config::{Config, Protection};
use crate::link::host::{HostAddress, Whereabouts};
use crate::link::peer::PeerConnection;
use crate::link::tls::Credentials;
use crate::runtime::tokens::{ARRIVALS, FIRST_ARRIVAL, LISTENER};

/// Accepted in one turn of the loop at most, so that a crowd does not hold up what stands.
const ACCEPTED_PER_TURN: usize = 8;
/// Longest handshake, however long the peer's time-out.
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);
/// Handshakes with others than the peer's address in [`SPELL`]: each costs a processor a fraction of a millisecond.
const STRANGERS_PER_SPELL: u32 = 20;
const SPELL: Duration = Duration::from_secs(1);

/// The listening socket and whoever stands in front of it.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    registry: Registry,
    protection: Option<Credentials>,
    peer: Whereabouts,
    patience: Duration,
    /// By the token's distance from the first.
    arrivals: BTreeMap<usize, Arrival>,
    admitted: VecDeque<PeerConnection>,
    /// The listener may have more than was taken.
    is_crowded: bool,
    strangers: (Duration, u32),
    turned_away: TurnedAway,
}

#[derive(Debug)]
struct Arrival {
    connection: PeerConnection,
    until: Duration,
}

impl Door {
    /// Listens.
    ///
    /// # Errors
    /// When the address is taken, or the keys that the configuration asks for cannot be used.
    pub fn open(config: &Config, registry: Registry) -> anyhow::Result<Self> {
        let protection = match config.tls {
            Protection::Required => Some(Credentials::open(&config.path)?),
            Protection::Off => {
                log::warn!(
                    "tls = \"off\": anyone who reaches {} or the path to {} can read and change what is replicated",
                    config.address,
                    config.peer
                );
                None
            }
        };
        let mut listener =
            listen(&config.address).with_context(|| format!("listening on {}", config.address))?;
        registry.register(&mut listener, LISTENER, Interest::READABLE).context("registering the listener")?;
        Ok(Self {
            listener,
            registry,
            protection,
            peer: Whereabouts::new(&config.peer).context("starting the thread that looks names up")?,
            patience: config.limits.timeout.min(LONGEST_PATIENCE),
            arrivals: BTreeMap::new(),
            admitted: VecDeque::new(),
            is_crowded: false,
            strangers: (Duration::ZERO, 0),
            turned_away: TurnedAway::default(),
        })
    }

    /// Begins a connection to the peer.
    ///
    /// # Errors
    /// When there is no key to show, or no socket.
    pub fn connect(&mut self, now: Duration, peer: SocketAddr, token: Token) -> io::Result<PeerConnection> {
        let session = match &mut self.protection {
            None => None,
            Some(credentials) => Some(credentials.client(now, peer.ip()).map_err(io::Error::other)?),
        };
        PeerConnection::connect(peer, session, &self.registry, token)
    }

    /// Begins to look up where the peer, which has a name, is now. [`Self::found`] has the address.
    pub fn seek(&mut self, now: Duration) {
        self.peer.seek(now);
    }

    /// Where the peer is, once it was found.
    pub fn found(&mut self) -> Option<io::Result<SocketAddr>> {
        self.peer.found()
    }

    /// Nobody wants to know any more where the peer is.
    pub fn give_up(&mut self) {
        self.peer.give_up();
    }

    /// Something happened at the door.
    pub fn event(&mut self, now: Duration, token: Token) {
        if token == LISTENER {
            self.accept(now);
        } else if let Some(at) = token.0.checked_sub(FIRST_ARRIVAL) {
            self.advance(now, at);
        }
    }

    /// The next one who has proven who it is, to be heard under `token`.
    pub fn admitted(&mut self, now: Duration, token: Token) -> Option<PeerConnection> {
        if self.is_crowded {
            self.accept(now);
        }
        self.expire(now);
        self.peer.run(now);
        while let Some(mut connection) = self.admitted.pop_front() {
            match connection.reregister(&self.registry, token) {
                Ok(()) => return Some(connection),
                Err(error) => log::warn!("{}: {error}", connection.peer()),
            }
        }
        None
    }

    /// When [`Self::admitted`] is due at the latest.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let now = self.is_crowded.then_some(Duration::ZERO);
        let expiry = self.arrivals.values().map(|arrival| arrival.until).min();
        now.into_iter().chain(expiry).chain(self.peer.timeout()).min()
    }

    fn accept(&mut self, now: Duration) {
        self.is_crowded = true;
        for _ in 0..ACCEPTED_PER_TURN {
            match self.listener.accept() {
                Ok((stream, address)) => self.arrived(now, stream, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_crowded = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // No descriptor is left, say. The next one who comes tries again.
                Err(error) => {
                    log::warn!("accepting a connection: {error}");
                    self.is_crowded = false;
                    return;
                }
            }
        }
    }

    fn arrived(&mut self, now: Duration, stream: TcpStream, address: SocketAddr) {
        // An IPv4 peer of a listener at `[::]` comes with a mapped address.
        let is_stranger = !self.peer.is_at(address.ip());
        let Some(credentials) = &mut self.protection else {
            let token = Token(FIRST_ARRIVAL);
            match PeerConnection::accepted(stream, address, None, &self.registry, token) {
                Ok(connection) => self.admitted.push_back(connection),
                Err(error) => self.turned_away.say(now, address, &error.to_string()),
            }
            return;
        };
        if is_stranger && !counted(&mut self.strangers, now) {
            return self.turned_away.say(now, address, "more connections come than are looked at");
        }
        let session = match credentials.server(now) {
            Ok(session) => session,
            Err(error) => return self.turned_away.say(now, address, &error.to_string()),
        };
        let Some(at) = self.place(now, is_stranger) else {
            return self.turned_away.say(now, address, "too many are in their handshake");
        };
        let token = Token(FIRST_ARRIVAL + at);
        match PeerConnection::accepted(stream, address, Some(session), &self.registry, token) {
            Ok(connection) => {
                self.arrivals.insert(at, Arrival { connection, until: now + self.patience });
            }
            Err(error) => self.turned_away.say(now, address, &error.to_string()),
        }
    }

    /// A place for one more: a free one, or that of the oldest stranger, or for the peer also the oldest of all.
    fn place(&mut self, now: Duration, is_stranger: bool) -> Option<usize> {
        if let Some(free) = (0..ARRIVALS).find(|at| !self.arrivals.contains_key(at)) {
            return Some(free);
        }
        let oldest = |strangers_only: bool| {
            let eligible = self
                .arrivals
                .iter()
                .filter(|(_, arrival)| !strangers_only || !self.peer.is_at(arrival.connection.peer().ip()));
            eligible.min_by_key(|(_, arrival)| arrival.until).map(|(at, _)| *at)
        };
        let at = oldest(true).or_else(|| if is_stranger { None } else { oldest(false) })?;
        self.dismiss(now, at, "others came before it had proven who it is");
        Some(at)
    }

    /// Goes on with a handshake.
    fn advance(&mut self, now: Duration, at: usize) {
        let Some(arrival) = self.arrivals.get_mut(&at) else { return };
        match arrival.connection.establish() {
            Ok(false) => {}
            Ok(true) => {
                if let Some(arrival) = self.arrivals.remove(&at) {
                    self.admitted.push_back(arrival.connection);
                }
            }
            Err(error) => self.dismiss(now, at, &error.to_string()),
        }
    }

    fn expire(&mut self, now: Duration) {
        while let Some(at) = self.arrivals.iter().find(|(_, arrival)| arrival.until <= now).map(|(at, _)| *at)
        {
            self.dismiss(now, at, "it did not prove who it is in time");
        }
    }

    fn dismiss(&mut self, now: Duration, at: usize, reason: &str) {
        if let Some(arrival) = self.arrivals.remove(&at) {
            self.turned_away.say(now, arrival.connection.peer(), reason);
            arrival.connection.close(&self.registry);
        }
    }
}

/// Listens at the first of the host's addresses at which that is possible.
fn listen(host: &HostAddress) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in host.look_up()? {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether one more may be looked at in this spell.
fn counted((begun, count): &mut (Duration, u32), now: Duration) -> bool {
    if now >= *begun + SPELL {
        (*begun, *count) = (now, 0);
    }
    *count += 1;
    *count <= STRANGERS_PER_SPELL
}

/// Says who was turned away and why: each reason once for an address in a while.
#[derive(Debug, Default)]
struct TurnedAway {
    said: BTreeMap<IpAddr, Said>,
}

/// What was said last of an address.
#[derive(Debug, Default)]
struct Said {
    at: Option<Duration>,
    reason: String,
    /// How often nothing was said since.
    unsaid: u64,
}

/// How long one line is enough for one reason.
const QUIET: Duration = Duration::from_secs(60);
/// The same, where the reason is another than the last one.
const QUIET_OF_OTHERS: Duration = Duration::from_secs(5);
/// Addresses that are told apart.
const ADDRESSES: usize = 64;

impl TurnedAway {
    fn say(&mut self, now: Duration, address: SocketAddr, reason: &str) {
        if let Some(line) = self.line(now, address, reason) {
            log::warn!("{line}");
        }
    }

    /// The line to be logged, if one is.
    fn line(&mut self, now: Duration, address: SocketAddr, reason: &str) -> Option<String> {
        let mut of = address.ip();
        if !self.said.contains_key(&of) && self.said.len() >= ADDRESSES {
            self.said.retain(|_, said| said.at.is_some_and(|at| now < at + QUIET));
            if self.said.len() >= ADDRESSES {
                // One entry for all the others.
                of = IpAddr::from([0; 16]);
            }
        }
        let said = self.said.entry(of).or_default();
        let quiet = if said.reason == reason { QUIET } else { QUIET_OF_OTHERS };
        if said.at.is_some_and(|at| now < at + quiet) {
            said.unsaid += 1;
            return None;
        }
        let before = match said.unsaid {
            0 => String::new(),
            n => format!(" ({n} more times since it was said last)"),
        };
        *said = Said { at: Some(now), reason: reason.to_owned(), unsaid: 0 };
        Some(format!("{address}: turned away: {reason}{before}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_an_address_and_a_minute() {
        let mut said = TurnedAway::default();
        let seconds = Duration::from_secs;
        let scanner: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        let other: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
        let line = said.line(seconds(1), scanner, "not TLS").unwrap();
        assert_eq!(line, "192.0.2.7:4711: turned away: not TLS");
        for n in 0..500 {
            let from = SocketAddr::new(scanner.ip(), 1000 + n);
            assert_eq!(said.line(seconds(2), from, "not TLS"), None);
        }
        assert!(said.line(seconds(2), other, "not TLS").is_some());
        let line = said.line(seconds(61), scanner, "not TLS").unwrap();
        assert!(line.contains("500 more times"), "{line}");
    }

    #[test]
    fn another_reason_is_said_soon_but_not_at_once() {
        let mut said = TurnedAway::default();
        let (seconds, from): (_, SocketAddr) = (Duration::from_secs, "192.0.2.7:4711".parse().unwrap());
        assert!(said.line(seconds(1), from, "not TLS").is_some());
        let lines = (0..1000).filter(|n| said.line(seconds(2), from, &format!("key {n}")).is_some()).count();
        assert_eq!(lines, 0);
        assert!(said.line(seconds(6), from, "key 7").is_some());
        assert!(said.line(seconds(12), from, "key 7").is_none());
    }

    #[test]
    fn a_crowd_of_addresses_is_not_remembered_one_by_one() {
        let mut said = TurnedAway::default();
        let now = Duration::from_secs(1);
        let from = |n: u32| SocketAddr::new(IpAddr::from(n.to_be_bytes()), 1);
        let lines = (0..10_000).filter_map(|n| said.line(now, from(n), "not TLS")).count();
        assert_eq!(lines, ADDRESSES + 1);
        assert!(said.said.len() <= ADDRESSES + 1);
        assert!(said.line(now + QUIET, from(77_777), "not TLS").is_some());
    }

    #[test]
    fn strangers_are_looked_at_so_many_a_second() {
        let mut strangers = (Duration::ZERO, 0);
        let looked_at = |strangers: &mut _, ms| {
            (0..100).filter(|_| counted(strangers, Duration::from_millis(ms))).count()
        };
        assert_eq!(looked_at(&mut strangers, 1500), 20);
        assert_eq!(looked_at(&mut strangers, 2400), 0);
        assert_eq!(looked_at(&mut strangers, 2500), 20);
    }
}
