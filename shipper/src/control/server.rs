//! The daemon's side of the control socket, inside the reactor.
//!
//! Always holds: a client can block nobody (everything is non-blocking); it holds at most [`LINE_LIMIT`] bytes of
//! input and one answer here; a request that has arrived whole is taken, also when its client says no more; each
//! gets one answer, in order. What changes anything is taken from root alone, whatever the socket's permissions are.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{Gid, Group, geteuid};

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
    /// It may ask for changes.
    is_trusted: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    /// A request was handed out and is not answered.
    asking: bool,
    /// It has closed its writing side.
    ended: bool,
}

impl ControlServer {
    /// Listens on the group's socket, which root may use, and the users of the system's group `readers`, who may ask how
    /// things stand. Tokens from `first_client` upwards belong to clients.
    ///
    /// # Errors
    /// When another daemon serves the group, there is no such group of users, or the socket cannot be made.
    pub fn bind(
        group: &str,
        readers: Option<&str>,
        registry: &Registry,
        listener_token: Token,
        first_client: usize,
    ) -> io::Result<Self> {
        let readers = readers.map(gid).transpose()?;
        std::fs::create_dir_all(DIRECTORY)?;
        if readers.is_some() {
            std::fs::set_permissions(DIRECTORY, std::fs::Permissions::from_mode(0o755))?;
        }
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
        // Whoever is quicker than these lines is still asked who he is.
        let mode = if readers.is_some() { 0o660 } else { 0o600 };
        chown(&path, None, readers.map(Gid::as_raw))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
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
            let is_trusted = is_trusted(&stream);
            if registry.register(&mut stream, Token(id.0), interest).is_ok() {
                self.clients.insert(id, Client::new(stream, is_trusted));
            }
        }
    }

    /// Reads from and writes to a client; returns its next request. Malformed ones are answered here. One that
    /// has `gone`, both ways, is forgotten.
    pub fn ready(&mut self, id: ClientId, gone: bool) -> Option<Request> {
        let asked = self.clients.get_mut(&id)?.exchange();
        let stays = match &asked {
            Ok(Some(Err(refusal))) => {
                self.answer(id, refusal);
                true
            }
            Ok(_) => !self.clients.get(&id).is_some_and(Client::is_done),
            Err(_) => false,
        };
        if gone || !stays {
            self.clients.remove(&id);
        }
        asked.ok()??.ok()
    }

    /// Answers; a client that has gone is forgotten. One that has asked again is heard once it has read the
    /// answer, which makes its socket ready.
    pub fn answer(&mut self, id: ClientId, response: &Response) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.answer(response).is_err() || client.is_done() {
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

/// Who it is that the kernel has seen connect: root, or whoever the daemon itself runs as.
fn is_trusted(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

/// A group of the system's users.
fn gid(name: &str) -> io::Result<Gid> {
    match Group::from_name(name)? {
        Some(group) => Ok(group.gid),
        None => Err(io::Error::new(
            ErrorKind::NotFound,
            format!("control-group: there is no group of users {name}"),
        )),
    }
}

impl Client {
    fn new(stream: UnixStream, is_trusted: bool) -> Self {
        Self { stream, is_trusted, input: Vec::new(), output: Vec::new(), asking: false, ended: false }
    }

    /// Moves bytes both ways; the next request, or why it is not taken, once the answer before has left. `Err`
    /// when the client has gone or breaks the rules.
    fn exchange(&mut self) -> io::Result<Option<Result<Request, Response>>> {
        self.flush()?;
        self.fill()?;
        if self.asking || !self.output.is_empty() {
            return Ok(None);
        }
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        self.asking = true;
        Ok(Some(match Request::parse(&line) {
            Err(reason) => Err(Response::Refused { reason }),
            Ok(request) if self.is_trusted || request.changes_nothing() => Ok(request),
            Ok(_) => Err(Response::Forbidden {
                reason: "only root may ask this; others may ask for the status".into(),
            }),
        }))
    }

    fn answer(&mut self, response: &Response) -> io::Result<()> {
        self.asking = false;
        match serde_json::to_vec(response) {
            Ok(line) => {
                self.output.extend_from_slice(&line);
                self.output.push(b'\n');
            }
            Err(error) => log::error!("an answer cannot be written as JSON: {error}"),
        }
        self.flush()
    }

    /// It says no more, and everything that it has asked is answered.
    fn is_done(&self) -> bool {
        self.ended && !self.asking && self.output.is_empty() && !self.input.contains(&b'\n')
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) if self.input.len() + n > LINE_LIMIT => return Err(ErrorKind::InvalidData.into()),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use super::*;

    fn pair() -> (UnixStream, Client) {
        let (peer, stream) = UnixStream::pair().unwrap();
        (peer, Client::new(stream, true))
    }

    fn refusal(reason: &str) -> Response {
        Response::Refused { reason: reason.to_owned() }
    }

    /// Everything that is there to be read, and whether it has ended.
    fn heard(peer: &mut UnixStream) -> (String, bool) {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match peer.read(&mut buffer) {
                Ok(0) => return (String::from_utf8(all).unwrap(), true),
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return (String::from_utf8(all).unwrap(), false);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn requests_of_a_client_that_says_no_more_are_taken_and_answered() {
        let (mut peer, mut client) = pair();
        peer.write_all(b"{\"verb\":\"status\"}\nnonsense\n{\"verb\":\"full-sync\"}\n{\"verb\"").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(client.exchange(), Ok(Some(Ok(Request::Status)))));
        assert!(matches!(client.exchange(), Ok(None)), "the first is not answered");
        assert!(!client.is_done());
        client.answer(&refusal("first")).unwrap();
        assert!(matches!(client.exchange(), Ok(Some(Err(_)))));
        client.answer(&refusal("second")).unwrap();
        assert!(!client.is_done());
        assert!(matches!(client.exchange(), Ok(Some(Ok(Request::FullSync)))));
        client.answer(&Response::Started).unwrap();
        assert!(matches!(client.exchange(), Ok(None)));
        assert!(client.is_done());
        drop(client);
        let (text, ended) = heard(&mut peer);
        let answers: Vec<&str> = text.lines().collect();
        assert!(ended && answers.len() == 3 && answers[2] == "\"started\"", "{text}");
    }

    #[test]
    fn others_than_root_may_ask_how_things_stand_and_nothing_else() {
        let (mut peer, mut client) = pair();
        client.is_trusted = false;
        peer.write_all(
            b"{\"verb\":\"status\"}\n{\"verb\":\"promote\"}\n{\"verb\":\"verify\"}\n{\"verb\":\"status\"}\n",
        )
        .unwrap();
        let mut taken = 0;
        while let Some(asked) = client.exchange().unwrap() {
            taken += usize::from(asked.is_ok());
            let answer = asked.map_or_else(|refusal| refusal, |_| Response::Started);
            client.answer(&answer).unwrap();
        }
        let (text, _) = heard(&mut peer);
        let answers: Vec<_> = text.lines().collect();
        assert_eq!(taken, 2);
        assert!(answers[1].contains("forbidden") && answers[2].contains("only root"), "{text}");
    }

    #[test]
    fn who_connects_is_asked_of_the_kernel() {
        let (one, other) = UnixStream::pair().unwrap();
        // Whoever runs this, it is the same on both ends.
        assert!(is_trusted(&one) && is_trusted(&other));
        assert!(gid("root").is_ok());
        assert!(gid("no-such-group").unwrap_err().to_string().contains("no-such-group"));
    }

    #[test]
    fn a_client_that_reads_nothing_is_not_heard_any_more() {
        const ASKED: usize = 200;
        let (mut peer, mut client) = pair();
        let long = "x".repeat(LINE_LIMIT / 2);
        let (mut answered, mut text) = (0, String::new());
        for _ in 0..ASKED {
            peer.write_all(b"{\"verb\":\"status\"}\n").unwrap();
        }
        while let Some(asked) = client.exchange().unwrap() {
            asked.unwrap();
            client.answer(&refusal(&long)).unwrap();
            answered += 1;
        }
        assert!(answered < ASKED && client.output.len() < LINE_LIMIT, "{answered} answers");
        while answered < ASKED {
            text.push_str(&heard(&mut peer).0);
            if let Some(asked) = client.exchange().unwrap() {
                asked.unwrap();
                client.answer(&refusal(&long)).unwrap();
                answered += 1;
            }
        }
        client.flush().unwrap();
        text.push_str(&heard(&mut peer).0);
        assert_eq!(text.lines().count(), ASKED);
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let (mut peer, mut client) = pair();
        let endless = vec![b' '; LINE_LIMIT];
        peer.write_all(&endless).unwrap();
        assert!(client.exchange().unwrap().is_none());
        peer.write_all(b" ").unwrap();
        assert_eq!(client.exchange().unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
