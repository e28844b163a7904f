//! The marks that a capture sends into its log.
//!
//! Always holds: making one does not allocate; what lands in the log is [`Mark::payload`].

use std::fmt::Arguments;
use std::io::{self, Write as _};

/// The longest mark: prefix, nonce, two numbers and the words between.
const MARK_LEN: usize = 96;
/// What the message has before the text that lands in the log.
const MARK_WORD: &str = "mark ";

/// The text of a mark.
#[derive(Debug)]
pub(crate) struct Mark {
    text: [u8; MARK_LEN],
    len: usize,
}

impl Mark {
    /// A mark of this text.
    ///
    /// # Errors
    /// When it is too long.
    pub(crate) fn new(text: Arguments<'_>) -> io::Result<Self> {
        let mut mark = Self { text: [0; MARK_LEN], len: 0 };
        let mut rest = &mut mark.text[..];
        write!(rest, "{MARK_WORD}{text}")?;
        mark.len = MARK_LEN - rest.len();
        Ok(mark)
    }

    /// What is sent to log-writes.
    ///
    /// # Errors
    /// When it is not text.
    pub(crate) fn message(&self) -> io::Result<&str> {
        std::str::from_utf8(&self.text[..self.len]).map_err(io::Error::other)
    }

    /// What it writes into the log.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.text[MARK_WORD.len()..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_carries_its_text_and_refuses_what_is_too_long() {
        let mark = Mark::new(format_args!("ftdm-{}-cut", 7)).unwrap();
        assert_eq!(mark.message().unwrap(), "mark ftdm-7-cut");
        assert_eq!(mark.payload(), b"ftdm-7-cut");
        assert!(Mark::new(format_args!("{:100}", 1)).is_err());
    }
}
