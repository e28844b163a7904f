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

fn chosen(a: &[u8; SLOT_SIZE], b: &[u8; SLOT_SIZE]) -> (Slot, u64, bool) {
    let chosen = choose(KIND, a, b).unwrap().unwrap();
    (chosen.position.slot, chosen.position.sequence, chosen.other_damaged)
}

#[test]
fn every_row_of_the_table() {
    let (old, new) = (slot(4, b"old"), slot(5, b"new"));
    assert_eq!(chosen(&old, &new), (Slot::B, 5, false));
    assert_eq!(chosen(&new, &old), (Slot::A, 5, false));
    assert_eq!(chosen(&old, &old), (Slot::A, 4, false));
    let other = slot(4, b"other");
    assert_eq!(choose(KIND, &old, &other), Err(SlotError::Ambiguous { sequence: 4 }));
    assert_eq!(chosen(&old, &BLANK), (Slot::A, 4, false));
    assert_eq!(chosen(&BLANK, &old), (Slot::B, 4, false));
    assert_eq!(chosen(&old, &torn(5)), (Slot::A, 4, true));
    assert_eq!(chosen(&torn(5), &old), (Slot::B, 4, true));
    assert_eq!(chosen(&old, &[0x55; SLOT_SIZE]), (Slot::A, 4, true));
    assert_eq!(choose(KIND, &BLANK, &BLANK), Ok(None));
    for bad in [torn(5), [0x55; SLOT_SIZE]] {
        for other in [BLANK, torn(4)] {
            assert!(matches!(choose(KIND, &bad, &other), Err(SlotError::Damaged { .. })));
            assert!(matches!(choose(KIND, &other, &bad), Err(SlotError::Damaged { .. })));
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
    assert_eq!(choose(KIND, &old, &newer), Err(SlotError::Newer { slot: Slot::B, version: 2 }));
    assert_eq!(choose(KIND, &newer, &BLANK), Err(SlotError::Newer { slot: Slot::A, version: 2 }));
    let journal = encode(1, SlotKind::JournalSuperblock, b"z").unwrap();
    assert!(matches!(choose(KIND, &journal, &old), Err(SlotError::Kind { found: 2, expected: 1, .. })));
}

#[test]
fn versions_go_to_the_two_slots_in_turn() {
    let mut position = SlotPosition::FIRST;
    let mut slots = [BLANK, BLANK];
    for version in 1..=6u64 {
        let at = usize::from(position.slot == Slot::B);
        slots[at] = slot(position.sequence, &version.to_le_bytes());
        let [a, b] = &slots;
        let chosen = choose(KIND, a, b).unwrap().unwrap();
        assert_eq!((chosen.position, &chosen.body[..]), (position, &version.to_le_bytes()[..]));
        // Whatever happens to the next write, this version survives it.
        let mut struck = slots;
        struck[usize::from(position.next().slot == Slot::B)] = torn(position.sequence + 1);
        let [a, b] = &struck;
        assert_eq!(choose(KIND, a, b).unwrap().unwrap().position, position);
        position = position.next();
    }
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
        prop_assert_eq!(choose(KIND, &sound, &BLANK).unwrap().unwrap().body, body);
        let mut bytes = sound;
        bytes[at] ^= flip;
        let is_damaged = matches!(choose(KIND, &bytes, &BLANK), Err(SlotError::Damaged { .. }));
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
        let is_refused = choose(KIND, &bytes, &BLANK).is_err();
        prop_assert!(is_refused);
    }
}
