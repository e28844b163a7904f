use proptest::prelude::*;

use super::*;

const KIND: SlotKind = SlotKind::State;
const BLANK: [u8; SLOT_SIZE] = [0; SLOT_SIZE];

fn slot(sequence: u64, body: &[u8]) -> [u8; SLOT_SIZE] {
    encode(sequence, KIND, body).unwrap()
}

/// Damaged: its second half was never written.
fn torn(sequence: u64) -> [u8; SLOT_SIZE] {
    let mut bytes = slot(sequence, &[7; 5000]);
    bytes[SLOT_SIZE / 2..].fill(0);
    bytes
}

fn of(a: &[u8; SLOT_SIZE], b: &[u8; SLOT_SIZE]) -> Result<Option<Chosen>, SlotError> {
    choose(KIND, Some(a), Some(b))
}

/// The slot, its sequence, and whether the other one is damaged.
fn chosen(a: ReadSlot<'_>, b: ReadSlot<'_>) -> (Slot, u64, bool) {
    let chosen = choose(KIND, a, b).unwrap().unwrap();
    (chosen.slot, chosen.sequence, chosen.damaged().is_some())
}

#[test]
fn every_row_of_the_table() {
    let (old, new) = (slot(4, b"old"), slot(5, b"new"));
    let sound = |a, b| chosen(Some(a), Some(b));
    assert_eq!(sound(&old, &new), (Slot::B, 5, false));
    assert_eq!(sound(&new, &old), (Slot::A, 5, false));
    assert_eq!(sound(&old, &old), (Slot::A, 4, false));
    let other = slot(4, b"other");
    assert_eq!(of(&old, &other), Err(SlotError::Ambiguous { sequence: 4 }));
    assert_eq!(sound(&old, &BLANK), (Slot::A, 4, false));
    assert_eq!(sound(&BLANK, &old), (Slot::B, 4, false));
    let bad: [(ReadSlot<'_>, Found); 3] = [
        (Some(&torn(5)), Found::Damaged),
        (Some(&[0x55; SLOT_SIZE]), Found::Foreign { start: [0x55; 8] }),
        (None, Found::Unreadable),
    ];
    assert_eq!(of(&BLANK, &BLANK), Ok(None));
    for (bytes, found) in bad {
        assert_eq!(chosen(Some(&old), bytes), (Slot::A, 4, true));
        assert_eq!(chosen(bytes, Some(&old)), (Slot::B, 4, true));
        let reported = choose(KIND, Some(&old), bytes).unwrap().unwrap().damaged();
        assert_eq!(reported, Some(DamagedSlot { slot: Slot::B, found }));
        for other in [Some(&BLANK), Some(&torn(4)), None] {
            assert!(matches!(choose(KIND, bytes, other), Err(SlotError::Damaged { .. })));
            assert!(matches!(choose(KIND, other, bytes), Err(SlotError::Damaged { .. })));
        }
    }
}

#[test]
fn a_newer_version_or_another_kind_is_never_overruled() {
    let mut newer = slot(1, b"x");
    newer[8] = 2;
    let crc = crc32c::crc32c(&newer[..8188]);
    newer[8188..].copy_from_slice(&crc.to_le_bytes());
    let old = slot(9, b"y");
    assert_eq!(of(&old, &newer), Err(SlotError::Newer { slot: Slot::B, version: 2 }));
    assert_eq!(of(&newer, &BLANK), Err(SlotError::Newer { slot: Slot::A, version: 2 }));
    assert_eq!(choose(KIND, Some(&newer), None), Err(SlotError::Newer { slot: Slot::A, version: 2 }));
    let journal = encode(1, SlotKind::JournalSuperblock, b"z").unwrap();
    assert!(matches!(of(&journal, &old), Err(SlotError::Kind { found: 2, expected: 1, .. })));
}

/// What a version may have become: written, not yet, or torn; and a fault may hit one slot besides.
#[test]
fn neither_a_crash_nor_a_damaged_slot_nor_both_lose_what_was_acted_upon() {
    let (old, new) = (slot(4, b"old"), slot(5, b"new"));
    // Slot b is written only when slot a is durable, and nobody acts on the new version before both are.
    let stops = [[&old, &old], [&torn(5), &old], [&new, &old], [&new, &torn(5)]];
    for [a, b] in stops {
        for (a, b) in [(Some(a), Some(b)), (None, Some(b)), (Some(a), None)] {
            let Ok(found) = choose(KIND, a, b) else {
                // A torn slot and a fault of the other one: said, not papered over.
                assert!(a == Some(&torn(5)) && b.is_none() || a.is_none() && b == Some(&torn(5)));
                continue;
            };
            assert!(found.unwrap().sequence >= 4);
        }
    }
    // Once both are written, no single fault brings the version before back.
    assert_eq!(chosen(Some(&new), None).1, 5);
    assert_eq!(chosen(None, Some(&new)).1, 5);
    assert!(of(&new, &new).unwrap().unwrap().is_in_both());
    assert!(!of(&new, &old).unwrap().unwrap().is_in_both());
}

#[test]
fn a_body_that_does_not_fit_is_refused() {
    assert!(encode(1, KIND, &vec![1; MAX_BODY]).is_ok());
    assert_eq!(encode(1, KIND, &vec![1; MAX_BODY + 1]), Err(SlotError::TooLong { len: MAX_BODY + 1 }));
}

proptest! {
    #[test]
    fn any_flip_makes_a_slot_unsound(
        body in prop::collection::vec(any::<u8>(), 0..600),
        at in 0..SLOT_SIZE,
        flip in 1..=255u8,
    ) {
        let sound = slot(3, &body);
        prop_assert_eq!(of(&sound, &BLANK).unwrap().unwrap().body, body);
        let mut bytes = sound;
        bytes[at] ^= flip;
        let is_damaged = matches!(of(&bytes, &BLANK), Err(SlotError::Damaged { .. }));
        prop_assert!(is_damaged);
    }

    #[test]
    fn no_bytes_panic(a in prop::collection::vec(any::<u8>(), SLOT_SIZE), sealed in any::<bool>()) {
        let mut bytes: [u8; SLOT_SIZE] = a.try_into().unwrap();
        if sealed {
            bytes[..12].copy_from_slice(&slot(1, b"")[..12]);
            let crc = crc32c::crc32c(&bytes[..8188]);
            bytes[8188..].copy_from_slice(&crc.to_le_bytes());
        }
        let is_refused = of(&bytes, &BLANK).is_err();
        prop_assert!(is_refused);
    }
}
