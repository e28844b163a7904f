//! What must hold, judged from the disks and from what each side said, never from the state machines.
//!
//! Always holds: the checker's history comes from the guest's model volume at each cut alone; a violation
//! is a panic whose text names the invariant.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use ftship_proto::frame::Frame;
use ftship_proto::group::GroupDescription;
use ftship_proto::ids::{Digest, Epoch, Incarnation};
use ftship_proto::journal::{EndClass, EpochFrames, Placement, Superblock, recover};
use ftship_proto::record::{Content as RecordContent, Record, RecordIter};
use ftship_proto::state::{Content as Held, DurableState, Role};

use crate::content::{self, Content};
use crate::disk::{Disk, Image, ImageReader};
use crate::scenario::Scenario;

#[derive(Clone, Debug)]
struct Cut {
    content: Rc<Content>,
    writes: u64,
}

#[derive(Clone, Debug)]
struct Known {
    epoch: Epoch,
    incarnation: Incarnation,
    commit_point: bool,
    content: Rc<Content>,
}

#[derive(Debug)]
struct Request {
    /// Writes made before it.
    writes: u64,
    is_answered: bool,
}

/// What a backup's disks hold.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) state: DurableState,
    pub(crate) tail_epoch: Epoch,
    pub(crate) sealed: Vec<(Epoch, Digest)>,
    /// What a promote gives, when it gives anything.
    pub(crate) promotable: Option<(Epoch, Digest)>,
}

/// See the head of this module.
#[derive(Debug)]
pub(crate) struct Checker {
    blocks: usize,
    group: GroupDescription,
    cuts: HashMap<(Incarnation, Epoch), Cut>,
    known: HashMap<Digest, Known>,
    /// The highest epoch of each primary that the backup said is staged.
    staged: HashMap<Incarnation, Epoch>,
    /// The last epoch that a primary saw committed.
    floor: Epoch,
    /// A full sync onto it was begun since: until that ends the backup may be inconsistent.
    is_superseded: bool,
    requests: BTreeMap<u64, Request>,
}

