//! Folding, compressing and framing, on a thread of its own, in the order of the jobs.
//!
//! Always holds: what comes out is in the order of the jobs; an epoch's digest is reported before its
//! last frame is handed over; frames wait in a channel of [`FRAMES_AHEAD`] at most, so a slow link
//! stops this thread, not the capture.

use std::sync::mpsc::{self, Receiver, SyncSender};

use ftdm::block_io::AlignedBuffer;
use ftdm::fold::{self, split_zeroes};
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm_units::{SECTOR_SIZE, Sectors};
use ftship_proto::epoch::EpochHeader;
use ftship_proto::epoch_encoder::{Buffers, EpochEncoder, PlainEncoder};
use ftship_proto::frame::{Frame, FrameKind, Stamp};
use ftship_proto::ids::{Digest, Epoch, VolumeIndex};
use ftship_proto::message::Message;
use ftship_proto::primary::{AfterEpoch, Batch, Comparison, Run, Told, Touched, TouchedBytes};
use ftship_proto::record::Content;
use ftship_proto::verify::{Place, ShortDigest};

use super::inspecting::{InspectJob, Inspecting, content_of};
use super::pace::Pace;
use crate::runtime::reactor::Reports;
use crate::runtime::worker::Worker;

/// Encoded frames that may wait for the link, of about 1 MiB at most each.
const FRAMES_AHEAD: usize = 8;

/// What is to be encoded. `chain` numbers the chains of epochs, so that what belongs to one that was
/// given up can be told apart.
#[derive(Debug)]
pub(super) enum EncodeJob {
    /// Begin a chain.
    Open {
        /// Its number.
        chain: u64,
        /// Digest before its first epoch.
        previous: Digest,
    },
    /// What is copied from now on is part of this epoch.
    CatchUp {
        /// See [`EpochHeader`].
        first: Epoch,
        /// Its number.
        epoch: Epoch,
        /// See [`EpochHeader`].
        staged: Epoch,
    },
    /// A piece of what is copied: of a base copy, or of the epoch that was opened for it.
    Copied(Piece),
    /// What was captured of each volume while it is copied: part of the same.
    Part(Vec<EpochLog>),
    /// An epoch as captured; behind what was copied into it.
    Epoch {
        /// Its number.
        epoch: Epoch,
        /// See [`EpochHeader`].
        staged: Epoch,
        /// What was captured of each volume.
        logs: Vec<EpochLog>,
        /// What becomes of the set of granules after it.
        after: AfterEpoch,
    },
    /// A message that keeps its place in the stream.
    Message(Message),
    /// Something about the inspection of a verify.
    Inspect(InspectJob),
}

/// Some places of a volume, and what they hold.
#[derive(Debug)]
pub(super) struct Piece {
    /// Which.
    pub(super) batch: Batch,
    /// Their content as read, one behind the other.
    pub(super) buffer: AlignedBuffer,
    /// The digests of what was read, where it is compared.
    pub(super) digests: Vec<ShortDigest>,
    /// What the backup has there.
    pub(super) told: Told,
}

/// A piece that is out as far as it has to be, or in a frame that is being filled.
#[derive(Debug)]
pub(super) struct EncodedPiece {
    /// Its buffer is free again.
    pub(super) piece: Piece,
    /// Frames that it took.
    pub(super) frames: u64,
    /// Their bytes.
    pub(super) stored: u64,
    /// Bytes of it that the backup has.
    pub(super) skipped: u64,
}

/// What comes out, in order.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The chain that it belongs to.
    pub(super) chain: u64,
    /// What it is.
    pub(super) item: EncodedItem,
}

