//! The daemon's side of the control socket, inside the reactor.
//!
//! Always holds: a client can block nobody (everything is non-blocking); it holds at most [`LINE_LIMIT`] bytes of
//! input and one answer here; a request that has arrived whole is taken, also when its client says no more; each
//! gets one answer, in order. What changes anything is taken from root alone, whatever the socket's permissions are.
//! Readers never keep root out: they hold at most half of the places, and give way when there is none left.

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

/// Most clients at a time; a further one takes the place of another, or is turned away: see [`replaced`].
const CLIENT_LIMIT: usize = 32;
/// Most of them that may only ask how things stand.
const READER_LIMIT: usize = CLIENT_LIMIT / 2;

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
    /// Counts what clients do.
    turns: u64,
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
    /// The turn in which it did something last.
    active: u64,
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
        Ok(Self { path, listener, clients: BTreeMap::new(), next_token: first_client, turns: 0 })
    }

    /// Takes in everybody who waits at the door.
    pub fn accept(&mut self, registry: &Registry) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let is_trusted = is_trusted(&stream);
            match replaced(&self.clients, is_trusted) {
                Ok(None) => {}
                Ok(Some(id)) => {
                    log::warn!("too many control clients: one was hung up on for another");
                    self.clients.remove(&id);
                }
                Err(TurnedAway) => {
                    log::warn!("too many control clients: one was turned away");
                    continue;
                }
            }
            let id = ClientId(self.next_token);
            self.next_token += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            if registry.register(&mut stream, Token(id.0), interest).is_ok() {
                self.turns += 1;
                let client = Client { active: self.turns, ..Client::new(stream, is_trusted) };
                self.clients.insert(id, client);
            }
        }
    }

    /// Reads from and writes to a client; returns its next request. Malformed ones are answered here. One that
    /// has `gone`, both ways, is forgotten.
    pub fn ready(&mut self, id: ClientId, gone: bool) -> Option<Request> {
        let client = self.clients.get_mut(&id)?;
        self.turns += 1;
        client.active = self.turns;
        let asked = client.exchange();
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

/// There is no place for it.
#[derive(Debug, PartialEq, Eq)]
struct TurnedAway;

/// Whose place a new client takes, if it needs one that is taken: a reader's, the longest idle first. Root's idle ones
/// give way to root alone, and one that root waits for to nobody.
fn replaced(clients: &BTreeMap<ClientId, Client>, is_trusted: bool) -> Result<Option<ClientId>, TurnedAway> {
    let readers = clients.values().filter(|client| !client.is_trusted).count();
    if clients.len() < CLIENT_LIMIT && (is_trusted || readers < READER_LIMIT) {
        return Ok(None);
    }
    let gives_way = |client: &Client| match (is_trusted, client.is_trusted) {
        (true, false) => true,
        (false, true) => false,
        _ => !client.asking,
    };
    let others = clients.iter().filter(|(_, client)| gives_way(client));
    let first = others.min_by_key(|(_, client)| (client.is_trusted, client.asking, client.active));
    first.map(|(id, _)| Some(*id)).ok_or(TurnedAway)
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
        Self {
            stream,
            is_trusted,
            input: Vec::new(),
            output: Vec::new(),
            asking: false,
            ended: false,
            active: 0,
        }
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
    fn readers_get_half_of_the_places_and_root_always_gets_one() {
        let mut clients = BTreeMap::new();
        let mut next = 0;
        let mut come = |clients: &mut BTreeMap<_, _>, is_trusted, asking| {
            next += 1;
            let (_, stream) = UnixStream::pair().unwrap();
            let active = next;
            let client = Client { asking, active, ..Client::new(stream, is_trusted) };
            let replaced = replaced(clients, is_trusted)?;
            replaced.iter().for_each(|id| drop(clients.remove(id)));
            clients.insert(ClientId(usize::try_from(next).unwrap()), client);
            Ok(replaced)
        };
        let (root, reader, idle, busy) = (true, false, false, true);
        // One reader waits for an answer, the others say nothing; further ones push each other out, the longest idle first.
        assert_eq!(come(&mut clients, reader, busy), Ok(None));
        for _ in 1..READER_LIMIT {
            assert_eq!(come(&mut clients, reader, idle), Ok(None));
        }
        clients.get_mut(&ClientId(2)).unwrap().active = 17;
        assert_eq!(come(&mut clients, reader, idle), Ok(Some(ClientId(3))));
        assert_eq!(clients.len(), READER_LIMIT);
        // Root has the other half, and then what the readers have, those that wait last.
        for _ in READER_LIMIT..CLIENT_LIMIT {
            assert_eq!(come(&mut clients, root, busy), Ok(None));
        }
        let replaced: Vec<_> =
            (0..READER_LIMIT).map(|_| come(&mut clients, root, busy).unwrap().unwrap().0).collect();
        assert_eq!((replaced[0], replaced[READER_LIMIT - 1]), (4, 1));
        assert_eq!(clients.len(), CLIENT_LIMIT);
        // What root waits for stays; what it left open does not.
        assert_eq!(come(&mut clients, root, busy), Err(TurnedAway));
        let left = *clients.keys().nth(5).unwrap();
        clients.get_mut(&left).unwrap().asking = false;
        assert_eq!(come(&mut clients, reader, idle), Err(TurnedAway));
        assert_eq!(come(&mut clients, root, busy), Ok(Some(left)));
    }

    #[test]
    fn readers_that_all_wait_keep_further_ones_out_and_not_root() {
        let waiting = |id| {
            let (_, stream) = UnixStream::pair().unwrap();
            (ClientId(id), Client { asking: true, ..Client::new(stream, false) })
        };
        let readers: BTreeMap<_, _> = (0..READER_LIMIT).map(waiting).collect();
        assert_eq!((replaced(&readers, false), replaced(&readers, true)), (Err(TurnedAway), Ok(None)));
        let all: BTreeMap<_, _> = (0..CLIENT_LIMIT).map(waiting).collect();
        assert_eq!(replaced(&all, true), Ok(Some(ClientId(0))));
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
