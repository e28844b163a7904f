//! Hosts for the attacks: a door with whatever came through it, a link to such a door, and what was logged.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ftship::config::Config;
use ftship::link::door::Door;
use ftship::link::peer::PeerConnection;
use ftship::link::tls::fingerprint::Fingerprint;
use ftship::link::tls::identity::{DEFAULT_DAYS, Identity, KeyFiles};
use ftship::link::tls::pins::Pins;
use ftship::runtime::tokens::PEER;
use ftship_proto::frame::{Frame, FrameKind, Stamp};
use ftship_proto::ids::{Epoch, Incarnation};
use mio::{Events, Poll};
use tempfile::TempDir;

/// Nothing here takes so long.
pub(crate) const AGES: Duration = Duration::from_secs(30);
/// What the doors here allow for a handshake.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collector;

impl log::Log for Collector {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Info {
            LINES.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// What was logged with `part` in it.
pub(crate) fn logged(part: &str) -> Vec<String> {
    LINES.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
}

/// Waits until something with `part` in it was logged.
#[track_caller]
pub(crate) fn wait_logged(part: &str) -> String {
    let begun = Instant::now();
    loop {
        if let Some(line) = logged(part).pop() {
            return line;
        }
        assert!(begun.elapsed() < AGES, "nothing was logged of {part}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A host's folder: its configuration and keys.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) address: SocketAddr,
}

impl Place {
    /// One with a key, on a port that is free.
    pub(crate) fn new() -> Self {
        static LOGGER: Once = Once::new();
        LOGGER.call_once(|| {
            log::set_logger(&Collector).unwrap();
            log::set_max_level(log::LevelFilter::Info);
        });
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let place = Self { folder: tempfile::tempdir().unwrap(), address };
        Identity::create(&place.files().key, "", "vm1", DEFAULT_DAYS).unwrap();
        place
    }

    pub(crate) fn files(&self) -> KeyFiles {
        KeyFiles::beside(&self.folder.path().join("vm1.toml"))
    }

    pub(crate) fn key(&self) -> Fingerprint {
        Identity::load(&self.files().key).unwrap().fingerprint
    }

    /// Another key in place of the present one.
    pub(crate) fn show(&self, text: &str) {
        std::fs::remove_file(&self.files().key).unwrap();
        write_secret(&self.files().key, text);
    }

    pub(crate) fn trust(&self, other: &Self) {
        Pins::add(&self.files().pins, other.key(), "").unwrap();
    }

    fn config(&self) -> Config {
        let text = format!(
            "group = 'vm1'\nrole = 'backup'\naddress = '{}'\npeer = '127.0.0.1:1'\nstate = '/x'\n\
             volume = [{{ name = 'vm1', device = '/y' }}]\njournal = {{ device = '/z' }}\n\
             limits = {{ timeout = '{} ms' }}\n",
            self.address,
            PATIENCE.as_millis()
        );
        let mut config = Config::parse("vm1.toml", &text).unwrap();
        config.path = self.folder.path().join("vm1.toml");
        config
    }
}

fn write_secret(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Two hosts that trust each other.
pub(crate) fn pair() -> (Place, Place) {
    let (here, there) = (Place::new(), Place::new());
    here.trust(&there);
    there.trust(&here);
    (here, there)
}

/// A daemon's door, and behind it somebody who sends each frame back. The first one through stays; later ones are
/// counted and sent away, as a backup does.
pub(crate) struct Backup {
    pub(crate) admitted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backup {
    pub(crate) fn at(place: &Place) -> Self {
        let (admitted, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut poll = Poll::new().unwrap();
        let door = Door::open(&place.config(), poll.registry().try_clone().unwrap()).unwrap();
        let (count, end) = (Arc::clone(&admitted), Arc::clone(&stop));
        let thread = std::thread::spawn(move || echo(&mut poll, door, &count, &end));
        Self { admitted, stop, thread: Some(thread) }
    }

    pub(crate) fn admitted(&self) -> usize {
        self.admitted.load(Ordering::Relaxed)
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) && !std::thread::panicking() {
            panic!("the backup's thread panicked");
        }
    }
}

fn echo(poll: &mut Poll, mut door: Door, admitted: &AtomicUsize, stop: &AtomicBool) {
    let (begun, mut events) = (Instant::now(), Events::with_capacity(256));
    let mut peer: Option<PeerConnection> = None;
    while !stop.load(Ordering::Relaxed) {
        let due = door.timeout().map(|at| at.saturating_sub(begun.elapsed()));
        let most = Duration::from_millis(20);
        poll.poll(&mut events, Some(due.map_or(most, |due| due.min(most)))).unwrap();
        let now = begun.elapsed();
        for event in &events {
            match (event.token(), &mut peer) {
                (PEER, Some(peer)) => peer.mark_readable(),
                (PEER, None) => {}
                (token, _) => door.event(now, token),
            }
        }
        while let Some(newcomer) = door.admitted(now, PEER) {
            admitted.fetch_add(1, Ordering::Relaxed);
            match peer {
                Some(_) => newcomer.close(poll.registry()),
                None => peer = Some(newcomer),
            }
        }
        let talked = peer.as_mut().map_or(Ok(()), |peer| {
            while let Some(frame) = peer.next_frame()? {
                peer.queue(frame);
            }
            peer.flush()
        });
        if let Err(error) = talked {
            log::info!("backup of {}: {error}", peer.as_ref().unwrap().peer());
            peer = None;
        }
    }
}

/// A primary's link to a door.
pub(crate) struct Link {
    poll: Poll,
    events: Events,
    peer: PeerConnection,
    seq: u64,
}

impl Link {
    /// Connects from `place` to `address`, the handshake included as far as this side sees it.
    pub(crate) fn connect(place: &Place, address: SocketAddr) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let mut door = Door::open(&place.config(), registry).map_err(std::io::Error::other)?;
        let peer = door.connect(Duration::ZERO, address, PEER)?;
        let mut link = Self { poll, events: Events::with_capacity(16), peer, seq: 0 };
        let begun = Instant::now();
        while !link.peer.establish()? {
            assert!(begun.elapsed() < AGES, "no connection");
            link.wait()?;
        }
        Ok(link)
    }

    fn wait(&mut self) -> std::io::Result<()> {
        self.poll.poll(&mut self.events, Some(Duration::from_millis(20)))?;
        for event in &self.events {
            if event.token() == PEER {
                self.peer.mark_readable();
            }
        }
        Ok(())
    }

    /// Sends so many bytes in a frame, and waits until they are back; how long that took.
    pub(crate) fn ask(&mut self, len: usize) -> std::io::Result<Duration> {
        let stamp = Stamp { epoch: Epoch(0), generation: 1, incarnation: Incarnation([7; 16]) };
        self.seq += 1;
        let payload: Vec<u8> = (0..len as u64).map(|at| (at * self.seq).to_le_bytes()[0]).collect();
        self.peer.queue(Frame::plain(FrameKind::Ping, stamp, self.seq, payload.clone()));
        let begun = Instant::now();
        loop {
            self.peer.flush()?;
            if let Some(frame) = self.peer.next_frame()? {
                assert!(frame.header.seq == self.seq && frame.payload == payload, "something else came back");
                return Ok(begun.elapsed());
            }
            assert!(begun.elapsed() < AGES, "no answer");
            self.wait()?;
        }
    }
}

/// A connection from an address of its own, that no other test uses.
pub(crate) fn from(address: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    let address: SocketAddr = format!("{address}:0").parse().unwrap();
    socket.bind(&address.into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(AGES))?;
    Ok(stream)
}
