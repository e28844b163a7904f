//! The encoder's part of a verify: epochs are laid over what was read, and a repair travels in the last one.
//!
//! Always holds: without an inspection an epoch's content is passed on as it is; at most one inspection is kept.

use ftdm::fold::{self, fold, split_zeroes};
use ftdm::log_writes::epoch_log::EpochLog;
use ftship_proto::ids::{Digest, VolumeIndex};
use ftship_proto::record::{Content, RecordError};
use ftship_proto::verify::{Inspection, patch};

/// The encoder's part of an inspection.
#[derive(Debug, Default)]
pub(super) struct Inspecting {
    current: Option<(u64, Inspection)>,
    /// It ends with the next epoch, and whether that is to repair.
    concludes: Option<bool>,
}

/// What the encoder is to do for an inspection.
#[derive(Debug)]
pub(super) enum InspectJob {
    /// Lay every epoch from here on over it.
    Begin(u64, Inspection),
    /// What was read of its places.
    Fill(u64, Vec<Vec<u8>>),
    /// The next epoch is the last one.
    Conclude {
        /// Of the inspection.
        token: u64,
        /// Its content travels in that epoch.
        repair: bool,
    },
    /// Forget it.
    End,
}

impl Inspecting {
    pub(super) fn perform(&mut self, job: InspectJob) {
        match job {
            InspectJob::Begin(token, inspection) => {
                *self = Self { current: Some((token, inspection)), concludes: None };
            }
            InspectJob::Fill(token, read) => {
                if let Some(inspection) = self.current(token) {
                    inspection.fill(&read);
                }
            }
            InspectJob::Conclude { token, repair } => {
                self.concludes = self.current(token).map(|_| repair);
            }
            InspectJob::End => *self = Self::default(),
        }
    }

    fn current(&mut self, token: u64) -> Option<&mut Inspection> {
        self.current.as_mut().filter(|(current, _)| *current == token).map(|(_, inspection)| inspection)
    }

    /// An epoch is encoded: lays it over the inspection.
    pub(super) fn lay_over(&mut self, volume: VolumeIndex, log: &EpochLog) {
        if let Some((_, inspection)) = &mut self.current {
            let put = |extent, content| {
                inspection.put(volume, extent, content_of(content));
                Ok::<(), std::convert::Infallible>(())
            };
            let Ok(()) = fold(log, put);
        }
    }

    /// The epoch's content of a volume, with what is to be repaired in its place, to `push`.
    pub(super) fn fold(
        &self,
        volume: VolumeIndex,
        log: &EpochLog,
        mut push: impl FnMut(ftdm_units::Extent, Content<'_>) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        let repairing = self.current.as_ref().filter(|_| self.concludes == Some(true));
        let Some((_, inspection)) = repairing else {
            return fold(log, |extent, content| push(extent, content_of(content)));
        };
        let mut put = patch(inspection.content(volume), |extent, content| match content {
            Content::Data(data) => {
                split_zeroes(extent, data, &mut |extent, content| push(extent, content_of(content)))
            }
            other => push(extent, other),
        });
        fold(log, |extent, content| put(Some((extent, content_of(content)))))?;
        put(None)
    }

    /// The end of an inspection whose last epoch this was.
    pub(super) fn concluded(&mut self) -> Option<(u64, Vec<Option<Digest>>)> {
        self.concludes.take()?;
        let (token, inspection) = self.current.take()?;
        Some((token, inspection.digests()))
    }
}

/// A fold's content as a record has it.
pub(super) fn content_of(content: fold::Content<'_>) -> Content<'_> {
    match content {
        fold::Content::Data(data) => Content::Data(data),
        fold::Content::Zero => Content::Zero,
        fold::Content::Unknown => Content::Unknown,
    }
}
