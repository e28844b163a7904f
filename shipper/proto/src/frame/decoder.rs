//! Frames out of a stream of bytes, however it is cut into pieces.
//!
//! Always holds: at most one frame's payload is held, allocated only after its header was checked;
//! after an error nothing more comes out, because the stream has lost its footing.

use super::{Frame, FrameError, FrameHeader, FrameKind, HEADER_LEN};

/// Incremental decoder of one connection's incoming frames.
///
/// Either let a reactor read into [`Self::spare`] and tell it how much with [`Self::filled`], or hand bytes
/// to [`Self::feed`]. Frames that come out are verified. Unknown kinds that may be skipped are skipped.
#[derive(Debug)]
pub struct FrameDecoder {
    header_bytes: [u8; HEADER_LEN],
    header: Option<FrameHeader>,
    payload: Vec<u8>,
    filled: usize,
    failed: Option<FrameError>,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        let header_bytes = [0; HEADER_LEN];
        Self { header_bytes, header: None, payload: Vec::new(), filled: 0, failed: None }
    }

    /// Where the stream's next bytes go: the rest of the header or of the payload. Never empty.
    pub fn spare(&mut self) -> &mut [u8] {
        let target = if self.header.is_some() { &mut self.payload[..] } else { &mut self.header_bytes[..] };
        &mut target[self.filled..]
    }

    /// Tells that the first `n` bytes of [`Self::spare`] were filled. `n` must not exceed its length.
    pub fn filled(&mut self, n: usize) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.filled += n;
        let result = self.advance();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Takes bytes until a frame is whole. Returns how many were taken, and the frame; call again with
    /// the rest.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Frame>), FrameError> {
        let mut taken = 0;
        while taken < bytes.len() {
            let spare = self.spare();
            let n = spare.len().min(bytes.len() - taken);
            spare[..n].copy_from_slice(&bytes[taken..taken + n]);
            taken += n;
            if let Some(frame) = self.filled(n)? {
                return Ok((taken, Some(frame)));
            }
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        Ok((taken, None))
    }

    /// Whether the stream stands between two frames: where it may end.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.header.is_none() && self.filled == 0 && self.failed.is_none()
    }

    fn advance(&mut self) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None if self.filled < HEADER_LEN => return Ok(None),
            None => {
                let header = FrameHeader::decode(&self.header_bytes)?;
                if header.kind.is_journal_only() {
                    return Err(FrameError::JournalOnly(header.kind));
                }
                self.header = Some(header);
                self.payload = vec![0; header.payload_len as usize];
                self.filled = 0;
                header
            }
        };
        if self.filled < self.payload.len() {
            return Ok(None);
        }
        let payload = std::mem::take(&mut self.payload);
        self.header = None;
        self.filled = 0;
        header.verify(&payload)?;
        let skip = matches!(header.kind, FrameKind::Skippable(_));
        Ok((!skip).then_some(Frame { header, payload }))
    }
}
