//! Tag-length-value fields by themselves.

use ftship_proto::tlv::{Reader, TlvError, Writer};

use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target = Target { name: "tlv", run, seeds, max_len: 4096, words: &[] };

/// Memory for any bytes: 64 fields, by doubling; values are not copied.
const BOUND: usize = 8 << 10;

fn run(data: &[u8]) -> Verdict {
    let reader = match within(BOUND, || Reader::new(data)) {
        Ok(reader) => reader,
        Err(error) => {
            explains(&error, &["field"]);
            return Verdict::Refused;
        }
    };
    let fields = split(data).unwrap_or_else(|| panic!("accepted, and cannot be split"));
    take_all(reader, &fields);
    let mut writer = Writer::new();
    fields.iter().for_each(|(tag, value)| writer.field(*tag, value));
    assert_eq!(writer.finish(), data, "one set of fields, one encoding");
    typed(data, &fields);
    Verdict::Accepted
}

/// The fields, split by the format's description.
fn split(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut fields = Vec::new();
    while let [t0, t1, l0, l1, l2, l3, rest @ ..] = bytes {
        let len = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
        let (value, after) = rest.split_at_checked(len)?;
        fields.push((u16::from_le_bytes([*t0, *t1]), value));
        bytes = after;
    }
    bytes.is_empty().then_some(fields)
}

/// Each field is there once, with its value.
fn take_all(mut reader: Reader<'_>, fields: &[(u16, &[u8])]) {
    for (tag, value) in fields {
        let mut taken = reader.required(*tag).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(taken.left(), value.len());
        assert_eq!(taken.take(value.len()), Ok(*value));
        assert_eq!(taken.end(), Ok(()));
        assert_eq!(reader.required(*tag).err(), Some(TlvError::Missing { tag: *tag }), "taken twice");
    }
    assert_eq!(reader.finish(), Ok(()));
}

/// Values are taken as what they are, or refused by their tag.
fn typed(data: &[u8], fields: &[(u16, &[u8])]) {
    for (tag, value) in fields {
        let fresh = || Reader::new(data).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(fresh().u64(*tag).is_ok(), value.len() == 8);
        assert_eq!(fresh().u16(*tag).is_ok(), value.len() == 2);
        assert_eq!(fresh().array::<3>(*tag).is_ok(), value.len() == 3);
        let text = fresh().required(*tag).and_then(|mut value| value.text(16));
        assert_eq!(text.is_ok(), value.len() <= 16 && std::str::from_utf8(value).is_ok());
        if let Err(error) = text {
            explains(&error, &[&format!("{tag:#06x}")]);
        }
    }
    let unknown = fields.iter().find(|(tag, _)| tag & 0x8000 == 0);
    let left = Reader::new(data).and_then(Reader::finish);
    assert_eq!(left.err(), unknown.map(|(tag, _)| TlvError::Unknown { tag: *tag }));
}

fn seeds() -> Vec<Seed> {
    let mut writer = Writer::new();
    writer.u16(1, 7);
    writer.u64(2, u64::MAX);
    writer.field(9, b"text");
    writer.field(0x8001, &[0; 3]);
    vec![("empty".into(), Vec::new()), ("four".into(), writer.finish())]
}
