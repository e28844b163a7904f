//! Parts of a group's volumes.
//!
//! Always holds: what [`union`] gives names no sector twice and is in order.

use ftdm_units::Extent;

use crate::ids::VolumeIndex;

/// What a round copies, or a side wrote: extents of the group's volumes, in the order in which they are read.
pub type Scope = Vec<(VolumeIndex, Extent)>;

/// Bytes that a scope covers.
#[must_use]
pub fn bytes_of(scope: &Scope) -> u64 {
    scope.iter().filter_map(|(_, extent)| extent.len().bytes()).sum()
}

/// What either of two names.
#[must_use]
pub fn union(one: Scope, other: Scope) -> Scope {
    let mut all = [one, other].concat();
    all.sort_unstable_by_key(|(volume, extent)| (*volume, extent.start()));
    let mut merged = Scope::with_capacity(all.len());
    for (volume, extent) in all {
        match merged.last_mut() {
            Some((before, last)) if *before == volume && extent.start() <= last.end() => {
                let end = last.end().max(extent.end());
                *last = Extent::between(last.start(), end).unwrap_or(*last);
            }
            _ => merged.push((volume, extent)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::scope;

    #[test]
    fn a_union_has_what_either_has_once() {
        let one = scope(&[(0, 0, 8), (0, 16, 8), (1, 0, 4)]);
        let other = scope(&[(0, 4, 4), (0, 20, 12), (0, 40, 1), (1, 4, 4), (2, 0, 1)]);
        let both = scope(&[(0, 0, 8), (0, 16, 16), (0, 40, 1), (1, 0, 8), (2, 0, 1)]);
        assert_eq!(union(one.clone(), other.clone()), both);
        assert_eq!(union(other, one), both);
        assert_eq!(bytes_of(&both), 34 * 512);
    }
}