impl Checker {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            blocks: scenario.blocks,
            group: crate::encoding::group(scenario),
            cuts: HashMap::new(),
            known: HashMap::new(),
            staged: HashMap::new(),
            floor: Epoch::NONE,
            is_superseded: false,
            requests: BTreeMap::new(),
        }
    }

    pub(crate) fn cut(&mut self, incarnation: Incarnation, epoch: Epoch, content: &Content, writes: u64) {
        let cut = Cut { content: Rc::new(content.clone()), writes };
        // A cut that was never shipped leaves its number to the next one.
        self.cuts.insert((incarnation, epoch), cut);
    }

    pub(crate) fn encoded(
        &mut self,
        incarnation: Incarnation,
        epoch: Epoch,
        digest: Digest,
        commit_point: bool,
    ) {
        let content = Rc::clone(&self.cuts[&(incarnation, epoch)].content);
        self.known.insert(digest, Known { epoch, incarnation, commit_point, content });
    }

    /// The primary has told the backup to begin a full sync.
    pub(crate) fn superseded(&mut self) {
        self.is_superseded = true;
    }

    /// Invariant 2, its first half: committed means acknowledged.
    pub(crate) fn committed(&mut self, incarnation: Incarnation, epoch: Epoch) {
        let staged = self.staged.get(&incarnation).copied().unwrap_or(Epoch::NONE);
        assert!(epoch <= staged, "the primary takes epoch {epoch} for committed, staged is {staged}");
        self.floor = self.floor.max(epoch);
        self.is_superseded = false;
    }

    /// Invariant 4: what the backup acknowledges would survive a power cut right now.
    pub(crate) fn acknowledges(
        &mut self,
        journal: &Disk,
        state: &Disk,
        volume: &Disk,
        epoch: Epoch,
        digest: Digest,
    ) {
        let Some(known) = self.known.get(&digest).cloned() else {
            panic!("epoch {epoch} is acknowledged with a digest that no primary made")
        };
        assert_eq!(known.epoch, epoch, "an acknowledgement confuses epochs");
        let found = self.examine(&journal.durable, &state.durable, &volume.durable);
        let is_there = found.tail_epoch >= epoch || found.sealed.contains(&(epoch, digest));
        assert!(is_there, "epoch {epoch} is acknowledged and not durable");
        let is_consistent = matches!(found.state.content, Held::Consistent);
        assert!(
            is_consistent || !known.commit_point,
            "epoch {epoch} is acknowledged as committed while the durable state says {:?}",
            found.state.content
        );
        let staged = self.staged.entry(known.incarnation).or_default();
        *staged = (*staged).max(epoch);
    }

    /// Invariant 5: nothing between the durable tail and the head is overwritten.
    pub(crate) fn appends(&self, journal: &Disk, placement: &Placement) {
        let superblock = superblock(&journal.durable);
        let limit = superblock.tail + superblock.ring.capacity();
        assert!(
            placement.position >= superblock.tail && placement.position + placement.len <= limit,
            "a frame goes to {}..{} of the journal, the durable tail is {}",
            placement.position,
            placement.position + placement.len,
            superblock.tail
        );
    }

    /// Invariants 1 to 3 on these disks, as a restart would find them.
    pub(crate) fn examine(&self, journal: &Image, state: &Image, volume: &Image) -> Found {
        let [a, b] = state.slots();
        let state = DurableState::load(a, b).expect("the state is readable").expect("and formatted").0;
        let superblock = superblock(journal);
        let recovery = match recover(&superblock, &mut ImageReader(journal)) {
            Ok(recovery) => recovery,
            Err(never) => match never {},
        };
        assert_eq!(
            recovery.ended.class,
            EndClass::Ordinary,
            "the journal is damaged: {}",
            recovery.ended.reason
        );
        let mut found = Found {
            tail_epoch: superblock.tail_epoch,
            sealed: recovery.sealed.iter().map(|sealed| (sealed.epoch, sealed.digest)).collect(),
            promotable: None,
            state,
        };
        if found.state.content != Held::Consistent {
            let legal = self.floor.is_none() || self.is_superseded;
            assert!(legal, "epoch {} was committed, the state is {:?}", self.floor, found.state.content);
            return found;
        }
        let last = recovery.sealed.last();
        let (epoch, digest) =
            last.map_or((superblock.tail_epoch, superblock.tail_digest), |last| (last.epoch, last.digest));
        assert!(epoch >= self.floor, "promotable to epoch {epoch}, epoch {} was committed", self.floor);
        let Some(known) = self.known.get(&digest) else {
            panic!("a consistent backup holds epoch {epoch} of an unknown digest")
        };
        assert!(known.epoch == epoch && known.commit_point, "epoch {epoch} is no commit point");
        let mut content = content::read(volume, self.blocks);
        for sealed in &recovery.sealed {
            let mut reader = ImageReader(journal);
            for frame in EpochFrames::new(superblock.ring, &mut reader, sealed.start, sealed.end) {
                self.redo(&frame.expect("it was just recovered"), &mut content);
            }
        }
        let wrong = content.iter().zip(known.content.iter()).position(|(is, should)| is != should);
        if let Some(block) = wrong {
            let (is, should) = (content[block], known.content[block]);
            panic!("epoch {epoch} is held wrongly: block {block} has write {is}, at the cut it had {should}");
        }
        found.promotable = Some((epoch, digest));
        found
    }

    fn redo(&self, frame: &Frame, content: &mut Content) {
        if !frame.header.kind.carries_records() {
            return;
        }
        let mut scratch = Vec::new();
        let raw = frame.raw_payload(&mut scratch).expect("it was checked when it was received");
        let records = RecordIter::new(raw, frame.header.kind, frame.header.record_count, &self.group);
        for record in records.expect("it was checked when it was received") {
            let Record::Content { extent, content: new, .. } = record else { continue };
            let start = usize::try_from(extent.start().0).expect("a small volume");
            let len = usize::try_from(extent.len().0).expect("a small volume");
            for (index, number) in content[start..start + len].iter_mut().enumerate() {
                *number = match new {
                    RecordContent::Data(data) => content::number_of(&data[index * 512..]),
                    RecordContent::Zero | RecordContent::Unknown => 0,
                };
            }
        }
    }

    /// Invariant 1, where it counts: the volume that is handed over.
    pub(crate) fn promoted(&self, journal: &Disk, state: &Disk, volume: &Disk, epoch: Epoch, noisy: bool) {
        for (journal, state, volume) in
            [(&journal.view, &state.view, &volume.view), (&journal.durable, &state.durable, &volume.durable)]
        {
            let found = self.examine(journal, state, volume);
            assert_eq!(found.state.role, Role::Primary, "promoted, and the state does not say so");
            assert!(found.sealed.is_empty(), "promoted with epochs that are not applied");
            let lineage = found.state.lineage.last().expect("a promote adds a generation");
            let is_same = found.promotable == Some((epoch, lineage.digest));
            assert!(is_same, "promoted at {epoch}, which the disks do not hold: {:?}", found.promotable);
            assert_eq!(lineage.first_epoch, epoch.next(), "the new generation begins elsewhere");
            assert!(content::is_whole(volume, self.blocks, noisy), "the promoted volume has torn sectors");
        }
    }

    pub(crate) fn requested(&mut self, id: u64, writes: u64) {
        self.requests.insert(id, Request { writes, is_answered: false });
    }

    /// The daemon that they asked is gone.
    pub(crate) fn requesters_gone(&mut self) {
        self.requests.clear();
    }

    /// Invariant 8: the epoch that is named holds everything written before the request.
    pub(crate) fn checkpoint_cut(&mut self, id: u64, incarnation: Incarnation, epoch: Epoch) {
        let request = self.requests.get(&id).expect("it was asked for");
        let cut = &self.cuts[&(incarnation, epoch)];
        assert!(cut.writes >= request.writes, "checkpoint {id}: epoch {epoch} was cut before the request");
    }

    pub(crate) fn checkpoint_committed(&mut self, id: u64, incarnation: Incarnation, epoch: Epoch) {
        self.checkpoint_cut(id, incarnation, epoch);
        assert!(
            epoch <= self.floor && !self.is_superseded,
            "checkpoint {id}: epoch {epoch} is not committed"
        );
        self.final_answer(id);
    }

    pub(crate) fn checkpoint_failed(&mut self, id: u64) {
        self.final_answer(id);
    }

    fn final_answer(&mut self, id: u64) {
        let request = self.requests.get_mut(&id).expect("it was asked for");
        assert!(!request.is_answered, "checkpoint {id} is answered twice");
        request.is_answered = true;
    }

    /// Invariant 8 at the end: nobody waits for ever.
    pub(crate) fn all_answered(&self) {
        let waiting: Vec<_> = self.requests.iter().filter(|(_, request)| !request.is_answered).collect();
        assert!(waiting.is_empty(), "checkpoints that were never answered: {waiting:?}");
    }
}

fn superblock(journal: &Image) -> Superblock {
    let [a, b] = journal.slots();
    Superblock::load(a, b, u64::MAX).expect("the superblock is readable").expect("and formatted").0
}
