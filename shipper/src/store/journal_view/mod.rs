//! What lies in a journal, told without changing it: beside a running daemon, or without one.
//!
//! Always holds: nothing is written, flushed or locked; what is said of an epoch was read and verified, frame
//! by frame; a picture that a running daemon may have blurred is taken again before it is called damaged.

mod picture;
#[cfg(test)]
mod tests;
pub mod text;

use std::path::Path;
use std::time::Duration;

use ftdm::block_io::AlignedBuffer;
use ftship_proto::digest::EpochVerifier;
use ftship_proto::epoch::EpochHeader;
use ftship_proto::frame::{Frame, FrameHeader, FrameKind, HEADER_LEN, MAX_RAW_PAYLOAD};
use ftship_proto::ids::{Epoch, GroupName};
use ftship_proto::journal::{
    BLOCK_LEN, EndClass, EndReason, EpochFrames, Evidence, JournalError, ReadAt, Recovery, Superblock,
    recover,
};
use ftship_proto::record::RecordIter;
use ftship_proto::slot::{DamagedSlot, Found, SlotError};
use ftship_proto::state::{Content, DurableState};

use crate::store::journal_device::DeviceReader;
use crate::store::slots;
use crate::store::storage::Storage;
pub use picture::*;

/// Bytes read at once when looking for what earlier laps left.
const CHUNK: usize = 1 << 20;

/// How often a picture that a daemon may have blurred is taken.
const TRIES: usize = 5;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The journal's device or file.
    pub path: &'a Path,
    /// The group that it is expected to be of.
    pub group: &'a GroupName,
    /// What the group's durable state says; without it no epoch is called committed.
    pub state: Option<&'a DurableState>,
    /// What is wrong with one of the state's slots, if anything is.
    pub state_damage: Option<&'a str>,
    /// Whether a daemon works on it.
    pub daemon: bool,
    /// Also what is applied and not overwritten yet. Reads the whole ring.
    pub all: bool,
}

impl View<'_> {
    /// Reads the journal.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn take(&self) -> Result<Picture, ViewError> {
        let mut before: Option<(Superblock, u64)> = None;
        for _ in 0..TRIES {
            let (superblock, picture) = self.once()?;
            let seen = (superblock, picture.end.position);
            if !self.daemon || picture.verdict == Verdict::Sound || before.as_ref() == Some(&seen) {
                return Ok(picture);
            }
            before = Some(seen);
            std::thread::sleep(Duration::from_millis(300));
        }
        let (_, picture) = self.once()?;
        let verdict = if picture.verdict == Verdict::Sound { Verdict::Sound } else { Verdict::Moving };
        Ok(Picture { verdict, ..picture })
    }

    fn once(&self) -> Result<(Superblock, Picture), ViewError> {
        let storage = Storage::open_to_read(self.path)?;
        let mut buffer = AlignedBuffer::new(MAX_RAW_PAYLOAD + 2 * BLOCK_LEN);
        let mut reader = DeviceReader(&storage, &mut buffer);
        let (mut superblock, torn) = self.superblock(&storage)?;
        // As the daemon does.
        superblock.incarnation =
            superblock.incarnation.or(self.state.and_then(|state| state.last_incarnation));
        let recovery = recover(&superblock, &mut reader);
        let mut scan = Scan {
            view: self,
            superblock: &superblock,
            recovery: &recovery,
            reader,
            epochs: Vec::new(),
            findings: Vec::new(),
        };
        let torn = torn.map(|torn| (torn.slot.offset(), format!("the superblock: {torn}")));
        let state = self.state_damage.map(|what| (0, what.to_owned()));
        let is_impaired = torn.is_some() || state.is_some();
        for (offset, what) in torn.into_iter().chain(state) {
            let advice = "the daemon writes it again when it starts. Check the device, unless the host has just lost its \
                          power while the slot was being written";
            scan.findings.push(Finding { offset, what, advice: advice.into() });
        }
        scan.live();
        if self.all {
            scan.remains();
        }
        let verdict = match scan.judge() {
            Verdict::Sound if is_impaired => Verdict::Impaired,
            verdict => verdict,
        };
        let picture = scan.finish(verdict);
        Ok((superblock, picture))
    }

    /// The superblock, and the slot of it that is damaged.
    fn superblock(&self, storage: &Storage) -> Result<(Superblock, Option<DamagedSlot>), ViewError> {
        let path = || self.path.to_owned();
        let other = |reason: String| ViewError::Other { path: path(), reason };
        let slots = slots::read(storage);
        let [a, b] = slots.both();
        let loaded = Superblock::load(a, b, storage.len()).map_err(|source| match source {
            JournalError::Slot(SlotError::Newer { .. }) => ViewError::Newer { path: path(), source },
            JournalError::Slot(SlotError::Kind { .. }) => other(source.to_string()),
            JournalError::Slot(SlotError::Damaged { a, b })
                if ![a, b].iter().any(|found| matches!(found, Found::Damaged | Found::Unreadable)) =>
            {
                other(format!("holds no journal: {source}"))
            }
            source => ViewError::Damaged { path: path(), source },
        })?;
        let Some((superblock, chosen)) = loaded else {
            return Err(other("blank; `ftship format` makes it ready".into()));
        };
        if superblock.group_name != *self.group {
            return Err(other(format!("belongs to group {}, not {}", superblock.group_name, self.group)));
        }
        Ok((superblock, chosen.damaged()))
    }
}

