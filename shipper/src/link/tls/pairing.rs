//! Getting to know the other host: its key, as it proves to have it, for a person to compare.
//!
//! Always holds: nothing is trusted here; what is found counts only once a person, or a script that knows the
//! fingerprint, pins it. Both hosts listen and connect, so either may be the first, and a daemon may run on either.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use crate::link::host::HostAddress;

use super::fingerprint::Fingerprint;
use super::identity::{Identity, KeyFiles};
use super::session::Session;
use super::verifier::Trust;
use super::{Ends, PAIRING, PROTOCOL, TlsError};

/// What a host says that has seen the other's key.
const SEEN: u8 = b'+';
/// How long the other side may take for each word of its own.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a daemon may take to refuse; one that trusts this host's key says nothing.
const REFUSAL: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(500);

/// Who was met.
#[derive(Clone, Debug)]
pub struct Met {
    /// Its key.
    pub key: Fingerprint,
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it has seen this host's key too, or knows it already. A daemon there only refused it, and says so in
    /// its log.
    pub has_seen_us: bool,
}

/// Why nobody was met.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// This host has no key to show.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody came.
    #[error("the other host was not met within {0:?} at {1}; last: {2}")]
    TimedOut(Duration, HostAddress, String),
}

/// What the two threads tell.
type Word = Result<Met, String>;

/// Meets the other host: at `address`, where it may come to, and at `peer`. The configuration's name says where this
/// host's key is. This host goes on listening until the process ends, for the sake of the other one.
///
/// # Errors
/// When this host has no key, or nobody was met in time.
pub fn meet(
    configuration: &Path,
    address: &HostAddress,
    peer: &HostAddress,
    timeout: Duration,
) -> Result<Met, PairError> {
    let files = KeyFiles::beside(configuration);
    let identity = Identity::load(&files.key).map_err(TlsError::from)?;
    let ends = Ends::new(&files, &identity, Trust::Anybody, &[PAIRING], &[PAIRING, PROTOCOL])
        .map_err(|source| TlsError::Unusable { path: files.key.display().to_string(), source })?;
    let (words, heard) = mpsc::channel();
    let until = Instant::now() + timeout;
    let mut last = String::from("nobody answered");
    let listener = address.look_up().and_then(|addresses| TcpListener::bind(&addresses[..]));
    match listener {
        Ok(listener) => {
            let (ends, words) = (ends.clone(), words.clone());
            std::thread::spawn(move || listen(&listener, &ends, &words));
        }
        // The daemon listens there.
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        Err(error) => last = format!("listening on {address}: {error}"),
    }
    let called = peer.clone();
    std::thread::spawn(move || {
        while words.send(look_up_and_call(&called, &ends)).is_ok() {
            std::thread::sleep(RETRY);
        }
    });
    loop {
        match heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Ok(met)) => return Ok(met),
            Ok(Err(reason)) => last = reason,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(PairError::TimedOut(timeout, peer.clone(), last));
            }
        }
    }
}

fn listen(listener: &TcpListener, ends: &Ends, words: &Sender<Word>) {
    for stream in listener.incoming() {
        let word = stream.and_then(|stream| answer(stream, ends)).map_err(|error| error.to_string());
        // Nobody hears it once a person is being asked; the other side is answered all the same.
        let _ = words.send(word);
    }
}

/// Shows this host's key to one that connected, and sees its.
fn answer(mut stream: TcpStream, ends: &Ends) -> io::Result<Met> {
    let connection = ServerConnection::new(ends.server.clone()).map_err(io::Error::other)?;
    let mut session = Session::new(connection.into(), Arc::clone(&ends.shown));
    let key = shake(&mut stream, &mut session)?;
    session.write_vectored(&mut stream, &[IoSlice::new(&[SEEN])])?;
    session.close();
    session.flush(&mut stream)?;
    Ok(Met { key, address: stream.peer_addr()?, has_seen_us: true })
}

/// Calls each of the addresses that the peer has now, until one answers.
fn look_up_and_call(peer: &HostAddress, ends: &Ends) -> Word {
    let addresses = peer.look_up().map_err(|error| format!("{peer}: looking it up: {error}"))?;
    let mut last = Err(String::new());
    for address in addresses {
        last = call(address, ends);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Connects, and sees the other side's key; that sees this one's if `ftship pair` runs there.
fn call(peer: SocketAddr, ends: &Ends) -> Word {
    let asked = || -> io::Result<Met> {
        let mut stream = TcpStream::connect_timeout(&peer, PATIENCE)?;
        let connection = ClientConnection::new(ends.client.clone(), ServerName::from(peer.ip()))
            .map_err(io::Error::other)?;
        let mut session = Session::new(connection.into(), Arc::clone(&ends.shown));
        let key = shake(&mut stream, &mut session)?;
        let is_daemon = session.protocol() == Some(PROTOCOL);
        if is_daemon {
            stream.set_read_timeout(Some(REFUSAL))?;
        }
        let mut word = [0];
        let has_seen_us = match session.read(&mut stream, &mut word) {
            Ok(n) => n == 1 && word[0] == SEEN,
            Err(error) => is_daemon && error.kind() == ErrorKind::WouldBlock,
        };
        session.close();
        // The other side may be gone; its key was seen.
        let _ = session.flush(&mut stream);
        if !has_seen_us && !is_daemon {
            return Err(io::Error::other("it went away before it had seen this host's key"));
        }
        Ok(Met { key, address: peer, has_seen_us })
    };
    asked().map_err(|error| format!("{peer}: {error}"))
}

fn shake(stream: &mut TcpStream, session: &mut Session) -> io::Result<Fingerprint> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    if !session.shake(stream)? {
        return Err(io::Error::new(ErrorKind::TimedOut, "it does not go on with the handshake"));
    }
    session.peer_key().ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it shows no key"))
}
