//! What must hold, judged from the disks and from what each side said, never from the state machines.
//!
//! Always holds: the checker's history comes from the guest's model volume at each cut alone; a violation
//! is a panic whose text names the invariant.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use ftship_proto::frame::Frame;
use ftship_proto::group::GroupDescription;
use ftship_proto::ids::{Digest, Epoch, Incarnation};
use ftship_proto::journal::{EndClass, EpochFrames, Placement, Recovery, SealedEpoch, Superblock, recover};
use ftship_proto::primary::Until;
use ftship_proto::protocol::{AckPolicy, CommitPolicy};
use ftship_proto::record::{Content as RecordContent, Record, RecordIter};
use ftship_proto::state::{Content as Held, DurableState, Role};

use crate::bounds::Rolls;
use crate::content::{self, Content, Shape};
use crate::disk::{Disk, Disks, Image, ImageReader, Images};
use crate::growing::{self, is_within};
use crate::primary_host::PrimaryHost;
use crate::scenario::Scenario;

#[derive(Clone, Debug)]
struct Cut {
    content: Rc<Content>,
    /// Of the volumes, in blocks.
    sizes: Vec<usize>,
    writes: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Known {
    epoch: Epoch,
    pub(crate) incarnation: Incarnation,
    content: Rc<Content>,
    sizes: Vec<usize>,
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
    /// What is committed on a coordinator's word, where there is one.
    pub(crate) committed: Option<Epoch>,
    /// What a promote gives, or may be asked for.
    pub(crate) choices: Vec<(Epoch, Digest)>,
}

/// See the head of this module.
#[derive(Debug)]
pub(crate) struct Checker {
    shape: Shape,
    group: GroupDescription,
    cuts: HashMap<(Incarnation, Epoch), Cut>,
    pub(crate) known: HashMap<Digest, Known>,
    /// The highest epoch of each primary that the backup said is staged.
    staged: HashMap<Incarnation, Epoch>,
    /// The last epoch that a primary saw committed.
    floor: Epoch,
    /// A full sync onto it was begun since: until that ends the backup may be inconsistent.
    is_superseded: bool,
    requests: BTreeMap<u64, Request>,
    /// What the guest's two paired blocks ever held together.
    pairs: HashSet<[u64; 2]>,
    is_struck: bool,
    pub(crate) commit: CommitPolicy,
    ack: AckPolicy,
    /// The coordinator's last word to each primary.
    words: HashMap<Incarnation, Epoch>,
    last_word: Epoch,
    /// Where it wants a promote to end.
    chosen: Epoch,
    /// What the present primary was told is staged, where it must not be lost.
    promise: Option<Epoch>,
    pub(crate) present: Incarnation,
    /// The epoch that ends the sync with which the present chain began, once it is encoded.
    pub(crate) first_of_chain: Option<Epoch>,
    /// The highest epoch that the backup reported as committed.
    reported: Epoch,
    /// Blocks that nobody wrote to and that hold something else on the backup.
    flipped: HashSet<usize>,
    pub(crate) rolls: Rolls,
}

impl Checker {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            shape: scenario.shape.clone(),
            group: crate::encoding::group_of(&scenario.shape.0),
            cuts: HashMap::new(),
            known: HashMap::new(),
            staged: HashMap::new(),
            floor: Epoch::NONE,
            is_superseded: false,
            requests: BTreeMap::new(),
            pairs: HashSet::new(),
            is_struck: false,
            commit: scenario.commit,
            ack: scenario.ack,
            words: HashMap::new(),
            last_word: Epoch::NONE,
            chosen: Epoch::NONE,
            promise: None,
            present: Incarnation::default(),
            first_of_chain: None,
            reported: Epoch::NONE,
            rolls: Rolls::default(),
            flipped: HashSet::new(),
        }
    }

    /// A block is spoilt on the backup, or repaired.
    pub(crate) fn flipped(&mut self, place: usize, is_so: bool) {
        if is_so {
            self.flipped.insert(place);
        } else {
            self.flipped.remove(&place);
        }
    }

    /// The guest wrote: what its two paired blocks held together.
    pub(crate) fn wrote(&mut self, content: &Content) {
        let pair = self.pair_of(content);
        self.pairs.insert(pair);
    }

    fn pair_of(&self, content: &Content) -> [u64; 2] {
        self.shape.pair().map(|place| content[place])
    }

    pub(crate) fn cut(&mut self, incarnation: Incarnation, epoch: Epoch, host: &PrimaryHost) {
        let sizes = growing::blocks(&host.group.sizes());
        let cut = Cut { content: Rc::new(host.volume.clone()), sizes, writes: host.writes };
        // A cut that was never shipped leaves its number to the next one.
        self.cuts.insert((incarnation, epoch), cut);
    }

    /// Invariant 19: a cut is left out only if the volume is as it was at the last one.
    pub(crate) fn rests(&self, incarnation: Incarnation, content: &Content) {
        let cuts = self.cuts.iter().filter(|((of, _), _)| *of == incarnation);
        let last = cuts.max_by_key(|((_, epoch), _)| *epoch).map(|(_, cut)| &*cut.content);
        assert!(last == Some(content), "a cut is left out although the guest wrote since the last one");
    }

    /// Writes that the guest had made by the last cut of this epoch.
    pub(crate) fn writes_of(&self, epoch: Epoch) -> u64 {
        let cuts = self.cuts.iter().filter(|((_, of), _)| *of == epoch);
        cuts.map(|(_, cut)| cut.writes).max().unwrap_or(0)
    }

    pub(crate) fn encoded(&mut self, incarnation: Incarnation, epoch: Epoch, digest: Digest) {
        let Cut { content, sizes, .. } = self.cuts[&(incarnation, epoch)].clone();
        self.known.insert(digest, Known { epoch, incarnation, content, sizes });
        self.first_of_chain.get_or_insert(epoch);
    }

    /// The primary has told the backup to begin a full sync.
    pub(crate) fn superseded(&mut self) {
        self.is_superseded = true;
        (self.promise, self.last_word) = (None, Epoch::NONE);
    }

    /// A person gives up what the backup holds.
    pub(crate) fn disowned(&mut self) {
        self.superseded();
        (self.floor, self.reported) = (Epoch::NONE, Epoch::NONE);
    }

    /// Invariant 2, its first half: committed means acknowledged.
    pub(crate) fn committed(&mut self, incarnation: Incarnation, epoch: Epoch) {
        let staged = self.staged.get(&incarnation).copied().unwrap_or(Epoch::NONE);
        assert!(epoch <= staged, "the primary takes epoch {epoch} for committed, staged is {staged}");
        let is_said = self.commit == CommitPolicy::Auto && self.ack == AckPolicy::Durable;
        assert!(
            is_said || epoch <= self.reported,
            "the primary takes epoch {epoch} for committed, the backup reported {}",
            self.reported
        );
        self.floor = self.floor.max(epoch);
        self.is_superseded = false;
    }

    /// Invariant 4: what the backup acknowledges would survive a power cut right now.
    pub(crate) fn acknowledges(&mut self, disks: &Disks, epoch: Epoch, digest: Digest) {
        let Some(known) = self.known.get(&digest).cloned() else {
            panic!("epoch {epoch} is acknowledged with a digest that no primary made")
        };
        assert_eq!(known.epoch, epoch, "an acknowledgement confuses epochs");
        let found = self.examine(&disks.durable());
        let is_there = found.tail_epoch >= epoch || found.sealed.contains(&(epoch, digest));
        let is_promised = self.ack == AckPolicy::Durable && !self.is_struck;
        assert!(is_there || !is_promised, "epoch {epoch} is acknowledged and not durable");
        let is_consistent = matches!(found.state.content, Held::Consistent);
        assert!(
            is_consistent,
            "epoch {epoch} is acknowledged as committed while the durable state says {:?}",
            found.state.content
        );
        let staged = self.staged.entry(known.incarnation).or_default();
        *staged = (*staged).max(epoch);
        if is_promised && self.present == known.incarnation {
            self.promise = self.promise.max(Some(epoch));
        }
    }

    /// Invariant 9, its first half: what is reported as committed is so on the disks, durably.
    pub(crate) fn reports(&mut self, disks: &Disks, epoch: Epoch) {
        let found = self.examine(&disks.durable());
        if found.state.content == Held::Consistent && !epoch.is_none() && !self.is_struck {
            let durable = match self.commit {
                CommitPolicy::Auto => found.sealed.last().map_or(found.tail_epoch, |last| last.0),
                CommitPolicy::External => found.committed.unwrap_or(Epoch::NONE),
            };
            assert!(epoch <= durable, "epoch {epoch} is reported as committed, durable is {durable}");
        }
        self.reported = self.reported.max(epoch);
    }

    /// Invariant 10: nobody is let in while the disks hold what only another one's coordinator could commit.
    pub(crate) fn welcomes(&self, disks: &Disks, incarnation: Incarnation) {
        let [a, b] = disks.state.durable.slots();
        let state = DurableState::load(a, b).expect("the state is readable").expect("and formatted").0;
        let superblock = superblock(&disks.journal.durable);
        let Some(committed) = superblock.committed.filter(|_| state.content == Held::Consistent) else {
            return;
        };
        let recovery = recover(&superblock, &mut ImageReader(&disks.journal.durable));
        let foreign = |sealed: &&SealedEpoch| sealed.epoch > committed && sealed.incarnation != incarnation;
        let left = recovery.sealed.iter().find(foreign);
        assert!(left.is_none(), "a primary is welcomed, and another one's staged epoch is kept: {left:?}");
    }

    /// A write to the journal was misdirected: what was acknowledged may be lost; what is called consistent must be exact
    /// all the same, and the pair must get in sync.
    pub(crate) fn struck(&mut self) {
        self.is_struck = true;
    }

    pub(crate) fn is_struck(&self) -> bool {
        self.is_struck
    }

    /// The coordinator commits.
    pub(crate) fn word(&mut self, incarnation: Incarnation, epoch: Epoch) {
        let word = self.words.entry(incarnation).or_default();
        *word = (*word).max(epoch);
        self.last_word = self.last_word.max(epoch);
    }

    /// It chooses the epoch to promote to: its word for that one, and the end of later ones.
    pub(crate) fn chosen(&mut self, epoch: Epoch) {
        self.chosen = epoch;
        self.promise = self.promise.map(|staged| staged.min(epoch));
    }

    pub(crate) fn told_committed(&self, epoch: Epoch) {
        assert!(
            epoch <= self.reported,
            "the coordinator is told {epoch}, the backup reported {}",
            self.reported
        );
    }

    pub(crate) fn last_word(&self) -> Epoch {
        self.last_word
    }

    pub(crate) fn last_staged(&self) -> Epoch {
        self.promise.unwrap_or(self.last_word)
    }

    /// Another primary starts: its greeting will end what only its predecessor's coordinator could commit.
    pub(crate) fn present(&mut self, incarnation: Incarnation) {
        self.present = incarnation;
        (self.promise, self.first_of_chain) = (None, None);
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

    /// Invariants 1 to 3, 9 and 10 on these disks, as a restart would find them.
    pub(crate) fn examine(&self, images: &Images<'_>) -> Found {
        let (journal, state) = (images.journal, images.state);
        let [a, b] = state.slots();
        let state = DurableState::load(a, b).expect("the state is readable").expect("and formatted").0;
        let superblock = superblock(journal);
        let recovery = recover(&superblock, &mut ImageReader(journal));
        let is_sound = recovery.ended.class == EndClass::Ordinary;
        assert!(is_sound || self.is_struck, "the journal is damaged: {}", recovery.ended.reason);
        let mut found = Found {
            tail_epoch: superblock.tail_epoch,
            sealed: recovery.sealed.iter().map(|sealed| (sealed.epoch, sealed.digest)).collect(),
            committed: superblock.committed,
            choices: Vec::new(),
            state,
        };
        if found.state.content != Held::Consistent {
            let legal = self.floor.is_none() || self.is_superseded;
            let legal = legal || self.is_struck;
            assert!(legal, "epoch {} was committed, the state is {:?}", self.floor, found.state.content);
            return found;
        }
        let tail = (superblock.tail_epoch, superblock.tail_digest);
        let last = found.sealed.last().copied().unwrap_or(tail);
        // What a restart calls inconsistent before anything else.
        let is_begun = !is_sound && superblock.may_have_begun_behind(last.0);
        let is_unended = found.state.role == Role::Backup && last.0 < found.state.highest_epoch_seen;
        if self.is_struck && (is_begun || is_unended) {
            return found;
        }
        let is_lost = !is_sound || found.state.lost.is_some_and(|lost| lost > last.0);
        assert!(!is_lost || self.is_struck, "epochs are lost, and nothing was misdirected");
        // Something that counts is gone, and said so: what is left is exact all the same.
        found.choices = if is_sound { self.choices(&superblock, &recovery) } else { vec![last] };
        let mut content = content::read(&images.volumes, &self.shape);
        let mut at = tail;
        for sealed in recovery.sealed.iter().map(Some).chain([None]) {
            if found.choices.contains(&at) {
                self.is_the_cut(at, &content);
                self.is_of_its_size(at, &found.state);
            }
            let Some(sealed) = sealed else { break };
            let mut reader = ImageReader(journal);
            for frame in EpochFrames::new(superblock.ring, &mut reader, sealed.start, sealed.end) {
                self.redo(&frame.expect("it was just recovered"), &mut content);
            }
            at = (sealed.epoch, sealed.digest);
        }
        if is_lost {
            found.choices.clear();
        }
        found
    }

    /// What can be promoted to, and that it is not less than what was said.
    fn choices(&self, superblock: &Superblock, recovery: &Recovery) -> Vec<(Epoch, Digest)> {
        let tail = (superblock.tail_epoch, superblock.tail_digest);
        let sealed = || recovery.sealed.iter();
        let last = sealed().last().map_or(tail, |last| (last.epoch, last.digest));
        if self.commit == CommitPolicy::Auto {
            let is_lost = last.0 < self.floor && !self.is_struck;
            assert!(!is_lost, "promotable to {}, epoch {} was committed", last.0, self.floor);
            return vec![last];
        }
        let committed = superblock.committed.unwrap_or(Epoch::NONE);
        let legal = committed >= self.floor || committed.is_none() && self.is_superseded || self.is_struck;
        assert!(legal, "committed is {committed}, epoch {} was committed", self.floor);
        let mut choices: Vec<_> = sealed()
            .filter(|sealed| sealed.commit_point && sealed.epoch >= committed)
            .map(|sealed| (sealed.epoch, sealed.digest))
            .collect();
        if tail.0 == committed && !committed.is_none() {
            choices.insert(0, tail);
        }
        if !committed.is_none() {
            let named = choices.first().filter(|(epoch, _)| *epoch == committed);
            if named.is_none() && self.is_struck {
                return Vec::new();
            }
            let Some(named) = named else { panic!("epoch {committed} is committed and not to be found") };
            let incarnation = self.known.get(&named.1).expect("a digest that a primary made").incarnation;
            let word = self.words.get(&incarnation).copied().unwrap_or(Epoch::NONE).max(self.chosen);
            assert!(committed <= word, "epoch {committed} is committed, the coordinator's word is {word}");
        }
        if let Some(staged) = self.promise.filter(|_| !self.is_struck) {
            assert!(last.0 >= staged, "epoch {staged} was staged, only {} is held", last.0);
        }
        choices
    }

    /// Invariant 13: a snapshot, durable as it is, is exactly the committed epoch whose name it gets.
    pub(crate) fn snapshot(&self, disks: &Disks, epoch: Epoch, digest: Digest) {
        for images in [disks.view(), disks.durable()] {
            self.is_the_cut((epoch, digest), &content::read(&images.volumes, &self.shape));
        }
    }

    /// Invariant 1: this is exactly the primary's volume at the cut of that commit point.
    fn is_the_cut(&self, (epoch, digest): (Epoch, Digest), content: &Content) {
        let Some(known) = self.known.get(&digest) else {
            panic!("a consistent backup holds epoch {epoch} of an unknown digest")
        };
        assert!(known.epoch == epoch, "the digest is that of another epoch than {epoch}");
        let mut both = content.iter().zip(known.content.iter()).enumerate();
        let counts = |place| !self.flipped.contains(&place) && is_within(&self.shape, &known.sizes, place);
        let wrong = both.position(|(place, (is, should))| is != should && counts(place));
        if let Some(block) = wrong {
            let (is, should) = (content[block], known.content[block]);
            panic!("epoch {epoch} is held wrongly: block {block} has write {is}, at the cut it had {should}");
        }
    }

    /// Invariant 23: what is held has the sizes that the volumes had at its cut.
    fn is_of_its_size(&self, (epoch, digest): (Epoch, Digest), state: &DurableState) {
        let sizes = state.group_at(epoch).map(|group| growing::blocks(&group.sizes()));
        let should = self.known.get(&digest).map(|known| known.sizes.clone());
        assert!(
            sizes == should,
            "epoch {epoch} is held in the sizes {sizes:?}, at the cut they were {should:?}"
        );
    }

    fn redo(&self, frame: &Frame, content: &mut Content) {
        if !frame.header.kind.carries_records() {
            return;
        }
        let mut scratch = Vec::new();
        let raw = frame.raw_payload(&mut scratch).expect("it was checked when it was received");
        let records = RecordIter::new(raw, frame.header.kind, frame.header.record_count, &self.group);
        for record in records.expect("it was checked when it was received") {
            let Record { volume, extent, content: new } = record;
            let start = self.shape.start(volume) + usize::try_from(extent.start().0).expect("a small volume");
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
    pub(crate) fn promoted(&self, disks: &Disks, epoch: Epoch, noisy: bool) {
        for images in [disks.view(), disks.durable()] {
            let found = self.examine(&images);
            assert_eq!(found.state.role, Role::Primary, "promoted, and the state does not say so");
            assert!(found.sealed.is_empty(), "promoted with epochs that are not applied");
            let lineage = found.state.lineage.last().expect("a promote adds a generation");
            let is_same = found.choices == [(epoch, lineage.digest)];
            assert!(is_same, "promoted at {epoch}, which the disks do not hold: {:?}", found.choices);
            assert_eq!(lineage.first_epoch, epoch.next(), "the new generation begins elsewhere");
            for (volume, blocks) in images.volumes.iter().zip(&self.shape.0) {
                assert!(content::is_whole(volume, *blocks, noisy), "a promoted volume has torn sectors");
            }
            let pair = self.pair_of(&content::read(&images.volumes, &self.shape));
            assert!(self.pairs.contains(&pair), "the guest never saw {pair:?} on its first and last volume");
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
    fn checkpoint_cut(&mut self, id: u64, incarnation: Incarnation, epoch: Epoch) {
        let request = self.requests.get(&id).expect("it was asked for");
        let cut = &self.cuts[&(incarnation, epoch)];
        assert!(cut.writes >= request.writes, "checkpoint {id}: epoch {epoch} was cut before the request");
    }

    pub(crate) fn checkpoint_reached(
        &mut self,
        id: u64,
        incarnation: Incarnation,
        epoch: Epoch,
        until: Until,
    ) {
        self.checkpoint_cut(id, incarnation, epoch);
        let staged = self.staged.get(&incarnation).copied().unwrap_or(Epoch::NONE);
        let is_there = match until {
            Until::Cut => true,
            Until::Staged => epoch <= staged,
            Until::Committed => epoch <= self.floor && !self.is_superseded,
        };
        assert!(is_there, "checkpoint {id}: epoch {epoch} has not come to {until:?}");
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
