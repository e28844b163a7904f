//! How large the volumes were at an earlier epoch: volumes grow, and what is held, or promoted to, may be older.
//!
//! Always holds: steps are in the order of their epochs; what is missing, because there was no room for it, only makes an
//! epoch that is long past look smaller, so that more is compared.
//!
//! ```text
//! offset  field                      (little endian)
//!      0  volumes u16
//!      2  per step, oldest first: the first epoch with the later sizes u64, the size of each volume before it, in
//!         sectors, u64
//! ```

use ftdm_units::Sectors;

use crate::group::{MAX_SECTORS, MAX_VOLUMES};
use crate::ids::Epoch;
use crate::tlv::{TlvError, Value};

/// Most steps that are kept.
const MAX_STEPS: usize = 3;

/// A change of the volumes' sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// The first epoch that may have the later sizes.
    first: Epoch,
    /// The sizes in the epochs before it, in the group's order.
    before: Vec<Sectors>,
}

/// The sizes of the volumes before their present ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeHistory {
    steps: Vec<Step>,
}

impl SizeHistory {
    /// Notes that epochs from `first` on have other sizes than `before`, which those up to it had.
    pub fn note(&mut self, first: Epoch, before: Vec<Sectors>) {
        if !(1..=MAX_VOLUMES).contains(&before.len()) {
            return;
        }
        // No epoch had the sizes of a step that begins here or later: what was before that step counts.
        let at = self.steps.iter().position(|step| step.first >= first);
        let before = at.map_or(before, |at| self.steps.swap_remove(at).before);
        self.steps.truncate(at.unwrap_or(self.steps.len()));
        if self.steps.len() == MAX_STEPS {
            // The smaller sizes of both, for the epochs of both.
            self.steps[1].before = std::mem::take(&mut self.steps[0].before);
            self.steps.remove(0);
        }
        self.steps.push(Step { first, before });
    }

    /// The sizes at this epoch, where they are not the present ones.
    #[must_use]
    pub fn at(&self, epoch: Epoch) -> Option<&[Sectors]> {
        self.steps.iter().find(|step| step.first > epoch).map(|step| &*step.before)
    }

    /// The present sizes are from now on those of this epoch: what came behind it is given up.
    pub fn end_at(&mut self, epoch: Epoch) {
        self.steps.retain(|step| step.first <= epoch);
    }

    /// Whether nothing is noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let volumes = self.steps.first().map_or(0, |step| step.before.len());
        let mut bytes = u16::try_from(volumes).unwrap_or(u16::MAX).to_le_bytes().to_vec();
        for step in self.steps.iter().filter(|step| step.before.len() == volumes) {
            bytes.extend_from_slice(&step.first.0.to_le_bytes());
            bytes.extend_from_slice(&encode_sizes(&step.before));
        }
        bytes
    }

    pub(crate) fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let volumes = usize::from(value.u16()?);
        if !(1..=MAX_VOLUMES).contains(&volumes) {
            return Err(value.invalid(format_args!("{volumes} volumes, of {MAX_VOLUMES} at most")));
        }
        let mut steps: Vec<Step> = Vec::new();
        while value.left() > 0 {
            let first = Epoch(value.u64()?);
            let before = (0..volumes).map(|_| decode_size(&mut value)).collect::<Result<_, _>>()?;
            let is_next = steps.last().is_none_or(|last| last.first < first);
            if !is_next || steps.len() == MAX_STEPS {
                return Err(value.invalid("changes of sizes that no version writes"));
            }
            steps.push(Step { first, before });
        }
        if steps.is_empty() {
            return Err(value.invalid("no change of sizes"));
        }
        Ok(Self { steps })
    }
}

/// Sizes in sectors, u64 each.
pub(crate) fn encode_sizes(sizes: &[Sectors]) -> Vec<u8> {
    sizes.iter().flat_map(|size| size.0.to_le_bytes()).collect()
}

/// Reads what [`encode_sizes`] wrote; the value must end with it.
pub(crate) fn decode_sizes(mut value: Value<'_>) -> Result<Vec<Sectors>, TlvError> {
    let count = value.left() / 8;
    if !(1..=MAX_VOLUMES).contains(&count) {
        return Err(value.invalid(format_args!("sizes of {count} volumes, of {MAX_VOLUMES} at most")));
    }
    let sizes = (0..count).map(|_| decode_size(&mut value)).collect::<Result<_, _>>()?;
    value.end()?;
    Ok(sizes)
}

