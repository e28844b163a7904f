//! Where a host is: an address, or a name that is looked up whenever it is needed.
//!
//! Always holds: a name is never bound to an answer of before; a lookup, which may take as long as it likes, holds up
//! nobody.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Where a host listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// `192.0.2.1:7789`, `[2001:db8::1]:7789`
    Address(SocketAddr),
    /// `node2.example:7789`; also `[fe80::1%eth0]:7789`, since an interface's number is known only once it is there.
    Name(String, u16),
}

/// What is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address with a port: 192.0.2.1:7789, [2001:db8::1]:7789, [fe80::1%eth0]:7789 or node2.example:7789"
)]
pub struct NoAddress(String);

impl HostAddress {
    /// Reads it, with the port that is meant where none is given.
    ///
    /// # Errors
    /// When it is neither an address nor a name.
    pub fn with_port(text: &str, port: u16) -> Result<Self, NoAddress> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(SocketAddr::new(ip, port)));
        }
        if is_scoped(bare) || is_name(bare) {
            return Ok(Self::Name(bare.to_owned(), port));
        }
        text.parse()
    }

    /// The address, where it is written as one.
    #[must_use]
    pub fn literal(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(..) => None,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// The same host at another port.
    #[must_use]
    pub fn at_port(self, port: u16) -> Self {
        match self {
            Self::Address(address) => Self::Address(SocketAddr::new(address.ip(), port)),
            Self::Name(name, _) => Self::Name(name, port),
        }
    }

    /// The same in the form in which two can be compared: an IPv4 address is one, also as a mapped IPv6 address, and a name
    /// has no capitals and no dot at its end.
    #[must_use]
    pub fn canonical(&self) -> Self {
        match self {
            Self::Address(address) => {
                Self::Address(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            Self::Name(name, port) => Self::Name(name.trim_end_matches('.').to_ascii_lowercase(), *port),
        }
    }

    /// All addresses that it stands for now, at least one. It may take long.
    ///
    /// # Errors
    /// When the name is not known.
    pub fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = match self {
            Self::Address(address) => vec![*address],
            Self::Name(name, port) => (name.as_str(), *port).to_socket_addrs()?.collect(),
        };
        if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
    }
}

/// `fe80::1%eth0`
fn is_scoped(text: &str) -> bool {
    text.split_once('%').is_some_and(|(ip, interface)| {
        ip.parse::<std::net::Ipv6Addr>().is_ok()
            && !interface.is_empty()
            && !interface.contains(['/', ']', ':'])
    })
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(legal) && !label.starts_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // What has digits alone is a mistyped address.
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    name.len() <= 253 && !is_number && name.split('.').all(is_label)
}

impl FromStr for HostAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let fault = || NoAddress(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
        let port = port.parse().map_err(|_| fault())?;
        match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(scoped) if is_scoped(scoped) => Ok(Self::Name(scoped.to_owned(), port)),
            None if is_name(host) => Ok(Self::Name(host.to_owned(), port)),
            _ => Err(fault()),
        }
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name, port) if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl<'de> Deserialize<'de> for HostAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How often it is looked whether a lookup has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How often a name is looked up for the sake of those who come.
const REFRESH: Duration = Duration::from_secs(60);

/// The peer's addresses, kept up to date by a thread of its own where it has a name.
#[derive(Debug)]
pub(super) struct Whereabouts {
    host: HostAddress,
    /// What it stood for when it was looked up last, canonical.
    known: Vec<IpAddr>,
    lookup: Option<Lookup>,
}

#[derive(Debug)]
struct Lookup {
    orders: Sender<()>,
    answers: Receiver<io::Result<Vec<SocketAddr>>>,
    is_under_way: bool,
    /// Somebody waits for an address of this lookup, and for which of them.
    is_sought: bool,
    turn: usize,
    found: Option<io::Result<SocketAddr>>,
    /// When to look next.
    due: Duration,
}

impl Whereabouts {
    /// Starts the thread where one is needed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn new(host: &HostAddress) -> io::Result<Self> {
        if let HostAddress::Address(address) = host {
            return Ok(Self { host: host.clone(), known: vec![address.ip().to_canonical()], lookup: None });
        }
        let (orders, ordered) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let name = host.clone();
        // Nobody waits for its end: a lookup may take long.
        let look_up = move || {
            while ordered.recv().is_ok() && answer.send(name.look_up()).is_ok() {}
        };
        std::thread::Builder::new().name("lookup".into()).stack_size(1 << 20).spawn(look_up)?;
        let lookup = Lookup {
            orders,
            answers,
            is_under_way: false,
            is_sought: false,
            turn: 0,
            found: None,
            due: Duration::ZERO,
        };
        Ok(Self { host: host.clone(), known: Vec::new(), lookup: Some(lookup) })
    }

    /// Whether the peer is, or was lately, at this address.
    pub(super) fn is_at(&self, address: IpAddr) -> bool {
        self.known.contains(&address.to_canonical())
    }

    /// Begins to look for an address to connect to: [`Self::found`] has it. An attempt takes another of a name's
    /// addresses than the one before.
    pub(super) fn seek(&mut self, now: Duration) {
        if let Some(lookup) = &mut self.lookup {
            (lookup.is_sought, lookup.found) = (true, None);
            lookup.order(now);
        }
    }

    /// The address that was sought.
    pub(super) fn found(&mut self) -> Option<io::Result<SocketAddr>> {
        self.lookup.as_mut()?.found.take()
    }

    /// The attempt was given up.
    pub(super) fn give_up(&mut self) {
        if let Some(lookup) = &mut self.lookup {
            (lookup.is_sought, lookup.found) = (false, None);
        }
    }

    /// When [`Self::run`] is due.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.lookup.as_ref().map(|lookup| lookup.due)
    }

    /// Takes in what was found, and looks the name up again from time to time.
    pub(super) fn run(&mut self, now: Duration) {
        let Some(lookup) = &mut self.lookup else { return };
        if !lookup.is_under_way && lookup.due <= now {
            lookup.order(now);
        }
        let Ok(answer) = lookup.answers.try_recv() else {
            if lookup.is_under_way {
                lookup.due = now + LOOK;
            }
            return;
        };
        (lookup.is_under_way, lookup.due) = (false, now + REFRESH);
        let answer = answer.map_err(|error| io::Error::new(error.kind(), format!("looking it up: {error}")));
        if let Ok(addresses) = &answer {
            self.known = addresses.iter().map(|address| address.ip().to_canonical()).collect();
        }
        match &answer {
            Ok(addresses) => log::debug!("{} is at {addresses:?}", self.host),
            Err(error) => log::debug!("{}: {error}", self.host),
        }
        if std::mem::take(&mut lookup.is_sought) {
            let turn = lookup.turn;
            lookup.turn = turn.wrapping_add(1);
            lookup.found = Some(answer.map(|addresses| addresses[turn % addresses.len()]));
        }
    }
}

