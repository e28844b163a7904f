//! The connection to the backup: made, heard, fed with what the encoder makes, and given up.
//!
//! Always holds: nothing that was queued for one connection reaches a later one.

use std::net::SocketAddr;
use std::time::Duration;

use ftship_proto::frame::Frame;
use ftship_proto::message::Message;
use ftship_proto::primary::PrimaryEvent;

use super::PrimaryDriver;
use super::capture::jobs::CutJob;
use super::encode::EncodedItem;
use crate::link::peer::PeerConnection;
use crate::runtime::tokens::PEER;

impl PrimaryDriver {
    pub(super) fn connect(&mut self, now: Duration) {
        match self.config.peer.literal() {
            Some(address) => self.connect_to(now, Ok(address)),
            // It is looked up first, see `found`.
            None => self.door.seek(now),
        }
    }

    /// Goes on with an attempt once the peer's name was looked up.
    pub(super) fn found(&mut self, now: Duration) {
        if let Some(address) = self.door.found() {
            self.connect_to(now, address);
            self.act(now);
        }
    }

    fn connect_to(&mut self, now: Duration, address: std::io::Result<SocketAddr>) {
        match address.and_then(|address| self.door.connect(now, address, PEER)) {
            Ok(mut peer) => {
                peer.give_sent_to(self.encoder.buffers());
                self.peer = Some(peer);
            }
            Err(error) => self.lost(now, format!("{}: {error}", self.config.peer)),
        }
    }

    pub(super) fn close(&mut self, reason: &str) {
        // An attempt that reached nobody is one of many.
        let was_there = self.peer.as_ref().is_some_and(PeerConnection::is_established);
        log::log!(
            if was_there { log::Level::Info } else { log::Level::Debug },
            "connection closed: {reason}"
        );
        self.hang_up();
    }

    pub(super) fn hang_up(&mut self) {
        self.door.give_up();
        if let Some(peer) = self.peer.take() {
            peer.close(&self.registry);
        }
        // Nothing that is queued belongs to a later connection.
        self.next_chain();
    }

    pub(super) fn next_chain(&mut self) {
        self.chain += 1;
        (self.copying.copied, self.copying.skipped) = (0, 0);
    }

    pub(super) fn lost(&mut self, now: Duration, reason: String) {
        self.hang_up();
        self.core.handle(now, PrimaryEvent::Disconnected { reason });
    }

    /// Gives a connection up that would only be found silent, if the path is seen to be why.
    pub(super) fn judge_path(&mut self, now: Duration) {
        let fault = self.peer.as_ref().and_then(|peer| peer.path_fault(self.config.limits.timeout));
        if let Some(fault) = fault {
            self.lost(now, format!("{}: {fault}", self.config.peer));
            self.act(now);
        }
    }

    /// Takes note of a connection that cannot be used any more.
    pub(super) fn broke(&mut self, now: Duration, result: std::io::Result<()>) {
        if let Err(error) = result {
            // The other side may be the first to miss what the path drops.
            let fault = self.peer.as_ref().and_then(|peer| peer.path_fault(Duration::ZERO));
            let why = fault.map_or_else(|| error.to_string(), |fault| format!("{error}: {fault}"));
            self.lost(now, format!("{}: {why}", self.config.peer));
            self.act(now);
        }
    }

    pub(super) fn send(&mut self, message: &Message) {
        let frame = self.encoded(message);
        if let Some(peer) = &mut self.peer {
            peer.queue(frame);
        }
    }

    pub(super) fn encoded(&self, message: &Message) -> Frame {
        message.encode(self.stamp.generation, self.stamp.incarnation)
    }

    /// Moves what the encoder has made to the connection, as far as that wants it.
    pub(super) fn pump(&mut self, now: Duration) {
        while self.peer.as_ref().is_none_or(PeerConnection::wants_output) {
            let Some(encoded) = self.encoder.pull() else { break };
            let is_current = encoded.chain == self.chain;
            match encoded.item {
                EncodedItem::LogsDone(logs) => self.cut_thread.push(CutJob::Recycle(logs)),
                EncodedItem::Copied(encoded) => self.piece_encoded(now, encoded),
                // A chain that was given up.
                _ if !is_current => {}
                EncodedItem::Frame(frame) => {
                    if let Some(peer) = &mut self.peer {
                        peer.queue(frame);
                    }
                }
                EncodedItem::Part { frames, stored } => self.part_encoded(now, frames, stored),
                EncodedItem::Concluded { token, digests } => {
                    self.core.handle(now, PrimaryEvent::Concluded { token, digests });
                }
                EncodedItem::Epoch { epoch, digest, stored, touched } => {
                    self.shown.figures.bytes_shipped += stored;
                    self.core.handle(now, PrimaryEvent::Encoded { epoch, digest, stored, touched });
                }
                EncodedItem::Failed { reason } => {
                    log::error!("{reason}");
                    self.core.handle(now, PrimaryEvent::ShippingFailed { reason });
                }
            }
            self.act(now);
        }
    }

    /// Establishes and reads the connection.
    pub(super) fn hear(&mut self, now: Duration) -> std::io::Result<()> {
        let Some(peer) = &mut self.peer else { return Ok(()) };
        if peer.establish()? {
            self.core.handle(now, PrimaryEvent::Connected);
            self.act(now);
        }
        while let Some(peer) = &mut self.peer {
            let Some(frame) = peer.next_frame()? else { break };
            self.core.handle(now, PrimaryEvent::Frame(frame));
            self.act(now);
        }
        Ok(())
    }

    /// Writes what there is to say.
    pub(super) fn talk(&mut self, now: Duration) -> std::io::Result<()> {
        self.pump(now);
        match &mut self.peer {
            Some(peer) => peer.flush(),
            None => Ok(()),
        }
    }
}
