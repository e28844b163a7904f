//! The frames that travel between the driver, its clients and the hosts' agents.
//!
//! A frame is a 20-byte header (little endian: magic `LAB1`, kind u8, stream u8, zero u16, session
//! u32, payload length u32, crc32c of everything but itself) and its payload. What must hold: a
//! frame that is damaged, oversized or of an unknown kind is an error and never a wrong message; a
//! payload is not allocated before its length was checked.

use std::io::{self, Read, Write};

use thiserror::Error;

/// The most bytes that one frame carries.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// The most bytes of a stream that may be on their way before the receiver has taken them.
pub const WINDOW: usize = 256 * 1024;

/// The most bytes that may be on their way to an agent as a whole: the line discipline of a host's
/// terminal holds 4096, and user-mode-linux does not recover when it has had to throttle a line.
pub const LINE_WINDOW: usize = 3000;

/// The driver writes to an agent in pieces of this size, so that taking and sending overlap.
pub const LINE_PIECE: usize = 1000;

const MAGIC: u32 = u32::from_le_bytes(*b"LAB1");
const HEADER: usize = 20;

/// Why a frame could not be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The channel itself failed.
    #[error("the channel failed: {0}")]
    Io(#[from] io::Error),
    /// The bytes are no frame of this version.
    #[error("not a frame of this version (magic {0:#010x})")]
    Magic(u32),
    /// The frame's kind or its stream is not known.
    #[error("unknown frame kind {kind} with stream {stream}")]
    Kind {
        /// The kind found.
        kind: u8,
        /// The stream found.
        stream: u8,
    },
    /// The payload is longer than a frame may carry, or of a wrong length for its kind.
    #[error("a payload of {0} bytes does not fit its frame")]
    Length(usize),
    /// The checksum does not fit.
    #[error("frame checksum {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
}

/// One of a command's three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The agent is ready (the first frame on its channel).
    Hello,
    /// Run this command (host side), or do this request (control socket).
    Run(Vec<Vec<u8>>),
    /// Bytes of a stream.
    Data(Stream, Vec<u8>),
    /// A stream has ended.
    End(Stream),
    /// The receiver has taken so many bytes of a stream; in session 0, of the line to the agent.
    Taken(Stream, u32),
    /// Send this signal to the command and everything in its process group.
    Signal(i32),
    /// The command has ended with this exit code; the session's last frame.
    Exit(i32),
}

/// A message and the session (one command) it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which command.
    pub session: u32,
    /// What is said.
    pub message: Message,
}

impl Stream {
    fn code(self) -> u8 {
        match self {
            Stream::Stdin => 0,
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        }
    }

    fn parse(kind: u8, stream: u8) -> Result<Self, FrameError> {
        match stream {
            0 => Ok(Stream::Stdin),
            1 => Ok(Stream::Stdout),
            2 => Ok(Stream::Stderr),
            _ => Err(FrameError::Kind { kind, stream }),
        }
    }
}

impl Frame {
    /// A frame of `session` that says `message`.
    #[must_use]
    pub fn new(session: u32, message: Message) -> Self {
        Frame { session, message }
    }