/// The reading of one picture.
struct Scan<'a> {
    view: &'a View<'a>,
    superblock: &'a Superblock,
    recovery: &'a Recovery,
    reader: DeviceReader<'a>,
    epochs: Vec<EpochLine>,
    findings: Vec<Finding>,
}

impl Scan<'_> {
    fn offset(&self, position: u64) -> u64 {
        self.superblock.ring.offset(position)
    }

    /// What lies between the tail and the end.
    fn live(&mut self) {
        let is_consistent = self.view.state.is_some_and(|state| state.content == Content::Consistent);
        let mut position = self.superblock.tail;
        for sealed in &self.recovery.sealed {
            self.markers(position, sealed.start);
            // Where a coordinator commits, the superblock names the last epoch on its word.
            let has_word = self.superblock.committed.is_none_or(|committed| sealed.epoch <= committed);
            let is_committed = is_consistent && sealed.commit_point && has_word;
            let state = if is_committed { EpochState::Committed } else { EpochState::Staged };
            let mut line = EpochLine {
                epoch: sealed.epoch.0,
                first_epoch: sealed.first_epoch.0,
                state,
                incarnation: sealed.incarnation.to_string(),
                generation: sealed.generation.number,
                bytes: sealed.end - sealed.start,
                frames: 0,
                records: 0,
                offset: self.offset(sealed.start),
                position: Some(sealed.start),
                digest: Some(sealed.digest.to_string()),
            };
            let mut group = None;
            let ring = self.superblock.ring;
            for frame in EpochFrames::new(ring, &mut self.reader, sealed.start, sealed.end) {
                let result = match frame {
                    Ok(frame) => count(&frame, &mut group, &mut line),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(what) = result {
                    self.findings.push(Finding {
                        offset: line.offset,
                        what: format!("epoch {}: {what}", sealed.epoch),
                        advice: NOT_APPLICABLE.into(),
                    });
                    break;
                }
            }
            self.epochs.push(line);
            position = sealed.end;
        }
        self.markers(position, self.recovery.end);
        if let Some(dropped) = self.superblock.dropped {
            let offset = self.offset(dropped.position);
            self.epochs.push(dropped_line(dropped.through, offset, dropped.position, 0));
        }
        self.unfinished();
    }

    /// The drop markers between two epochs.
    fn markers(&mut self, from: u64, to: u64) {
        for position in (from..to).step_by(BLOCK_LEN) {
            let offset = self.offset(position);
            let mut block = [0; BLOCK_LEN];
            self.blocks(position, &mut block);
            if let Some(Ok(header)) = block.first_chunk::<HEADER_LEN>().map(FrameHeader::decode)
                && header.kind == FrameKind::JournalDrop
            {
                self.epochs.push(dropped_line(header.epoch, offset, position, BLOCK_LEN as u64));
            }
        }
    }

    /// The epoch that had begun where the scan ended.
    fn unfinished(&mut self) {
        let (Some(epoch), start) = (self.recovery.ended.unsealed, self.recovery.end) else { return };
        let end = self.recovery.ended.position;
        let mut line = EpochLine {
            epoch: epoch.0,
            first_epoch: epoch.0,
            state: EpochState::Unfinished,
            incarnation: String::new(),
            generation: 0,
            bytes: end - start,
            frames: 0,
            records: 0,
            offset: self.offset(start),
            position: Some(start),
            digest: None,
        };
        let mut group = None;
        for frame in EpochFrames::new(self.superblock.ring, &mut self.reader, start, end) {
            let Ok(frame) = frame else { break };
            line.incarnation = frame.header.incarnation.to_string();
            line.generation = frame.header.generation;
            if count(&frame, &mut group, &mut line).is_err() {
                break;
            }
        }
        self.epochs.push(line);
    }

    /// Reads blocks; what cannot be read is noted, and zeros.
    fn blocks(&mut self, position: u64, blocks: &mut [u8]) {
        if self.reader.read_at(self.offset(position), blocks).is_ok() {
            return;
        }
        for (at, block) in (position..).step_by(BLOCK_LEN).zip(blocks.chunks_mut(BLOCK_LEN)) {
            let offset = self.offset(at);
            if let Err(error) = self.reader.read_at(offset, block) {
                block.fill(0);
                self.findings.push(Finding { offset, what: error.to_string(), advice: UNREADABLE.into() });
            }
        }
    }

    /// Whole epochs, applied long ago, in the space that is free.
    fn remains(&mut self) {
        let capacity = self.superblock.ring.capacity();
        let (mut position, limit) = (self.recovery.end, self.superblock.tail + capacity);
        let mut found = Vec::new();
        let mut chunk = vec![0; CHUNK];
        while position < limit {
            let room = self.superblock.ring.rest(position).min(limit - position);
            let len = usize::try_from(room).map_or(CHUNK, |room| room.min(CHUNK));
            self.blocks(position, &mut chunk[..len]);
            for (at, block) in (position..).step_by(BLOCK_LEN).zip(chunk[..len].chunks(BLOCK_LEN)) {
                if let Some(Ok(header)) = block.first_chunk::<HEADER_LEN>().map(FrameHeader::decode)
                    && header.kind == FrameKind::EpochBegin
                    && header.epoch <= self.superblock.tail_epoch
                {
                    found.extend(self.remainder(at, limit));
                }
            }
            position += len as u64;
        }
        found.sort_by_key(|line| line.epoch);
        found.append(&mut self.epochs);
        self.epochs = found;
    }

    /// The epoch that begins at `position`, if all of it is still there.
    fn remainder(&mut self, position: u64, limit: u64) -> Option<EpochLine> {
        let offset = self.offset(position);
        let mut frames = EpochFrames::new(self.superblock.ring, &mut self.reader, position, limit);
        let mut frame = frames.next()?.ok()?;
        let header = EpochHeader::decode(&frame).ok()?;
        let mut verifier = EpochVerifier::new(header.previous);
        let mut line = EpochLine {
            epoch: header.last_epoch.0,
            first_epoch: header.first_epoch.0,
            state: EpochState::Applied,
            incarnation: header.incarnation.to_string(),
            generation: header.generation.number,
            bytes: 0,
            frames: 0,
            records: 0,
            offset,
            position: None,
            digest: None,
        };
        let mut group = None;
        loop {
            line.bytes += frame.wire_len().next_multiple_of(BLOCK_LEN as u64);
            count(&frame, &mut group, &mut line).ok()?;
            if let Some(summary) = verifier.push(&frame).ok()? {
                return Some(EpochLine { digest: Some(summary.digest.to_string()), ..line });
            }
            frame = frames.next()?.ok()?;
        }
    }

    fn judge(&mut self) -> Verdict {
        let ended = &self.recovery.ended;
        let offset = self.offset(ended.position);
        let held = self.held();
        if let Some(state) = self.view.state
            && state.highest_epoch_seen > self.recovery.floor
            && ended.class == EndClass::Ordinary
        {
            self.findings.push(Finding {
                offset,
                what: format!(
                    "the journal ends at epoch {}, but the state has seen epoch {}: the journal is older than the \
                     state, or was formatted without it",
                    self.recovery.floor, state.highest_epoch_seen
                ),
                advice: advice_of_loss(held),
            });
            return Verdict::Damaged;
        }
        if let Some(lost) = self.view.state.and_then(|state| state.lost).filter(|lost| *lost > held) {
            self.findings.push(Finding {
                offset,
                what: format!("epochs {} to {lost} were acknowledged, and were lost earlier", held.next()),
                advice: advice_of_loss(held),
            });
            return Verdict::Damaged;
        }
        match ended.class {
            EndClass::Ordinary if self.findings.iter().any(|finding| finding.advice == NOT_APPLICABLE) => {
                Verdict::Damaged
            }
            EndClass::Ordinary => {
                if let EndReason::Unreadable(_) = ended.reason {
                    let (what, advice) = (ended.reason.to_string(), UNREADABLE.into());
                    self.findings.push(Finding { offset, what, advice });
                }
                Verdict::Sound
            }
            EndClass::Refused => {
                self.findings.push(Finding {
                    offset,
                    what: ended.reason.to_string(),
                    advice: "update this host; nothing may be changed here before that".into(),
                });
                Verdict::Newer
            }
            EndClass::Damaged { lost_through, by } => {
                let by = match by {
                    Evidence::Superblock => "the superblock says so".to_owned(),
                    Evidence::LaterEpoch { epoch, position } => {
                        format!("epoch {epoch} at byte {} says so", self.offset(position))
                    }
                    Evidence::Unreadable => "perhaps: where it would be cannot be read".to_owned(),
                };
                let what = format!(
                    "epochs {} to {lost_through} were durable ({by}) and cannot be read any more: {}",
                    held.next(),
                    ended.reason
                );
                self.findings.push(Finding { offset, what, advice: advice_of_loss(held) });
                Verdict::Damaged
            }
        }
    }

    /// The last epoch of the unbroken chain.
    fn held(&self) -> Epoch {
        self.recovery.sealed.last().map_or(self.superblock.tail_epoch, |last| last.epoch)
    }

    fn finish(self, verdict: Verdict) -> Picture {
        let (superblock, recovery) = (self.superblock, self.recovery);
        let committed = self.epochs.iter().rev().find(|line| line.state == EpochState::Committed);
        let is_consistent = self.view.state.is_some_and(|state| state.content == Content::Consistent);
        let promotable = committed.map_or(superblock.tail_epoch.0, |line| line.epoch);
        Picture {
            group: superblock.group_name.to_string(),
            device: self.view.path.into(),
            daemon: self.view.daemon,
            ring_start: superblock.ring.end() - superblock.ring.capacity(),
            ring_size: superblock.ring.capacity(),
            used: recovery.end - superblock.tail,
            applied: superblock.tail_epoch.0,
            promotable: is_consistent.then_some(promotable),
            end: EndLine {
                position: recovery.ended.position,
                offset: superblock.ring.offset(recovery.ended.position),
                reason: recovery.ended.reason.to_string(),
            },
            epochs: self.epochs,
            findings: self.findings,
            verdict,
        }
    }
}

