//! Tag-length-value fields: the encoding inside every control payload, slot and epoch header.
//!
//! A field is {tag u16, length u32, value}, little endian. Tags ascend strictly, so a value has one
//! encoding and a duplicate is an error. A reader skips an unknown tag with [`OPTIONAL`] set and refuses
//! any other unknown one. Always holds: no length is believed before it is checked against the
//! bytes that are there, so nothing is allocated on a stranger's word.

/// Set in a tag that a reader who does not know it may skip.
pub const OPTIONAL: u16 = 0x8000;

/// Most fields in one encoding.
const MAX_FIELDS: usize = 64;

/// An encoding that is not sound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlvError {
    /// The bytes end inside a field.
    #[error("field {tag:#06x} at byte {at} is cut off: it needs {needed} bytes, {left} are left")]
    CutOff {
        /// Tag of the field, 0 when it is cut off itself.
        tag: u16,
        /// Where the field starts.
        at: usize,
        /// What it needs.
        needed: usize,
        /// What is there.
        left: usize,
    },
    /// A tag that is not above the one before: a duplicate, or disorder.
    #[error("field {tag:#06x} follows field {before:#06x}: duplicates and disorder are refused")]
    Order {
        /// The offending tag.
        tag: u16,
        /// The tag before it.
        before: u16,
    },
    /// More fields than any version writes.
    #[error("more than {MAX_FIELDS} fields")]
    TooMany,
    /// A field that must not be ignored and is not known here.
    #[error("field {tag:#06x} is unknown and mandatory: a newer version wrote it; upgrade this host")]
    Unknown {
        /// Its tag.
        tag: u16,
    },
    /// A field that must be there is not.
    #[error("field {tag:#06x} is missing")]
    Missing {
        /// Its tag.
        tag: u16,
    },
    /// A value of the wrong length.
    #[error("field {tag:#06x} has the wrong length of {len} bytes")]
    Length {
        /// Tag of the field.
        tag: u16,
        /// The length found.
        len: usize,
    },
    /// A value that means nothing.
    #[error("field {tag:#06x} holds {what}")]
    Value {
        /// Tag of the field.
        tag: u16,
        /// What is wrong with it.
        what: String,
    },
}

/// Writes fields in ascending order of their tags.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    #[cfg(debug_assertions)]
    last: u16,
}

impl Writer {
    /// Nothing written yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a field. Callers name their tags in ascending order; values are far below 4 GiB.
    pub fn field(&mut self, tag: u16, value: &[u8]) {
        #[cfg(debug_assertions)]
        {
            debug_assert!(self.bytes.is_empty() || tag > self.last, "tags ascend");
            self.last = tag;
        }
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&tag.to_le_bytes());
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(value);
    }

    /// Appends a u64.
    pub fn u64(&mut self, tag: u16, value: u64) {
        self.field(tag, &value.to_le_bytes());
    }

    /// Appends a u16.
    pub fn u16(&mut self, tag: u16, value: u16) {
        self.field(tag, &value.to_le_bytes());
    }

    /// The encoding.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The fields of one encoding, each taken once.
#[derive(Debug)]
pub struct Reader<'a> {
    fields: Vec<(u16, &'a [u8])>,
}

impl<'a> Reader<'a> {
    /// Splits `bytes` into fields; checks lengths and order, nothing of the values.
    pub fn new(bytes: &'a [u8]) -> Result<Self, TlvError> {
        let mut fields: Vec<(u16, &'a [u8])> = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let cut_off = |tag, needed| TlvError::CutOff { tag, at, needed, left: bytes.len() - at };
            let (head, after) = rest.split_first_chunk::<6>().ok_or_else(|| cut_off(0, 6))?;
            let tag = u16::from_le_bytes([head[0], head[1]]);
            let len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
            let (value, after) = after.split_at_checked(len).ok_or_else(|| cut_off(tag, len))?;
            if let Some(&(before, _)) = fields.last()
                && tag <= before
            {
                return Err(TlvError::Order { tag, before });
            }
            if fields.len() == MAX_FIELDS {
                return Err(TlvError::TooMany);
            }
            fields.push((tag, value));
            rest = after;
        }
        Ok(Self { fields })
    }