/// See [`Encoded`].
#[derive(Debug)]
pub(super) enum EncodedItem {
    /// To be sent.
    Frame(Frame),
    /// All frames of this epoch but the last are out.
    Epoch {
        /// Its number.
        epoch: Epoch,
        /// Chained digest.
        digest: Digest,
        /// Bytes of all its frames.
        stored: u64,
        /// What was written to, up to this epoch.
        touched: TouchedBytes,
    },
    /// The buffers of a captured epoch are free again.
    LogsDone(Vec<EpochLog>),
    /// An inspection has seen its last epoch.
    Concluded {
        /// Which one.
        token: u64,
        /// The digests of its places.
        digests: Vec<Option<Digest>>,
    },
    /// A piece of what is copied.
    Copied(EncodedPiece),
    /// A part of the log.
    Part {
        /// Frames that it took.
        frames: u64,
        /// Their bytes.
        stored: u64,
    },
    /// The encoder cannot go on with this chain.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The encoder's thread.
#[derive(Debug)]
pub(super) struct Encoder {
    // Dropped first: without it the thread finds its output closed and ends its queue quickly.
    output: Receiver<Encoded>,
    worker: Worker<EncodeJob>,
    pace: Pace,
    buffers: Buffers,
}

impl Encoder {
    /// Starts the thread. Frames carry `stamp`'s generation and incarnation; `touched` is empty and knows the volumes.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        stamp: Stamp,
        header: EpochHeader,
        touched: Touched,
        reports: Reports<()>,
    ) -> anyhow::Result<Self> {
        let (sender, output) = mpsc::sync_channel(FRAMES_AHEAD);
        let sink = Sink { chain: 0, sender, reports };
        let buffers = Buffers::default();
        let base = PlainEncoder::base(header.group.clone(), stamp.generation, stamp.incarnation)
            .reusing(buffers.clone());
        let comparison = Comparison::in_place();
        let inspecting = Inspecting::default();
        let mut encoding = Encoding {
            stamp,
            header,
            base,
            catch_up: None,
            comparison,
            sink,
            inspecting,
            touched,
            buffers: buffers.clone(),
        };
        let pace = Pace::new();
        let at_its_pace = pace.clone();
        let worker = Worker::start("encoder", 512 << 10, move |queue| {
            at_its_pace.begin();
            for job in queue {
                encoding.perform(job);
                at_its_pace.done();
            }
        })?;
        Ok(Self { output, worker, pace, buffers })
    }

    /// Where payloads belong that were sent.
    pub(super) fn buffers(&self) -> Buffers {
        self.buffers.clone()
    }

    /// Queues a job. The driver bounds how many: by the window, and by the pieces that are copied.
    pub(super) fn push(&self, job: EncodeJob) {
        self.pace.add();
        self.worker.push(job);
    }

    /// The next piece of output, if one is ready.
    pub(super) fn pull(&self) -> Option<Encoded> {
        self.pace.look();
        self.output.try_recv().ok()
    }
}

/// Where output goes.
#[derive(Debug)]
struct Sink {
    chain: u64,
    sender: SyncSender<Encoded>,
    reports: Reports<()>,
}

impl Sink {
    fn put(&self, item: EncodedItem) {
        // Nobody listens any more only while the daemon stops.
        if self.sender.send(Encoded { chain: self.chain, item }).is_ok() {
            self.reports.wake();
        }
    }

    fn frame(&self, frame: Frame) {
        self.put(EncodedItem::Frame(frame));
    }
}

struct Encoding {
    stamp: Stamp,
    /// The header of the next epoch, but for its numbers.
    header: EpochHeader,
    base: PlainEncoder,
    /// The epoch that is being copied into.
    catch_up: Option<EpochEncoder>,
    /// What of a copy need not be sent.
    comparison: Comparison,
    sink: Sink,
    inspecting: Inspecting,
    /// Granules that were written to.
    touched: Touched,
    /// Memory of payloads.
    buffers: Buffers,
}

impl Encoding {
    fn perform(&mut self, job: EncodeJob) {
        match job {
            EncodeJob::Open { chain, previous } => {
                self.sink.chain = chain;
                self.inspecting = Inspecting::default();
                self.header.previous = previous;
                self.catch_up = None;
                let Stamp { generation, incarnation, .. } = self.stamp;
                self.base = PlainEncoder::base(self.header.group.clone(), generation, incarnation)
                    .reusing(self.buffers.clone());
                self.comparison = Comparison::in_place();
                // A chain begins with a capture, and that with a roll.
                self.touched.end_epoch(AfterEpoch::Rolled);
            }
            EncodeJob::Message(message) => {
                self.sink.frame(message.encode(self.stamp.generation, self.stamp.incarnation));
            }
            EncodeJob::Inspect(job) => self.inspecting.perform(job),
            EncodeJob::CatchUp { first, epoch, staged } => {
                let header = &mut self.header;
                (header.first_epoch, header.last_epoch, header.staged) = (first, epoch, staged);
                self.catch_up = Some(EpochEncoder::reusing(header.clone(), self.buffers.clone()));
                self.comparison = Comparison::staged();
            }
            EncodeJob::Copied(piece) => self.copied(piece),
            EncodeJob::Part(logs) => {
                if let Err(error) = self.part(&logs) {
                    self.sink.put(EncodedItem::Failed { reason: format!("a part of the log: {error:#}") });
                }
                self.sink.put(EncodedItem::LogsDone(logs));
            }
            EncodeJob::Epoch { epoch, staged, logs, after } => {
                self.header.staged = staged;
                if let Err(error) = self.epoch(epoch, &logs, after) {
                    self.sink.put(EncodedItem::Failed { reason: format!("epoch {epoch}: {error:#}") });
                }
                self.sink.put(EncodedItem::LogsDone(logs));
            }
        }
    }

