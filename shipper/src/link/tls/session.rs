//! TLS over a socket that does not block: the same contract as the socket's own reads and writes.
//!
//! Always holds: nothing is handed out that was not authenticated; beyond [`SEALED_LIMIT`] no more plaintext is
//! taken than the socket has taken sealed, so the queue in front of it stays the one that is bounded and measured;
//! an end that the other side did not announce is an error, never an end of file.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::Connection;
use rustls::pki_types::UnixTime;

use super::fingerprint::Fingerprint;
use super::reason::{Shown, explain};

/// Sealed bytes that may wait for the socket.
const SEALED_LIMIT: usize = 256 << 10;
/// Bytes taken from the socket at once.
const INPUT_LEN: usize = 128 << 10;

/// One side of a TLS connection, without its socket.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    shown: Arc<Shown>,
    /// Bytes `taken..held` of it came from the socket and were not looked at yet.
    input: Vec<u8>,
    taken: usize,
    held: usize,
    /// Sealed bytes that the socket has taken.
    sent: u64,
}

impl Session {
    pub(super) fn new(mut connection: Connection, shown: Arc<Shown>) -> Self {
        connection.set_buffer_limit(Some(SEALED_LIMIT));
        Self { connection, shown, input: Vec::new(), taken: 0, held: 0, sent: 0 }
    }

    /// Goes on with the handshake. Whether it has ended.
    ///
    /// # Errors
    /// When the other side is not who it has to be, or not of this protocol, or has gone.
    pub(crate) fn shake<S: Read + Write>(&mut self, socket: &mut S) -> io::Result<bool> {
        loop {
            self.flush(socket)?;
            if !self.connection.is_handshaking() {
                return match self.connection.alpn_protocol() {
                    Some(_) => Ok(!self.connection.wants_write()),
                    None => {
                        let text = "it does not say that it speaks ftdm's protocol";
                        Err(io::Error::new(ErrorKind::InvalidData, text))
                    }
                };
            }
            match self.take_in(socket) {
                Ok(0) => {
                    let text = "the connection ended in the handshake";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The key that the other side has proven to have.
    pub(crate) fn peer_key(&self) -> Option<Fingerprint> {
        let certificate = self.connection.peer_certificates()?.first()?;
        Fingerprint::of(certificate).ok()
    }

    /// The protocol that both sides agreed on.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// As [`Read::read`] of a socket that does not block.
    pub(crate) fn read<S: Read + Write>(&mut self, socket: &mut S, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    let text = "the connection was cut off";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
                }
                result => return result,
            }
            self.take_in(socket)?;
        }
    }

    /// As [`Write::write_vectored`] of a socket that does not block; some of it may still wait here: [`Self::flush`].
    pub(crate) fn write_vectored<S: Read + Write>(
        &mut self,
        socket: &mut S,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        match self.connection.writer().write_vectored(slices)? {
            0 => {
                self.flush(socket)?;
                match self.connection.writer().write_vectored(slices)? {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    taken => Ok(taken),
                }
            }
            taken => Ok(taken),
        }
    }

    /// Gives the socket what it takes.
    pub(crate) fn flush<S: Write>(&mut self, socket: &mut S) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sealed bytes that the socket has taken in all.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Announces the end.
    pub(crate) fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Looks at what has arrived, a piece at a time. 0 at the end.
    fn take_in<S: Read + Write>(&mut self, socket: &mut S) -> io::Result<usize> {
        if self.taken == self.held {
            self.input.resize(INPUT_LEN, 0);
            let held = socket.read(&mut self.input)?;
            (self.taken, self.held) = (0, held);
        }
        let n = self.connection.read_tls(&mut &self.input[self.taken..self.held])?;
        self.taken += n;
        if let Err(error) = self.connection.process_new_packets() {
            // So that the other side hears why; it may be gone.
            let _ = self.flush(socket);
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                explain(&error, &self.shown, UnixTime::now()),
            ));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
