//! The daemon's side of the control socket, inside the reactor.
//!
//! Always holds: a client can block nobody (everything is non-blocking); it holds at most [`LINE_LIMIT`] bytes of
//! input and one answer here; a request that has arrived whole is taken, also when its client says no more; each
//! gets one answer, in order.

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
    /// It has closed its writing side.
    ended: bool,
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
                self.clients.insert(id, Client::new(stream));
            }
        }
    }

    /// Reads from and writes to a client; returns its next request. Malformed ones are answered here. One that
    /// has `gone`, both ways, is forgotten.
    pub fn ready(&mut self, id: ClientId, gone: bool) -> Option<Request> {
        let asked = self.clients.get_mut(&id)?.exchange();
        let stays = match &asked {
            Ok(Some(Err(reason))) => {
                self.answer(id, &Response::Refused { reason: reason.clone() });
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

impl Client {
    fn new(stream: UnixStream) -> Self {
        Self { stream, input: Vec::new(), output: Vec::new(), asking: false, ended: false }
    }

    /// Moves bytes both ways; the next request, or what is wrong with it, once the answer before has left. `Err`
    /// when the client has gone or breaks the rules.
    fn exchange(&mut self) -> io::Result<Option<Result<Request, String>>> {
        self.flush()?;
        self.fill()?;
        if self.asking || !self.output.is_empty() {
            return Ok(None);
        }
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        self.asking = true;
        Ok(Some(Request::parse(&line)))
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
        (peer, Client::new(stream))
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
