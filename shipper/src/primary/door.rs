//! Where a primary hears the other side knock: every daemon listens, so that two primaries learn of each other
//! whichever of them gets through.
//!
//! Always holds: a visitor says one thing and gets one answer; one at a time, for [`PATIENCE`] at most, and a new
//! one takes the place of one that is silent.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use ftship_proto::frame::Frame;
use mio::net::TcpListener;
use mio::{Interest, Registry};

use crate::peer::PeerConnection;
use crate::reactor::{LISTENER, VISITOR};

/// How long a visitor may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// The listening socket and whoever stands in front of it.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    registry: Registry,
    visitor: Option<(PeerConnection, Duration)>,
}

impl Door {
    /// Listens.
    ///
    /// # Errors
    /// When the address is taken.
    pub(super) fn open(address: SocketAddr, registry: Registry) -> anyhow::Result<Self> {
        let mut listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        registry.register(&mut listener, LISTENER, Interest::READABLE).context("registering the listener")?;
        Ok(Self { listener, registry, visitor: None })
    }

    /// Lets the next one in.
    pub(super) fn accept(&mut self, now: Duration) {
        while let Ok((stream, address)) = self.listener.accept() {
            self.dismiss();
            match PeerConnection::accepted(stream, address, &self.registry, VISITOR) {
                Ok(visitor) => self.visitor = Some((visitor, now + PATIENCE)),
                Err(error) => log::warn!("{address}: {error}"),
            }
        }
    }

    /// The visitor may have said something.
    pub(super) fn mark_readable(&mut self) {
        if let Some((visitor, _)) = &mut self.visitor {
            visitor.mark_readable();
        }
    }

    /// What the visitor says, once it has arrived whole.
    pub(super) fn listen(&mut self, now: Duration) -> Option<Frame> {
        let (visitor, until) = self.visitor.as_mut()?;
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

    /// Answers with these bytes, and sees the visitor off.
    pub(super) fn answer(&mut self, bytes: Vec<u8>) {
        if let Some((visitor, _)) = &mut self.visitor {
            visitor.queue(bytes);
        }
        self.dismiss();
    }

    fn dismiss(&mut self) {
        if let Some((visitor, _)) = self.visitor.take() {
            visitor.close(&self.registry);
        }
    }

    /// When [`Self::listen`] is due at the latest.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.visitor.as_ref().map(|(_, until)| *until)
    }
}
