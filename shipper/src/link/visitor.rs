//! Where a primary hears the other side: every daemon listens, so that two primaries learn of each other
//! whichever of them gets through.
//!
//! Always holds: a visitor says one thing and gets one answer; one at a time, for [`PATIENCE`] at most, and a new
//! one takes the place of one that is silent.

use std::time::Duration;

use ftship_proto::frame::Frame;
use mio::Registry;

use crate::link::peer::PeerConnection;

/// How long a visitor may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whoever was let in last.
#[derive(Debug)]
pub(crate) struct Visitor {
    registry: Registry,
    present: Option<(PeerConnection, Duration)>,
}

impl Visitor {
    /// Nobody yet.
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, present: None }
    }

    /// Lets the next one in.
    pub(crate) fn enters(&mut self, now: Duration, visitor: PeerConnection) {
        self.dismiss();
        self.present = Some((visitor, now + PATIENCE));
    }

    /// It may have said something.
    pub(crate) fn mark_readable(&mut self) {
        if let Some((visitor, _)) = &mut self.present {
            visitor.mark_readable();
        }
    }

    /// What it says, once it has arrived whole.
    pub(crate) fn listen(&mut self, now: Duration) -> Option<Frame> {
        let (visitor, until) = self.present.as_mut()?;
        match visitor.next_frame() {
            Ok(Some(frame)) => return Some(frame),
            Ok(None) if now < *until => {}
            Ok(None) => self.dismiss(),
            Err(error) => {
                log::debug!("{}: {error}", visitor.peer());
                self.dismiss();
            }
        }
        None
    }

    /// Answers with this frame, and sees the visitor off.
    pub(crate) fn answer(&mut self, frame: Frame) {
        if let Some((visitor, _)) = &mut self.present {
            visitor.queue(frame);
        }
        self.dismiss();
    }

    fn dismiss(&mut self) {
        if let Some((visitor, _)) = self.present.take() {
            visitor.close(&self.registry);
        }
    }

    /// When [`Self::listen`] is due at the latest.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.present.as_ref().map(|(_, until)| *until)
    }
}
