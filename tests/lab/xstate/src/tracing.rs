//! Setting the registers of a traced process through a kernel that takes nothing but whole areas.
//!
//! What must hold: a request that the machine's kernel takes as it is reaches it as it is; no memory is allocated,
//! because user-mode-linux has its own ideas of where the C library may do that.

use crate::area::{Component, SMALLEST, widen};

/// More than any processor's area: the largest that is known has 11,008 bytes.
const LARGEST: usize = 64 << 10;

/// The last component of vector registers: those that AVX-512 added.
const LAST_VECTORS: u32 = 7;

/// An error number.
pub(crate) type Errno = i32;

/// What this needs of the machine's kernel.
pub(crate) trait Kernel {
    /// Reads the register area of process `process` into `area`; returns how many bytes there are.
    fn read(&mut self, process: i32, area: &mut [u8]) -> Result<usize, Errno>;

    /// Sets it.
    fn write(&mut self, process: i32, area: &[u8]) -> Result<(), Errno>;

    /// Gives `each` the processor's components behind the header.
    fn components(&self, each: &mut dyn FnMut(Component));
}

/// Room for a whole area, and what one is like here. The processor is asked once: in a virtual machine that is slow.
#[derive(Debug)]
pub(crate) struct Tracer {
    area: [u8; LARGEST],
    /// Bytes; 0 until it is known.
    whole: usize,
    components: [Component; 64],
}

impl Tracer {
    pub(crate) const fn new() -> Self {
        let nothing = Component { number: 0, offset: 0, size: 0 };
        Tracer { area: [0; LARGEST], whole: 0, components: [nothing; 64] }
    }

    /// Sets the registers of `process` to what `given` holds. `cut` leaves the components after the vector registers out,
    /// and makes the rest whole whatever the sizes: so that a machine that needs none of this can try it. Without its
    /// vector registers a program would go wrong: the C library copies with them.
    ///
    /// # Errors
    /// Those of the machine's kernel; `EINVAL` for an area that is none.
    pub(crate) fn set(
        &mut self,
        kernel: &mut impl Kernel,
        process: i32,
        given: &[u8],
        cut: bool,
    ) -> Result<(), Errno> {
        if self.whole == 0 {
            let mut places = self.components.iter_mut();
            kernel.components(&mut |one| {
                if let Some(place) = places.next() {
                    *place = one;
                }
            });
            self.whole = kernel.read(process, &mut self.area)?;
        }
        let spared =
            self.components.iter().filter(|one| one.number > LAST_VECTORS).map(|one| one.offset).min();
        let given = match spared.filter(|_| cut) {
            Some(end) => &given[..given.len().min(end.max(SMALLEST))],
            None => given,
        };
        if (given.len() >= self.whole && !cut) || given.len() < SMALLEST {
            return kernel.write(process, given);
        }
        let whole = &mut self.area[..self.whole];
        widen(given, self.components, whole).map_err(|_| libc::EINVAL)?;
        kernel.write(process, whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands in for the kernel of a machine with AMX, as Linux 6.x behaves: it takes its own size and no other, and
    /// a header that names nothing which it does not have.
    struct Demanding {
        size: usize,
        taken: Vec<Vec<u8>>,
        reads: usize,
    }

    impl Kernel for Demanding {
        fn read(&mut self, _process: i32, area: &mut [u8]) -> Result<usize, Errno> {
            self.reads += 1;
            area[..self.size].fill(0x55);
            Ok(self.size)
        }

        fn write(&mut self, _process: i32, area: &[u8]) -> Result<(), Errno> {
            let area = &area[..area.len().min(self.size)];
            if area.len() != self.size {
                return Err(libc::EFAULT);
            }
            let more = area[520..576].iter().any(|&byte| byte != 0);
            let present = u64::from_le_bytes(area[512..520].try_into().unwrap());
            if more || present & !0x602ff != 0 {
                return Err(libc::EINVAL);
            }
            self.taken.push(area.to_vec());
            Ok(())
        }

        fn components(&self, each: &mut dyn FnMut(Component)) {
            let all = [
                (2, 576, 256),
                (5, 1088, 64),
                (6, 1152, 512),
                (7, 1664, 1024),
                (9, 2688, 8),
                (17, 2752, 64),
                (18, 2816, 8192),
            ];
            let all = all.map(|(number, offset, size)| Component { number, offset, size });
            all.into_iter().filter(|one| one.offset + one.size <= self.size).for_each(each);
        }
    }

    fn demanding(size: usize) -> (Box<Tracer>, Demanding) {
        (Box::new(Tracer::new()), Demanding { size, taken: Vec::new(), reads: 0 })
    }

    fn given(size: usize, present: u64) -> Vec<u8> {
        let mut area = vec![7; size];
        area[512..576].fill(0);
        area[512..520].copy_from_slice(&present.to_le_bytes());
        area
    }

    #[test]
    fn a_short_area_reaches_a_kernel_that_wants_a_whole_one() {
        let (mut tracer, mut kernel) = demanding(11_008);
        assert_eq!(kernel.write(1, &given(2696, 0x2ff)), Err(libc::EFAULT));
        for round in 1..4 {
            tracer.set(&mut kernel, 1, &given(2696, 0x602ff), false).unwrap();
            let taken = kernel.taken.last().unwrap();
            assert_eq!((taken.len(), kernel.taken.len(), kernel.reads), (11_008, round, 1));
            assert_eq!(taken[512..520], 0x2e7u64.to_le_bytes());
            assert_eq!(taken[576..2696], given(2696, 0)[576..]);
            assert!(taken[2696..].iter().all(|&byte| byte == 0), "the last reading must not show through");
        }
    }

    #[test]
    fn what_the_kernel_takes_as_it_is_reaches_it_as_it_is() {
        for size in [2696, 832] {
            let (mut tracer, mut kernel) = demanding(size);
            let area = given(2696, 0x3);
            tracer.set(&mut kernel, 1, &area, false).unwrap();
            assert_eq!(kernel.taken, [area[..size].to_vec()]);
        }
        let (mut tracer, mut kernel) = demanding(11_008);
        assert_eq!(tracer.set(&mut kernel, 1, &given(576, 0)[..575], false), Err(libc::EFAULT));
    }

    #[test]
    fn a_machine_that_needs_none_of_this_can_try_it() {
        let (mut tracer, mut kernel) = demanding(2696);
        tracer.set(&mut kernel, 1, &given(2696, 0x2ff), true).unwrap();
        let taken = &kernel.taken[0];
        assert_eq!((taken.len(), &taken[512..514]), (2696, &[0xe7, 0][..]));
        assert_eq!(taken[2688..], [0; 8]);
    }

    #[test]
    fn a_machine_without_anything_to_spare_keeps_its_vector_registers_when_it_tries() {
        let (mut tracer, mut kernel) = demanding(2688);
        let area = given(2688, 0xe7);
        tracer.set(&mut kernel, 1, &area, true).unwrap();
        assert_eq!(kernel.taken, [area]);
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        let (mut tracer, mut kernel) = demanding(11_008);
        let mut packed = given(2696, 3);
        packed[527] = 0x80;
        assert_eq!(tracer.set(&mut kernel, 1, &packed, false), Err(libc::EINVAL));
        assert!(kernel.taken.is_empty());
    }
}