    /// The frame as bytes.
    ///
    /// # Errors
    /// [`FrameError::Length`] when the payload exceeds [`MAX_PAYLOAD`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let (kind, stream, payload) = match &self.message {
            Message::Hello => (1, 0, Vec::new()),
            Message::Run(words) => (2, 0, encode_words(words)),
            Message::Data(stream, bytes) => (3, stream.code(), bytes.clone()),
            Message::End(stream) => (4, stream.code(), Vec::new()),
            Message::Taken(stream, count) => (5, stream.code(), count.to_le_bytes().to_vec()),
            Message::Signal(signal) => (6, 0, signal.to_le_bytes().to_vec()),
            Message::Exit(code) => (7, 0, code.to_le_bytes().to_vec()),
        };
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= MAX_PAYLOAD)
            .ok_or(FrameError::Length(payload.len()))?;
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&[kind, stream, 0, 0]);
        bytes.extend_from_slice(&self.session.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &payload);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    /// Writes the frame in one piece.
    ///
    /// # Errors
    /// As [`Frame::encode`], and what the channel says.
    pub fn write(&self, to: &mut impl Write) -> Result<(), FrameError> {
        to.write_all(&self.encode()?)?;
        Ok(to.flush()?)
    }

    /// Reads the next frame; `None` when the channel ended between two frames.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no valid frame or the channel fails or ends within one.
    pub fn read(from: &mut impl Read) -> Result<Option<Self>, FrameError> {
        let mut header = [0; HEADER];
        let first = loop {
            match from.read(&mut header[..1]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if first == 0 {
            return Ok(None);
        }
        from.read_exact(&mut header[1..])?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if word(0) != MAGIC {
            return Err(FrameError::Magic(word(0)));
        }
        let length = usize::try_from(word(12)).unwrap_or(usize::MAX);
        if length > MAX_PAYLOAD {
            return Err(FrameError::Length(length));
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload)?;
        let found = crc32c::crc32c_append(crc32c::crc32c(&header[..16]), &payload);
        if found != word(16) {
            return Err(FrameError::Checksum { expected: word(16), found });
        }
        let message = decode(header[4], header[5], payload)?;
        Ok(Some(Frame { session: word(8), message }))
    }
}

fn decode(kind: u8, stream: u8, payload: Vec<u8>) -> Result<Message, FrameError> {
    let word = || match payload.as_slice() {
        &[a, b, c, d] => Ok([a, b, c, d]),
        other => Err(FrameError::Length(other.len())),
    };
    Ok(match kind {
        1 => Message::Hello,
        2 => Message::Run(decode_words(&payload)?),
        3 => Message::Data(Stream::parse(kind, stream)?, payload),
        4 => Message::End(Stream::parse(kind, stream)?),
        5 => Message::Taken(Stream::parse(kind, stream)?, u32::from_le_bytes(word()?)),
        6 => Message::Signal(i32::from_le_bytes(word()?)),
        7 => Message::Exit(i32::from_le_bytes(word()?)),
        _ => return Err(FrameError::Kind { kind, stream }),
    })
}

/// Words end with a zero byte, as in an argument vector, which cannot contain one.
fn encode_words(words: &[Vec<u8>]) -> Vec<u8> {
    words.iter().flat_map(|word| word.iter().copied().chain([0])).collect()
}

fn decode_words(mut payload: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut words = Vec::new();
    while !payload.is_empty() {
        let end = payload.iter().position(|&byte| byte == 0).ok_or(FrameError::Length(payload.len()))?;
        words.push(payload[..end].to_vec());
        payload = &payload[end + 1..];
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Frame> {
        vec![
            Frame::new(0, Message::Hello),
            Frame::new(7, Message::Run(vec![b"bash".to_vec(), b"-c".to_vec(), vec![], vec![0xff, b'\n']])),
            Frame::new(7, Message::Data(Stream::Stdin, (0..=255).collect())),
            Frame::new(u32::MAX, Message::Data(Stream::Stderr, vec![0; MAX_PAYLOAD])),
            Frame::new(7, Message::End(Stream::Stdout)),
            Frame::new(7, Message::Taken(Stream::Stdout, 4096)),
            Frame::new(7, Message::Signal(9)),
            Frame::new(7, Message::Exit(-1)),
        ]
    }

    #[test]
    fn frames_survive_the_channel_back_to_back() {
        let mut channel = Vec::new();
        for frame in samples() {
            frame.write(&mut channel).unwrap();
        }
        let mut reader = channel.as_slice();
        for frame in samples() {
            assert_eq!(Frame::read(&mut reader).unwrap(), Some(frame));
        }
        assert!(Frame::read(&mut reader).unwrap().is_none());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let bytes = Frame::new(3, Message::Data(Stream::Stdout, b"content".to_vec())).encode().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::read(&mut damaged.as_slice()).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn a_truncated_frame_is_an_error() {
        let bytes = Frame::new(3, Message::Exit(0)).encode().unwrap();
        for length in 1..bytes.len() {
            assert!(Frame::read(&mut &bytes[..length]).is_err());
        }
    }

    #[test]
    fn an_oversized_payload_is_refused_on_both_sides() {
        let frame = Frame::new(1, Message::Data(Stream::Stdin, vec![0; MAX_PAYLOAD + 1]));
        assert!(matches!(frame.encode(), Err(FrameError::Length(_))));
        let mut header = Frame::new(1, Message::Hello).encode().unwrap();
        header[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Frame::read(&mut header.as_slice()), Err(FrameError::Length(_))));
    }
}
