//! Names and UUIDs as udev bears them: what is outside of its alphabet is written as `\xNN`.
//!
//! Always holds: [`unmangled`] undoes [`mangled`] in every mode but `none`; a name that is half mangled is refused in
//! the mode `auto`, because nobody can know what was meant.

use std::borrow::Cow;
use std::str::FromStr;

/// How names are mangled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mangling {
    /// Not at all.
    None,
    /// All that is outside of the alphabet.
    Hex,
    /// As `hex`, unless it is mangled already.
    #[default]
    Auto,
}

impl FromStr for Mangling {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "hex" => Ok(Self::Hex),
            "auto" => Ok(Self::Auto),
            _ => Err(()),
        }
    }
}

/// Half of it is mangled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixed;

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&byte)
}

/// The byte that `\xNN` at the start of `text` stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let [b'\\', b'x', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? * 16 + digit(low)?)
}

/// As the kernel is to have it.
///
/// # Errors
/// [`Mixed`] in the mode `auto`.
pub fn mangled(text: &[u8], mode: Mangling) -> Result<Cow<'_, [u8]>, Mixed> {
    if mode == Mangling::None || text.iter().copied().all(is_plain) {
        return Ok(text.into());
    }
    let mut mangled = Vec::with_capacity(text.len() * 4);
    let (mut escapes, mut strange) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        // What begins as an escape is taken for one, as libdevmapper does.
        if mode == Mangling::Auto && text[at..].starts_with(b"\\x") {
            escapes = true;
            mangled.push(*byte);
        } else if is_plain(*byte) {
            mangled.push(*byte);
        } else {
            strange = true;
            mangled.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
    if escapes && strange { Err(Mixed) } else { Ok(mangled.into()) }
}

/// As people are to see it.
#[must_use]
pub fn unmangled(text: &[u8], mode: Mangling) -> Cow<'_, [u8]> {
    if mode == Mangling::None || !text.contains(&b'\\') {
        return text.into();
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let found = escape(&text[at..]);
        plain.push(found.unwrap_or(text[at]));
        at += if found.is_some() { 4 } else { 1 };
    }
    plain.into()
}

/// What is wrong with a name that the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// It has characters that should be mangled.
    Unmangled,
    /// What is mangled is mangled again.
    Twice,
}

/// Whether a name that the kernel has is as `mode` would have made it.
#[must_use]
pub fn odd(text: &[u8], mode: Mangling) -> Option<Odd> {
    if mode == Mangling::None {
        return None;
    }
    if text.iter().any(|byte| !is_plain(*byte) && *byte != b'\\') {
        return Some(Odd::Unmangled);
    }
    let twice = mode == Mangling::Auto && text.windows(5).any(|five| five == b"\\x5cx");
    twice.then_some(Odd::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_udev_does_not_bear_is_mangled_and_comes_back() {
        for (text, expected) in [
            ("vm-100-disk-0", "vm-100-disk-0"),
            ("a b", "a\\x20b"),
            ("ü", "\\xc3\\xbc"),
            ("a/b", "a\\x2fb"),
            ("back\\slash", "back\\x5cslash"),
            ("#+-.:=@_", "#+-.:=@_"),
        ] {
            for mode in [Mangling::Auto, Mangling::Hex] {
                let mangled = mangled(text.as_bytes(), mode).unwrap();
                assert_eq!(mangled, expected.as_bytes(), "{text}");
                assert_eq!(unmangled(&mangled, mode), text.as_bytes());
            }
            assert_eq!(mangled(text.as_bytes(), Mangling::None).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn what_is_mangled_stays_and_what_is_half_mangled_is_refused() {
        assert_eq!(mangled(b"a\\x20b", Mangling::Auto).unwrap(), &b"a\\x20b"[..]);
        assert_eq!(mangled(b"a\\x20b", Mangling::Hex).unwrap(), &b"a\\x5cx20b"[..]);
        assert_eq!(mangled(b"a\\x20 b", Mangling::Auto), Err(Mixed));
        assert_eq!(unmangled(b"a\\x20b", Mangling::None), &b"a\\x20b"[..]);
        assert_eq!(mangled(b"g\\xzz", Mangling::Auto).unwrap(), &b"g\\xzz"[..]);
        assert_eq!(odd(b"h h", Mangling::Hex), Some(Odd::Unmangled));
        assert_eq!(odd(b"j\\x5cx20j", Mangling::Auto), Some(Odd::Twice));
        assert_eq!(odd(b"j\\x5cx20j", Mangling::Hex), None);
        assert_eq!(odd(b"g\\xzz", Mangling::Auto), None);
    }
}