fn decode_size(value: &mut Value<'_>) -> Result<Sectors, TlvError> {
    match value.u64()? {
        size @ 0..=MAX_SECTORS => Ok(Sectors(size)),
        size => Err(value.invalid(format_args!("a size of {size} sectors, of {MAX_SECTORS} at most"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlv::{Reader, Writer};
    use proptest::prelude::*;

    fn sizes(size: u64) -> Vec<Sectors> {
        vec![Sectors(size), Sectors(64)]
    }

    fn at(history: &SizeHistory, epoch: u64) -> Option<u64> {
        history.at(Epoch(epoch)).map(|sizes| sizes[0].0)
    }

    #[test]
    fn an_epoch_has_the_sizes_that_were_noted_last_before_it() {
        let mut history = SizeHistory::default();
        assert_eq!(at(&history, 0), None);
        history.note(Epoch(10), sizes(100));
        history.note(Epoch(20), sizes(200));
        assert_eq!([9, 10, 19, 20].map(|epoch| at(&history, epoch)), [Some(100), Some(200), Some(200), None]);
        // What was to begin at 20 never did.
        history.note(Epoch(20), sizes(300));
        assert_eq!([9, 19, 20].map(|epoch| at(&history, epoch)), [Some(100), Some(200), None]);
        history.note(Epoch(5), sizes(300));
        assert_eq!([4, 5, 19].map(|epoch| at(&history, epoch)), [Some(100), None, None]);
    }

    #[test]
    fn what_is_given_up_takes_its_sizes_along() {
        let mut history = SizeHistory::default();
        history.note(Epoch(10), sizes(100));
        history.note(Epoch(20), sizes(200));
        history.end_at(Epoch(19));
        assert_eq!([9, 10, 30].map(|epoch| at(&history, epoch)), [Some(100), None, None]);
        history.end_at(Epoch(9));
        assert!(history.is_empty());
    }

    #[test]
    fn without_room_the_smaller_sizes_count() {
        let mut history = SizeHistory::default();
        for step in 1..=4 {
            history.note(Epoch(step * 10), sizes(step * 100));
        }
        let found = [9, 10, 19, 20, 30, 40].map(|epoch| at(&history, epoch));
        assert_eq!(found, [Some(100), Some(100), Some(100), Some(300), Some(400), None]);
    }

    fn value(bytes: &[u8]) -> Vec<u8> {
        let mut fields = Writer::new();
        fields.field(1, bytes);
        fields.finish()
    }

    fn decoded(bytes: &[u8]) -> Result<SizeHistory, TlvError> {
        SizeHistory::decode(Reader::new(&value(bytes))?.required(1)?)
    }

    proptest! {
        #[test]
        fn histories_come_back_and_hostile_ones_are_refused(
            steps in proptest::collection::vec((1u64..50, 1u64..1000), 1..8),
            at in any::<usize>(), flip in 1..=255u8,
        ) {
            let mut history = SizeHistory::default();
            for (first, size) in steps {
                history.note(Epoch(first), sizes(size));
            }
            let bytes = history.encode();
            prop_assert_eq!(decoded(&bytes), Ok(history.clone()));
            prop_assert!(decoded(&bytes[..at % bytes.len()]) != Ok(history.clone()));
            let mut changed = bytes;
            let at = at % changed.len();
            changed[at] ^= flip;
            prop_assert!(decoded(&changed) != Ok(history));
        }

        #[test]
        fn sizes_come_back(found in proptest::collection::vec(0..=MAX_SECTORS, 1..=MAX_VOLUMES)) {
            let found: Vec<Sectors> = found.into_iter().map(Sectors).collect();
            let bytes = value(&encode_sizes(&found));
            let read = decode_sizes(Reader::new(&bytes).unwrap().required(1).unwrap());
            prop_assert_eq!(read, Ok(found));
        }
    }

    #[test]
    fn sizes_that_no_volume_has_are_refused() {
        let read = |bytes: &[u8]| decode_sizes(Reader::new(&value(bytes)).unwrap().required(1).unwrap());
        assert!(read(&[]).is_err());
        assert!(read(&[0; 9]).is_err());
        assert!(read(&[0; 17 * 8]).is_err());
        assert!(read(&(MAX_SECTORS + 1).to_le_bytes()).is_err());
    }
}