    fn epoch(&mut self, epoch: Epoch, logs: &[EpochLog], after: AfterEpoch) -> anyhow::Result<()> {
        let mut encoder = self.catch_up.take().unwrap_or_else(|| {
            (self.header.first_epoch, self.header.last_epoch) = (epoch, epoch);
            EpochEncoder::reusing(self.header.clone(), self.buffers.clone())
        });
        let sink = &self.sink;
        // The last frame makes the backup answer: the digest has to be known here before.
        let mut last = None;
        let mut put = |frame: Frame| {
            if frame.header.kind == FrameKind::EpochEnd {
                last = Some(frame);
            } else {
                sink.frame(frame);
            }
        };
        for (volume, log) in (0..).map(VolumeIndex).zip(logs) {
            self.inspecting.lay_over(volume, log);
            let (inspecting, touched) = (&self.inspecting, &mut self.touched);
            inspecting.fold(volume, log, |extent, content| {
                touched.note(volume, extent);
                encoder.push(volume, extent, content, &mut put)
            })?;
        }
        if let Some((token, digests)) = self.inspecting.concluded() {
            sink.put(EncodedItem::Concluded { token, digests });
        }
        let summary = encoder.finish(&mut put);
        self.header.previous = summary.digest;
        let touched = self.touched.end_epoch(after);
        let (digest, stored) = (summary.digest, summary.stored_bytes);
        sink.put(EncodedItem::Epoch { epoch, digest, stored, touched });
        if let Some(frame) = last {
            sink.frame(frame);
        }
        Ok(())
    }

    fn part(&mut self, logs: &[EpochLog]) -> anyhow::Result<()> {
        let (mut frames, mut stored) = (0, 0);
        let Self { catch_up, base, comparison, sink, touched, .. } = self;
        let mut put = |frame: Frame| {
            frames += 1;
            stored += frame.wire_len();
            sink.frame(frame);
        };
        for (volume, log) in (0..).map(VolumeIndex).zip(logs) {
            fold::fold(log, |extent, content| {
                touched.note(volume, extent);
                comparison.sent(Place { volume, extent });
                match (catch_up.as_mut(), content_of(content)) {
                    (Some(epoch), content) => epoch.push(volume, extent, content, &mut put),
                    // A base copy has no unknown content; zeroes are as good as any.
                    (None, Content::Unknown) => base.push(volume, extent, Content::Zero, &mut put),
                    (None, content) => base.push(volume, extent, content, &mut put),
                }
            })?;
        }
        if catch_up.is_none() {
            base.flush(&mut put);
        }
        sink.put(EncodedItem::Part { frames, stored });
        Ok(())
    }

    fn copied(&mut self, piece: Piece) {
        let (mut frames, mut stored) = (0, 0);
        let Self { catch_up, base, comparison, sink, .. } = self;
        let mut put = |frame: Frame| {
            frames += 1;
            stored += frame.wire_len();
            sink.frame(frame);
        };
        let mut skipped = piece.batch.sectors().0;
        for Run { place: Place { volume, extent }, at } in
            comparison.differing(&piece.batch, &piece.digests, piece.told.as_deref())
        {
            skipped -= extent.len().0;
            let data = &piece.buffer.bytes()[bytes(at)..bytes(at) + bytes(extent.len())];
            let result = split_zeroes(extent, data, &mut |extent, content| match catch_up {
                Some(epoch) => epoch.push(volume, extent, content_of(content), &mut put),
                None => base.push(volume, extent, content_of(content), &mut put),
            });
            if let Err(error) = result {
                sink.put(EncodedItem::Failed { reason: format!("copying {volume}, {extent}: {error}") });
            }
        }
        if catch_up.is_none() {
            base.flush(&mut put);
        }
        let skipped = skipped * SECTOR_SIZE as u64;
        sink.put(EncodedItem::Copied(EncodedPiece { piece, frames, stored, skipped }));
    }
}

/// Sectors of a piece, in bytes.
fn bytes(sectors: Sectors) -> usize {
    usize::try_from(sectors.0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE)
}
