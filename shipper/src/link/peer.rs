//! The connection to the peer: frames in, bytes out, over TLS or, where that is off, bare TCP.
//!
//! Always holds: a frame handed out has its header and payload checksums verified; input held here is
//! bounded by one frame and what TLS has taken in, output by what the driver queues while
//! [`PeerConnection::wants_output`], and by [`OUTPUT_LIMIT`] where it answers: who does not take answers is not read; over TLS nothing is sent or handed out before the handshake has ended.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use ftdm::fault;
use ftdm::ioctl::sending;
use ftship_proto::epoch_encoder::Buffers;
use ftship_proto::frame::{Frame, FrameDecoder, FrameError, FrameKind};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::link::path;
use crate::link::tls::fingerprint::Fingerprint;
use crate::link::tls::session::Session;

/// Queued output beyond which the driver should wait.
const OUTPUT_TARGET: usize = 4 << 20;
/// Queued output beyond which nothing more is read, since it might want an answer: the target, the frame with which data may
/// exceed it, and as much again for answers.
const OUTPUT_LIMIT: usize = 2 * OUTPUT_TARGET;

/// A connection, connecting or connected.
#[derive(Debug)]
pub struct PeerConnection {
    stream: TcpStream,
    /// What protects it; `None` where that is switched off.
    session: Option<Box<Session>>,
    peer: SocketAddr,
    decoder: FrameDecoder,
    output: VecDeque<Vec<u8>>,
    /// Where the memory of output goes that has left.
    buffers: Option<Buffers>,
    /// Bytes of the first output buffer that have left.
    sent: usize,
    /// Bytes that have left in all, or been taken by what protects the connection.
    total: u64,
    queued: usize,
    /// Something was queued that no [`Self::flush`] has seen.
    unflushed: bool,
    /// Edge-triggered readiness that was not used up.
    readable: bool,
    /// TCP stands.
    connected: bool,
    /// TCP stands, and the other side has proven who it is where it has to.
    established: bool,
}

