//! The pairs of slots: a host's durable state, a journal's superblock.
//!
//! ```text
//! input: size of the journal's device u64, then the pieces of an image: blocks 0 and 1 are slot a, 2 and 3 b
//! ```

use ftship_proto::generations::MAX_LINEAGE;
use ftship_proto::journal::{JournalError, Superblock};
use ftship_proto::slot::{self, SLOT_SIZE, SlotKind};
use ftship_proto::state::DurableState;

use crate::image::{BLOCK, Image};
use crate::input::Input;
use crate::seeds::golden_bytes;
use crate::{Seed, Target, Verdict, explains, mend, within};

pub(super) const TARGET: Target =
    Target { name: "slots", run, seeds, max_len: 20 << 10, words: &["FTDMSLOT", "vm1"] };

/// Memory for any slots: a copy of the body, and what it holds.
const BOUND: usize = 32 << 10;

type Slots = [[u8; SLOT_SIZE]; 2];

fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let device_len = input.u64();
    let image = Image::read(&mut input);
    let mut slots: Slots = [[0; SLOT_SIZE]; 2];
    for (offset, slot) in (0..).step_by(SLOT_SIZE).zip(&mut slots) {
        // Slots of a device of four blocks: nothing lies beyond.
        if image.read_at((2 * SLOT_SIZE / BLOCK) as u64, offset, slot).is_err() {
            panic!("four blocks hold two slots");
        }
    }
    let mut mended = slots;
    mended.iter_mut().filter(|slot| slot.iter().any(|byte| *byte != 0)).for_each(|slot| {
        mend::trailing_checksum(slot);
    });
    let verdicts = [slots, mended].map(|slots| state(&slots).or(superblock(&slots, device_len)));
    verdicts[0].or(verdicts[1])
}

fn state([a, b]: &Slots) -> Verdict {
    match within(BOUND, || DurableState::load(Some(a), Some(b))) {
        Ok(Some((state, chosen))) => {
            assert!(state.lineage.len() <= MAX_LINEAGE);
            let body = state.encode();
            assert_eq!(DurableState::decode(&body).as_ref(), Ok(&state));
            // It always fits, and is found beside a slot that cannot be read.
            let written = slot::encode(chosen.sequence, SlotKind::State, &body);
            let written = written.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(DurableState::load(Some(&written), None).map(|s| s.map(|s| s.0)), Ok(Some(state)));
            Verdict::Accepted
        }
        Ok(None) => blank(a, b),
        Err(error) => {
            explains(&error, &["slot", "field"]);
            Verdict::Refused
        }
    }
}

fn superblock([a, b]: &Slots, device_len: u64) -> Verdict {
    match within(BOUND, || Superblock::load(Some(a), Some(b), device_len)) {
        Ok(Some((superblock, _))) => {
            assert!(superblock.ring.end() <= device_len && superblock.tail.is_multiple_of(BLOCK as u64));
            assert!(superblock.tail.checked_add(2 * superblock.ring.capacity()).is_some());
            assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
            Verdict::Accepted
        }
        Ok(None) => blank(a, b),
        Err(error) => {
            explains(&error, &["slot", "field", "ring", "tail"]);
            if let JournalError::Shrunk { needed, found } = error {
                assert!(needed > found && found == device_len);
            }
            Verdict::Refused
        }
    }
}

/// Only zeros are taken for a place that was never formatted.
fn blank(a: &[u8], b: &[u8]) -> Verdict {
    assert!(a.iter().chain(b).all(|byte| *byte == 0));
    Verdict::Refused
}

fn seeds() -> Vec<Seed> {
    let input = |slots: [&[u8]; 2]| {
        let mut bytes = (16u64 << 20).to_le_bytes().to_vec();
        for (number, block) in (0..).zip(slots.iter().flat_map(|slot| slot.chunks(BLOCK))) {
            Image::describe(number, block, &mut bytes);
        }
        bytes
    };
    let (state, superblock) = (golden_bytes("state"), golden_bytes("superblock"));
    let older = |kind, body: &[u8]| slot::encode(6, kind, body).map_or(Vec::new(), |slot| slot.to_vec());
    let mut torn = state.clone();
    torn[4096..].fill(0xee);
    let other = older(SlotKind::State, &state[32..32 + 200]);
    vec![
        ("state".into(), input([&state, &other])),
        ("state-rolls".into(), input([&state, &golden_bytes("state_rolls")])),
        ("state-torn".into(), input([&torn, &state])),
        ("superblock".into(), input([&superblock, &superblock])),
        ("superblock-alone".into(), input([&[0; SLOT_SIZE], &superblock])),
    ]
}
