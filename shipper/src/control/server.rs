//! The daemon's side of the control socket, inside the reactor.
//!
//! Always holds: a client can block nobody (everything is non-blocking), holds at most [`LINE_LIMIT`]
//! bytes here, and gets one answer per request, in order.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use super::{DIRECTORY, LINE_LIMIT, Request, Response, socket_path};

/// Most clients at a time; further ones are turned away.
const CLIENT_LIMIT: usize = 32;

/// Names who asked, for answers that come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub usize);

/// The listening socket and its clients.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    listener: UnixListener,
    clients: BTreeMap<ClientId, Client>,
    next_token: usize,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// A request was handed out and is not answered.
    asking: bool,
}

impl ControlServer {
    /// Listens on the group's socket. Tokens from `first_client` upwards belong to clients.
    ///
    /// # Errors
    /// When another daemon serves the group, or the socket cannot be made.
    pub fn bind(
        group: &str,
        registry: &Registry,
        listener_token: Token,
        first_client: usize,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(DIRECTORY)?;
        let path = socket_path(group);
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            let text = format!("another daemon serves group {group} on this host ({})", path.display());
            return Err(io::Error::new(ErrorKind::AddrInUse, text));
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        registry.register(&mut listener, listener_token, Interest::READABLE)?;
        Ok(Self { path, listener, clients: BTreeMap::new(), next_token: first_client })
    }

    /// Takes in everybody who waits at the door.
    pub fn accept(&mut self, registry: &Registry) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            if self.clients.len() >= CLIENT_LIMIT {
                log::warn!("more than {CLIENT_LIMIT} control clients: one was turned away");
                continue;
            }
            let id = ClientId(self.next_token);
            self.next_token += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            if registry.register(&mut stream, Token(id.0), interest).is_ok() {
                let client = Client { stream, input: Vec::new(), output: Vec::new(), asking: false };
                self.clients.insert(id, client);
            }
        }
    }

    /// Reads from and writes to a client; returns its next request. Malformed ones are answered here.
    pub fn ready(&mut self, id: ClientId) -> Option<Request> {
        let client = self.clients.get_mut(&id)?;
        match client.exchange() {
            Ok(Some(Ok(request))) => {
                client.asking = true;
                Some(request)
            }
            Ok(Some(Err(reason))) => {
                self.answer(id, &Response::Refused { reason });
                None
            }
            Ok(None) => None,
            Err(_) => {
                self.clients.remove(&id);
                None
            }
        }
    }

    /// Answers; a client that has gone is forgotten. One that asks again waits for its next readiness.
    pub fn answer(&mut self, id: ClientId, response: &Response) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.asking = false;
        match serde_json::to_vec(response) {
            Ok(line) => {
                client.output.extend_from_slice(&line);
                client.output.push(b'\n');
            }
            Err(error) => log::error!("an answer cannot be written as JSON: {error}"),
        }
        if client.flush().is_err() {
            self.clients.remove(&id);
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // A socket that stays behind is removed by the next daemon.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    /// Moves bytes both ways. `Err` when the client has gone or breaks the rules.
    fn exchange(&mut self) -> io::Result<Option<Result<Request, String>>> {
        self.flush()?;
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) if self.input.len() + n > LINE_LIMIT => return Err(ErrorKind::InvalidData.into()),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.asking {
            return Ok(None);
        }
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        Ok(Some(Request::parse(&line)))
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