impl Lookup {
    /// One at a time: an answer that is on its way is as new as another would be.
    fn order(&mut self, now: Duration) {
        if !self.is_under_way {
            self.is_under_way = self.orders.send(()).is_ok();
        }
        self.due = now + LOOK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_people_write_is_read_and_written_back() {
        for text in [
            "192.0.2.1:7789",
            "[2001:db8::1]:7789",
            "[fe80::1%eth0]:7789",
            "[fe80::1%br-lan.5]:7789",
            "node2:7789",
            "node-2.example.com:1",
            "node_2.:7789",
        ] {
            assert_eq!(text.parse::<HostAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "node2",
            ":7789",
            "192.0.2.1",
            "192.0.2.999:7",
            "a b:7",
            "-x:7",
            "x:70000",
            "fe80::1%eth0:7",
            "[node2]:7",
            "[fe80::1%]:7",
            "a..b:7",
            "x/y:7",
        ] {
            assert!(text.parse::<HostAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_that_is_left_out_is_the_usual_one() {
        for (text, whole) in [
            ("192.0.2.1", "192.0.2.1:7"),
            ("192.0.2.1:8", "192.0.2.1:8"),
            ("2001:db8::1", "[2001:db8::1]:7"),
            ("[2001:db8::1]", "[2001:db8::1]:7"),
            ("fe80::1%eth0", "[fe80::1%eth0]:7"),
            ("[fe80::1%eth0]:8", "[fe80::1%eth0]:8"),
            ("node2", "node2:7"),
            ("node2:8", "node2:8"),
        ] {
            assert_eq!(HostAddress::with_port(text, 7).unwrap().to_string(), whole);
        }
        assert!(HostAddress::with_port("192.0.2", 7).is_err());
    }

    #[test]
    fn an_interface_gets_its_number_when_it_is_looked_up() {
        let look_up = |text: &str| text.parse::<HostAddress>().unwrap().look_up();
        let found = look_up("[fe80::1%lo]:7").unwrap();
        assert!(matches!(found[..], [SocketAddr::V6(address)] if address.scope_id() > 0), "{found:?}");
        assert!(look_up("[fe80::1%does-not-exist]:7").is_err());
    }

    #[test]
    fn two_forms_of_one_host_are_equal() {
        let same = |one: &str, other: &str| {
            let read = |text: &str| text.parse::<HostAddress>().unwrap().canonical();
            read(one) == read(other)
        };
        assert!(same("[::ffff:192.0.2.1]:7", "192.0.2.1:7"));
        assert!(same("Node2.Example.:7", "node2.example:7"));
        assert!(!same("node2:7", "node2:8"));
    }

    #[test]
    fn a_name_is_looked_up_at_each_attempt_and_its_addresses_take_turns() {
        let mut peer = Whereabouts::new(&"localhost:7789".parse().unwrap()).unwrap();
        let mut seek = || {
            peer.seek(Duration::ZERO);
            assert!(peer.found().is_none(), "nobody waits for it");
            for _ in 0..1000 {
                peer.run(Duration::ZERO);
                if let Some(found) = peer.found() {
                    assert!(peer.is_at(found.as_ref().unwrap().ip()));
                    return found.unwrap();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("it was not found");
        };
        let (first, second, third) = (seek(), seek(), seek());
        assert!(first.ip().is_loopback() && first.port() == 7789);
        let count = HostAddress::Name("localhost".into(), 7789).look_up().unwrap().len();
        assert_eq!(count > 1, first != second);
        assert!(count != 2 || first == third);
        let mut nowhere = Whereabouts::new(&"does-not-exist.invalid:7".parse().unwrap()).unwrap();
        nowhere.seek(Duration::ZERO);
        let error = loop {
            nowhere.run(Duration::ZERO);
            match nowhere.found() {
                Some(found) => break found.unwrap_err(),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert!(error.to_string().starts_with("looking it up"), "{error}");
    }
}