impl PeerConnection {
    /// Starts to connect; [`Self::establish`] tells when it stands.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn connect(
        peer: SocketAddr,
        session: Option<Session>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        Self::over(TcpStream::connect(peer)?, peer, session, false, registry, token)
    }

    /// Takes over an accepted connection. It stands at once, unless a handshake is to come: [`Self::establish`].
    ///
    /// # Errors
    /// When the socket cannot be registered.
    pub(crate) fn accepted(
        stream: TcpStream,
        peer: SocketAddr,
        session: Option<Session>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Self::over(stream, peer, session, true, registry, token)
    }

    fn over(
        mut stream: TcpStream,
        peer: SocketAddr,
        session: Option<Session>,
        connected: bool,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let established = connected && session.is_none();
        Ok(Self {
            stream,
            session: session.map(Box::new),
            peer,
            decoder: FrameDecoder::new(),
            output: VecDeque::new(),
            buffers: None,
            sent: 0,
            total: 0,
            queued: 0,
            unflushed: false,
            readable: established,
            connected,
            established,
        })
    }

    /// Is heard under another token from now on.
    ///
    /// # Errors
    /// When the event loop does not take it.
    pub(crate) fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.reregister(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Whether a connection that was being made stands now, the handshake included. True once only.
    ///
    /// # Errors
    /// When it could not be made, or the other side is not who it has to be.
    pub fn establish(&mut self) -> io::Result<bool> {
        if self.established {
            return Ok(false);
        }
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => {
                    self.connected = true;
                    self.stream.set_nodelay(true)?;
                }
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.established = match &mut self.session {
            Some(session) => session.shake(&mut self.stream)?,
            None => true,
        };
        // What came with the end of the handshake makes no event of its own.
        self.readable = self.established;
        Ok(self.established)
    }

    /// The key that the other side has proven to have; none where nothing protects the connection.
    #[must_use]
    pub fn peer_key(&self) -> Option<Fingerprint> {
        self.session.as_ref()?.peer_key()
    }

    /// Whether it stands.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Address of the other end.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Remembers that the socket became readable.
    pub fn mark_readable(&mut self) {
        self.readable = true;
    }

    /// The next frame that has arrived; `None` when there is none yet.
    ///
    /// # Errors
    /// When the connection ended, or carried something that is not a frame.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        while self.readable && self.established && self.queued < OUTPUT_LIMIT {
            let spare = self.decoder.spare();
            let result = match &mut self.session {
                Some(session) => session.read(&mut self.stream, spare),
                None => self.stream.read(spare),
            };
            match result {
                Ok(0) => {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, "the peer closed the connection"));
                }
                Ok(n) => {
                    let frame = self.decoder.filled(n).map_err(|error| self.nonsense(error))?;
                    if let Some(frame) = &frame {
                        meet(frame.header.kind, "received");
                    }
                    if frame.is_some() {
                        return Ok(frame);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What arrives is no frame.
    fn nonsense(&self, error: FrameError) -> io::Error {
        match error {
            // The beginning of a TLS handshake.
            FrameError::Magic { found: [0x16, 3, ..] } if self.session.is_none() => {
                io::Error::new(ErrorKind::InvalidData, "it speaks TLS, and here tls is \"off\"")
            }
            error => io::Error::new(ErrorKind::InvalidData, error),
        }
    }

    /// Whether more output should be queued.
    #[must_use]
    pub fn wants_output(&self) -> bool {
        self.queued < OUTPUT_TARGET
    }

    /// Whether something was queued behind the last [`Self::flush`]: no event will remind of it.
    #[must_use]
    pub fn has_unflushed(&self) -> bool {
        self.established && self.unflushed
    }

    /// Bytes that the socket has taken so far: the peer takes them in, or more than its buffers would not go.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.session.as_ref().map_or(self.total, |session| session.sent())
    }

    /// What to say of the path where it takes small packets and drops full ones.
    pub(crate) fn path_fault(&self, timeout: Duration) -> Option<String> {
        let sending = self.established.then(|| sending(&self.stream))?.ok()?;
        path::drops_full_packets(self.sent(), &sending, timeout).then(|| path::advice(&sending))
    }

    /// Queues a frame.
    pub fn queue(&mut self, frame: Frame) {
        let Frame { header, payload } = frame;
        self.unflushed = true;
        for bytes in [header.encode().to_vec(), payload] {
            if !bytes.is_empty() {
                self.queued += bytes.len();
                self.output.push_back(bytes);
            }
        }
        if cfg!(feature = "faults") && self.flush().is_ok() {
            meet(header.kind, "sent");
        }
    }

    /// Payloads are given there when they were sent.
    pub(crate) fn give_sent_to(&mut self, buffers: Buffers) {
        self.buffers = Some(buffers);
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn flush(&mut self) -> io::Result<()> {
        self.unflushed = false;
        while self.established && !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.output) {
                *slice = IoSlice::new(if count == 0 { &bytes[self.sent..] } else { bytes });
                count += 1;
            }
            let result = match &mut self.session {
                Some(session) => session.write_vectored(&mut self.stream, &slices[..count]),
                None => self.stream.write_vectored(&slices[..count]),
            };
            match result {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.forget_sent(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match &mut self.session {
            Some(session) if self.established => session.flush(&mut self.stream),
            _ => Ok(()),
        }
    }

    fn forget_sent(&mut self, bytes: usize) {
        self.queued -= bytes;
        self.sent += bytes;
        self.total += bytes as u64;
        while let Some(first) = self.output.front() {
            if self.sent < first.len() {
                break;
            }
            self.sent -= first.len();
            if let (Some(bytes), Some(buffers)) = (self.output.pop_front(), &self.buffers) {
                buffers.give(bytes);
            }
        }
    }

    /// Ends the connection: what was queued is sent as far as the socket takes it at once.
    pub fn close(mut self, registry: &Registry) {
        // The connection ends anyway; an error here changes nothing.
        let _ = self.flush();
        if let Some(session) = &mut self.session {
            session.close();
            let _ = session.flush(&mut self.stream);
        }
        let _ = registry.deregister(&mut self.stream);
    }
}

/// Fault points: `epoch-end-sent`, `staged-received` and the like.
fn meet(kind: FrameKind, what: &str) {
    if !cfg!(feature = "faults") {
        return;
    }
    let name = match kind {
        FrameKind::Hello => "hello",
        FrameKind::Welcome => "welcome",
        FrameKind::SyncBegin => "sync-begin",
        FrameKind::SyncReady => "sync-ready",
        FrameKind::BaseData => "base-data",
        FrameKind::BaseEnd => "base-end",
        FrameKind::EpochBegin => "epoch-begin",
        FrameKind::EpochData => "epoch-data",
        FrameKind::EpochEnd => "epoch-end",
        FrameKind::Staged => "staged",
        FrameKind::Commit => "commit",
        FrameKind::TakeOver => "take-over",
        _ => return,
    };
    fault::at(&format!("{name}-{what}"));
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use ftship_proto::frame::Stamp;
    use ftship_proto::ids::{Epoch, Incarnation};
    use ftship_proto::message::Message;
    use mio::Poll;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn frame(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.encode(1, Incarnation([7; 16])).encode_into(&mut bytes);
        bytes
    }

    #[test]
    fn whoever_asks_and_takes_no_answers_is_read_no_further() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut asker = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        asker.set_nonblocking(true).unwrap();
        let (stream, from) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let poll = Poll::new().unwrap();
        let stream = TcpStream::from_std(stream);
        let mut peer = PeerConnection::accepted(stream, from, None, poll.registry(), Token(0)).unwrap();
        let stamp = Stamp { epoch: Epoch::NONE, generation: 1, incarnation: Incarnation([7; 16]) };
        let answer = Frame::plain(FrameKind::Pong, stamp, 0, vec![0x5a; 48 << 10]);
        let ping = frame(&Message::Ping { token: 1 });
        let (mut asked, mut answered, begun) = (0, 0, Instant::now());
        // Each question costs an answer that is much larger, and nobody takes any.
        while begun.elapsed() < PATIENCE && peer.queued < OUTPUT_LIMIT {
            while asked < answered + 16 && asker.write(&ping).is_ok_and(|taken| taken == ping.len()) {
                asked += 1;
            }
            peer.mark_readable();
            while peer.next_frame().unwrap().is_some() {
                answered += 1;
                peer.queue(answer.clone());
            }
            peer.flush().unwrap();
        }
        assert!((OUTPUT_LIMIT..OUTPUT_LIMIT + (64 << 10)).contains(&peer.queued), "{}", peer.queued);
        asker.write_all(&ping).unwrap();
        peer.mark_readable();
        assert!(peer.next_frame().unwrap().is_none(), "it is not read while its answers wait");
        // Once it takes them, it is.
        let mut taken = vec![0; 1 << 20];
        let is_read = |peer: &mut PeerConnection| {
            let _ = (&asker).read(&mut taken);
            peer.flush().unwrap();
            peer.mark_readable();
            peer.next_frame().unwrap().is_some()
        };
        let read = std::iter::repeat_with(|| ()).scan(is_read, |is_read, ()| Some(is_read(&mut peer)));
        assert!(read.take_while(|_| begun.elapsed() < PATIENCE).any(|is_read| is_read));
    }
}
