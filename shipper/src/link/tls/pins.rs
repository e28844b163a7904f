//! The keys that a group trusts: a text file of fingerprints beside its configuration.
//!
//! Always holds: a file that anybody but its owner may write to is not believed; a file with one line that is not
//! understood is refused whole; at most [`MAX_PINS`] keys are trusted, and no more than [`MAX_LEN`] bytes are read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::fingerprint::{Fingerprint, NotAFingerprint};
use crate::store::small_file::{self, FileError, Secrecy};

/// Most keys: the other host's, its next one, and room for a slip.
pub const MAX_PINS: usize = 16;
/// Longest file, in bytes.
pub const MAX_LEN: usize = 16 << 10;

/// The keys that are trusted, each with what was noted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins(BTreeMap<Fingerprint, String>);

/// Why a file of pins is refused.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It cannot be read or written, or others may write to it.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is not understood.
    #[error("{path}: line {line}: {source}")]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// Why.
        source: NotAFingerprint,
    },
    /// More than are of use.
    #[error("{path}: more than {MAX_PINS} keys: remove those that are of no use any more")]
    TooMany {
        /// The file.
        path: String,
    },
}

impl Pins {
    /// Reads the text of a file: a fingerprint a line, and behind it what people noted; `#` begins a comment.
    ///
    /// # Errors
    /// Names the first line that is not understood.
    pub fn parse(path: &str, text: &str) -> Result<Self, PinError> {
        let mut pins = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, note) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let key =
                key.parse().map_err(|source| PinError::Line { path: path.into(), line: at + 1, source })?;
            pins.0.insert(key, note.trim().to_owned());
            if pins.0.len() > MAX_PINS {
                return Err(PinError::TooMany { path: path.into() });
            }
        }
        Ok(pins)
    }

    /// Reads a file; where there is none, nobody is trusted.
    ///
    /// # Errors
    /// When it cannot be read, others may write to it, or a line is not understood.
    pub fn load(path: &Path) -> Result<Self, PinError> {
        match small_file::read(path, MAX_LEN, Secrecy::Authentic) {
            Ok(text) => Self::parse(&path.display().to_string(), &text),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the key is trusted.
    #[must_use]
    pub fn trusts(&self, key: &Fingerprint) -> bool {
        self.0.contains_key(key)
    }

    /// The keys and what is noted of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Fingerprint, &str)> {
        self.0.iter().map(|(key, note)| (key, note.as_str()))
    }

    /// Trusts `key` from now on, durably. `false` when it was trusted already.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is full.
    pub fn add(path: &Path, key: Fingerprint, note: &str) -> Result<bool, PinError> {
        let mut pins = Self::load(path)?;
        if pins.trusts(&key) {
            return Ok(false);
        }
        if pins.0.len() == MAX_PINS {
            return Err(PinError::TooMany { path: path.display().to_string() });
        }
        pins.0.insert(key, note.replace(['\n', '\r'], " "));
        pins.store(path)?;
        Ok(true)
    }

    /// Trusts `key` no more, durably. `false` when it was not trusted.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn remove(path: &Path, key: &Fingerprint) -> Result<bool, PinError> {
        let mut pins = Self::load(path)?;
        if pins.0.remove(key).is_none() {
            return Ok(false);
        }
        pins.store(path)?;
        Ok(true)
    }

    fn store(&self, path: &Path) -> Result<(), PinError> {
        let mut text = String::from("# Keys that this group trusts: see `ftship pair`.\n");
        for (key, note) in self.iter() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{key} {note}");
        }
        Ok(small_file::replace(path, &text, Secrecy::Authentic)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    const B: &str = "SHA256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg";

    fn key(text: &str) -> Fingerprint {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_a_line_with_notes_and_comments() {
        let pins = Pins::parse("vm1.pins", &format!("# ours\n\n {A}\tthe old one \n{B}\n")).unwrap();
        assert!(pins.trusts(&key(A)) && pins.trusts(&key(B)));
        assert_eq!(pins.iter().map(|(_, note)| note).collect::<Vec<_>>(), ["", "the old one"]);
    }

    #[test]
    fn one_bad_line_refuses_the_file_and_is_named() {
        let text = Pins::parse("vm1.pins", &format!("{A}\nSHA256:short\n")).unwrap_err().to_string();
        assert!(text.contains("vm1.pins: line 2"), "{text}");
    }

    #[test]
    fn keys_are_added_once_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm1.pins");
        assert_eq!(Pins::load(&path).unwrap(), Pins::default());
        assert!(Pins::add(&path, key(A), "10.9.0.2").unwrap());
        assert!(!Pins::add(&path, key(A), "again").unwrap());
        assert!(Pins::add(&path, key(B), "a note\nof two lines").unwrap());
        let pins = Pins::load(&path).unwrap();
        assert!(pins.trusts(&key(A)) && pins.trusts(&key(B)));
        assert!(Pins::remove(&path, &key(A)).unwrap());
        assert!(!Pins::remove(&path, &key(A)).unwrap());
        assert!(!Pins::load(&path).unwrap().trusts(&key(A)));
    }

    #[test]
    fn no_more_keys_than_are_of_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm1.pins");
        for n in 0..MAX_PINS {
            let text = format!("SHA256:{}A", "A".repeat(40) + &format!("{:02}", n + 10));
            assert!(Pins::add(&path, key(&text), "").unwrap());
        }
        let text = Pins::add(&path, key(A), "").unwrap_err().to_string();
        assert!(text.contains("more than 16 keys"), "{text}");
    }

    #[test]
    fn a_file_that_others_may_write_to_is_not_believed() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm1.pins");
        Pins::add(&path, key(A), "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
        let text = Pins::load(&path).unwrap_err().to_string();
        assert!(text.contains("0664") && text.contains("chmod"), "{text}");
    }
}
