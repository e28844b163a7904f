//! The register area of a process, and how a short one becomes a whole one. Pure.
//!
//! The area is what XSAVE writes in its standard form (Intel SDM, volume 1, chapter 13): 512 bytes of x87 and SSE
//! registers, a header of 64 bytes, then one *component* after the other, each at an offset that the processor gives.
//! The header's first word, XSTATE_BV, has a bit for each component that is not in its initial state; its second,
//! XCOMP_BV, is zero in this form. What must hold: a component is taken over whole or is in its initial state.

/// Where the header lies, and the first byte behind it.
const HEADER: usize = 512;
pub(crate) const SMALLEST: usize = HEADER + 64;

/// The components of the first 512 bytes: x87 and SSE.
const LEGACY: u64 = 0b11;

/// Where a component lies in the area, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Component {
    /// Its bit in XSTATE_BV.
    pub(crate) number: u32,
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

/// Why an area cannot be made whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It ends before its header does.
    NoHeader,
    /// Its components are packed, so they are not where the processor says.
    Compacted,
}

/// Fills `whole` with what `short` holds; components that `short` does not hold whole get their initial state.
///
/// # Errors
/// See [`Refused`]; `whole` is then undefined.
pub(crate) fn widen(
    short: &[u8],
    components: impl IntoIterator<Item = Component>,
    whole: &mut [u8],
) -> Result<(), Refused> {
    let taken = short.len().min(whole.len());
    if taken < SMALLEST {
        return Err(Refused::NoHeader);
    }
    if word(short, HEADER + 8) != 0 {
        return Err(Refused::Compacted);
    }
    let inside = components
        .into_iter()
        .filter(|one| {
            one.offset >= SMALLEST && one.offset.saturating_add(one.size) <= taken && one.number < 64
        })
        .fold(LEGACY, |bits, one| bits | 1 << one.number);
    whole[..taken].copy_from_slice(&short[..taken]);
    whole[taken..].fill(0);
    let present = word(short, HEADER) & inside;
    whole[HEADER..HEADER + 8].copy_from_slice(&present.to_le_bytes());
    Ok(())
}

fn word(area: &[u8], from: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&area[from..from + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As on a processor with AMX: AVX, MPX (2), AVX-512 (3), PKRU, tile configuration and data.
    const AMX: [Component; 9] = [
        component(2, 576, 256),
        component(3, 960, 64),
        component(4, 1024, 64),
        component(5, 1088, 64),
        component(6, 1152, 512),
        component(7, 1664, 1024),
        component(9, 2688, 8),
        component(17, 2752, 64),
        component(18, 2816, 8192),
    ];

    const fn component(number: u32, offset: usize, size: usize) -> Component {
        Component { number, offset, size }
    }

    fn area(size: usize, present: u64) -> Vec<u8> {
        let mut area: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap() + 1).collect();
        area[HEADER..SMALLEST].fill(0);
        area[HEADER..HEADER + 8].copy_from_slice(&present.to_le_bytes());
        area
    }

    #[test]
    fn what_user_mode_linux_has_becomes_what_a_machine_with_amx_wants() {
        let short = area(2696, 0x602ff);
        let mut whole = vec![0xff; 11_008];
        widen(&short, AMX, &mut whole).unwrap();
        assert_eq!(word(&whole, HEADER), 0x2ff);
        assert_eq!(word(&whole, HEADER + 8), 0);
        assert_eq!(whole[..HEADER], short[..HEADER]);
        assert_eq!(whole[SMALLEST..2696], short[SMALLEST..]);
        assert!(whole[2696..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_component_that_is_cut_in_two_is_as_if_it_were_not_there() {
        let mut whole = vec![0; 11_008];
        widen(&area(2695, 0x2ff), AMX, &mut whole).unwrap();
        assert_eq!(word(&whole, HEADER), 0xff);
    }

    #[test]
    fn an_unknown_component_is_as_if_it_were_not_there() {
        let mut whole = vec![0; 4096];
        widen(&area(2696, u64::MAX), [], &mut whole).unwrap();
        assert_eq!(word(&whole, HEADER), LEGACY);
        let nonsense = [component(64, 600, 8), component(10, 0, 16), component(11, usize::MAX, 2)];
        widen(&area(2696, u64::MAX), nonsense, &mut whole).unwrap();
        assert_eq!(word(&whole, HEADER), LEGACY);
    }

    #[test]
    fn an_area_of_another_form_is_refused() {
        let mut packed = area(2696, 0x2ff);
        packed[HEADER + 15] = 0x80;
        assert_eq!(widen(&packed, AMX, &mut [0; 4096]), Err(Refused::Compacted));
        assert_eq!(widen(&area(600, 3)[..575], AMX, &mut [0; 4096]), Err(Refused::NoHeader));
        assert_eq!(widen(&area(600, 3), AMX, &mut [0; 575]), Err(Refused::NoHeader));
    }

    proptest! {
        #[test]
        fn whatever_the_sizes(short in SMALLEST..16_385usize, whole in SMALLEST..16_385usize, present: u64) {
            let area = area(short, present);
            let mut result = vec![0xff; whole];
            widen(&area, AMX, &mut result).unwrap();
            let taken = short.min(whole);
            for one in AMX {
                let held = one.offset + one.size <= taken;
                let bit = 1 << one.number;
                prop_assert_eq!(word(&result, HEADER) & bit, if held { present & bit } else { 0 });
                if held {
                    let place = one.offset..one.offset + one.size;
                    prop_assert_eq!(&result[place.clone()], &area[place]);
                }
            }
            prop_assert_eq!(&result[..HEADER], &area[..HEADER]);
            prop_assert!(result[HEADER + 8..SMALLEST].iter().all(|&byte| byte == 0));
            prop_assert!(result[taken..].iter().all(|&byte| byte == 0));
        }
    }
}
