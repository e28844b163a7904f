//! The program interpreter that an ELF program names.
//!
//! A program that wants a newer C library than the machine's starts through the interpreter of that library. Naming
//! it on the command line will not do: user-mode-linux executes itself again through `/proc/self/exe`. What must
//! hold: bytes from outside never lead out of the program.

use anyhow::{Context, Result, bail};

/// In a 64-bit little-endian ELF file (System V ABI, chapter 4 and 5): the header's fields, and a program header's.
const PROGRAM_HEADERS: usize = 32;
const PROGRAM_HEADER_SIZE: usize = 54;
const PROGRAM_HEADER_COUNT: usize = 56;
const INTERPRETER: u32 = 3;

/// Makes `program` start through `path`, which may not be longer than what it names now.
///
/// # Errors
/// When it is no such program, names no interpreter, or has no room.
pub(crate) fn set_interpreter(program: &mut [u8], path: &str) -> Result<()> {
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("no 64-bit ELF program");
    }
    let number = |from: usize, size: usize| -> Option<usize> {
        let bytes = program.get(from..from.checked_add(size)?)?;
        bytes.iter().rev().try_fold(0usize, |value, &byte| Some(value.checked_mul(256)? | usize::from(byte)))
    };
    let header = |index: usize| -> Option<(usize, usize, usize)> {
        let at =
            number(PROGRAM_HEADERS, 8)?.checked_add(index.checked_mul(number(PROGRAM_HEADER_SIZE, 2)?)?)?;
        Some((number(at, 4)?, number(at.checked_add(8)?, 8)?, number(at.checked_add(32)?, 8)?))
    };
    let count = number(PROGRAM_HEADER_COUNT, 2).context("an ELF header that ends early")?;
    let found = (0..count).filter_map(header).find(|(kind, ..)| *kind == INTERPRETER as usize);
    let (_, from, size) = found.context("the program names no interpreter")?;
    let room = from.checked_add(size).and_then(|end| program.get_mut(from..end));
    let room = room.context("the interpreter's name lies outside the program")?;
    if path.len() >= room.len() {
        bail!("`{path}` is longer than the interpreter's name");
    }
    room.fill(0);
    room[..path.len()].copy_from_slice(path.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with one program header, of the interpreter's kind.
    fn program() -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[PROGRAM_HEADERS] = 64;
        bytes[PROGRAM_HEADER_SIZE] = 56;
        bytes[PROGRAM_HEADER_COUNT] = 1;
        bytes[64] = 3;
        bytes[64 + 8] = 120;
        bytes[64 + 32] = 13;
        bytes.extend(b"/lib64/ld.so\0tail");
        bytes
    }

    #[test]
    fn the_name_is_replaced_and_nothing_else() {
        let mut bytes = program();
        set_interpreter(&mut bytes, "/x/ld.so").unwrap();
        let mut expected = program();
        expected[120..133].copy_from_slice(b"/x/ld.so\0\0\0\0\0");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_longer_name_does_not_fit() {
        assert!(set_interpreter(&mut program(), "/lib64/ld.so.").is_err());
        set_interpreter(&mut program(), "/lib64/ld.so").unwrap();
    }

    #[test]
    fn whatever_is_broken_is_refused() {
        let whole = program();
        for end in 0..133 {
            assert!(set_interpreter(&mut whole[..end].to_vec(), "/x").is_err(), "{end}");
        }
        for (at, value) in [(64, 1), (64 + 8 + 7, 255), (64 + 32 + 7, 255), (PROGRAM_HEADERS + 7, 255)] {
            let mut bytes = program();
            bytes[at] = value;
            assert!(set_interpreter(&mut bytes, "/x").is_err(), "{at}");
        }
    }
}