    /// Takes the value of `tag`, if it is there.
    pub fn optional(&mut self, tag: u16) -> Option<Value<'a>> {
        let at = self.fields.iter().position(|(t, _)| *t == tag)?;
        Some(Value { tag, len: self.fields[at].1.len(), bytes: self.fields.remove(at).1 })
    }

    /// Takes the value of `tag`, which must be there.
    pub fn required(&mut self, tag: u16) -> Result<Value<'a>, TlvError> {
        self.optional(tag).ok_or(TlvError::Missing { tag })
    }

    /// Takes a u64.
    pub fn u64(&mut self, tag: u16) -> Result<u64, TlvError> {
        self.array(tag).map(u64::from_le_bytes)
    }

    /// Takes a u16.
    pub fn u16(&mut self, tag: u16) -> Result<u16, TlvError> {
        self.array(tag).map(u16::from_le_bytes)
    }

    /// Takes exactly `N` bytes.
    pub fn array<const N: usize>(&mut self, tag: u16) -> Result<[u8; N], TlvError> {
        self.optional_array(tag)?.ok_or(TlvError::Missing { tag })
    }

    /// Takes exactly `N` bytes, if the field is there.
    pub fn optional_array<const N: usize>(&mut self, tag: u16) -> Result<Option<[u8; N]>, TlvError> {
        let Some(mut value) = self.optional(tag) else { return Ok(None) };
        let array = value.array()?;
        value.end()?;
        Ok(Some(array))
    }

    /// Whether the field is there, which has no value.
    pub fn flag(&mut self, tag: u16) -> Result<bool, TlvError> {
        Ok(self.optional_array::<0>(tag)?.is_some())
    }

    /// Ends the reading: whatever nobody took must be skippable.
    pub fn finish(self) -> Result<(), TlvError> {
        match self.fields.iter().find(|(tag, _)| tag & OPTIONAL == 0) {
            Some(&(tag, _)) => Err(TlvError::Unknown { tag }),
            None => Ok(()),
        }
    }
}

/// One value, read from its front.
#[derive(Debug)]
pub struct Value<'a> {
    tag: u16,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Value<'a> {
    /// Takes `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], TlvError> {
        let (array, rest) = self.bytes.split_first_chunk::<N>().ok_or_else(|| self.wrong_length())?;
        self.bytes = rest;
        Ok(*array)
    }

    /// Takes `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], TlvError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or_else(|| self.wrong_length())?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Takes a u8.
    pub fn u8(&mut self) -> Result<u8, TlvError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Takes a u16.
    pub fn u16(&mut self) -> Result<u16, TlvError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes a u32.
    pub fn u32(&mut self) -> Result<u32, TlvError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes a u64.
    pub fn u64(&mut self) -> Result<u64, TlvError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes all that is left, as one line of text of at most `max` bytes: see [`crate::text`].
    pub fn text(&mut self, max: usize) -> Result<String, TlvError> {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() > max {
            return Err(TlvError::Length { tag: self.tag, len: bytes.len() });
        }
        std::str::from_utf8(bytes)
            .map(crate::text::one_line)
            .map_err(|_| self.invalid("bytes that are not UTF-8"))
    }

    /// Takes all that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// Bytes not taken yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The value must have been taken whole.
    pub fn end(self) -> Result<(), TlvError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.wrong_length()) }
    }

    /// The error that this value makes no sense.
    #[must_use]
    pub fn invalid(&self, what: impl ToString) -> TlvError {
        TlvError::Value { tag: self.tag, what: what.to_string() }
    }

    fn wrong_length(&self) -> TlvError {
        TlvError::Length { tag: self.tag, len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_fields() -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(1, 42);
        writer.field(OPTIONAL | 5, b"later");
        writer.finish()
    }

    #[test]
    fn unknown_optional_fields_are_skipped_and_mandatory_ones_refused() {
        let bytes = two_fields();
        let mut reader = Reader::new(&bytes).unwrap();
        assert_eq!(reader.u64(1), Ok(42));
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(Reader::new(&bytes).unwrap().finish(), Err(TlvError::Unknown { tag: 1 }));
        assert_eq!(Reader::new(&bytes).unwrap().u64(2), Err(TlvError::Missing { tag: 2 }));
    }

    #[test]
    fn duplicates_and_disorder_are_refused() {
        let mut bytes = two_fields();
        bytes.extend_from_slice(&two_fields());
        assert_eq!(Reader::new(&bytes).unwrap_err(), TlvError::Order { tag: 1, before: OPTIONAL | 5 });
        let twice = [two_fields()[..14].to_vec(), two_fields()[..14].to_vec()].concat();
        assert_eq!(Reader::new(&twice).unwrap_err(), TlvError::Order { tag: 1, before: 1 });
    }

    #[test]
    fn every_cut_is_noticed_and_every_length_is_checked() {
        let bytes = two_fields();
        for len in 0..bytes.len() {
            let sound = Reader::new(&bytes[..len]);
            assert_eq!(sound.is_ok(), len == 0 || len == 14, "{len}");
        }
        let mut huge = bytes;
        huge[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Reader::new(&huge), Err(TlvError::CutOff { tag: 1, .. })));
        let mut writer = Writer::new();
        writer.field(1, &[0; 7]);
        writer.field(2, &[0; 9]);
        let odd = writer.finish();
        let mut reader = Reader::new(&odd).unwrap();
        assert_eq!(reader.u64(1), Err(TlvError::Length { tag: 1, len: 7 }));
        assert_eq!(reader.u64(2), Err(TlvError::Length { tag: 2, len: 9 }));
    }

    #[test]
    fn a_flood_of_fields_is_refused() {
        let mut writer = Writer::new();
        for tag in 0..=64 {
            writer.field(OPTIONAL | tag, &[]);
        }
        assert_eq!(Reader::new(&writer.finish()).unwrap_err(), TlvError::TooMany);
    }
}