const UNREADABLE: &str =
    "nothing is lost by it: no epoch lies there. Check the device, and replace it in time";

const NOT_APPLICABLE: &str = "its digest is right, so it was sent like this: report it. `ftship format --force`, and the primary makes a full sync";

fn advice_of_loss(held: Epoch) -> String {
    format!(
        "the device lost or changed data: look into the kernel's log and check it. The chain is whole up to epoch \
         {held}. The daemon starts on that, says what is lost, and the primary sends it again. If the primary is gone: \
         copy journal, state and volumes if you can, then `ftship promote GROUP --accept-loss`"
    )
}

fn dropped_line(through: Epoch, offset: u64, position: u64, bytes: u64) -> EpochLine {
    EpochLine {
        epoch: through.0,
        first_epoch: through.0,
        state: EpochState::Dropped,
        incarnation: String::new(),
        generation: 0,
        bytes,
        frames: 0,
        records: 0,
        offset,
        position: Some(position),
        digest: None,
    }
}

/// Adds a frame's figures; what is wrong with its records is the error.
fn count(
    frame: &Frame,
    group: &mut Option<ftship_proto::group::GroupDescription>,
    line: &mut EpochLine,
) -> Result<(), String> {
    line.frames += 1;
    if frame.header.kind == FrameKind::EpochBegin {
        *group = Some(EpochHeader::decode(frame).map_err(|error| error.to_string())?.group);
    }
    let (true, Some(group)) = (frame.header.kind.carries_records(), group.as_ref()) else { return Ok(()) };
    let mut scratch = Vec::new();
    let raw = frame.raw_payload(&mut scratch).map_err(|error| error.to_string())?;
    let records = RecordIter::new(raw, frame.header.kind, frame.header.record_count, group);
    line.records += records.map_err(|error| error.to_string())?.count() as u64;
    Ok(())
}
