//! Whole devices in one line: `NAME,UUID,MINOR,FLAGS,LINE[,LINE]...[;NAME...]`.
//!
//! Always holds: what [`written`] writes, [`parse`] reads back.

use ftdm::ioctl::exchange::Target;

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: Vec<u8>,
    pub(crate) uuid: Vec<u8>,
    pub(crate) minor: Vec<u8>,
    pub(crate) flags: Vec<u8>,
    /// Lines of its table, as text.
    pub(crate) lines: Vec<Vec<u8>>,
}

/// A device that lacks fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incomplete {
    pub(crate) why: &'static str,
    pub(crate) found: Vec<u8>,
}

/// The devices. A `;` at the end begins none.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<Device>, Incomplete> {
    let mut devices = Vec::new();
    let mut fields = vec![Vec::new()];
    let mut bytes = text.iter();
    let mut more = !text.is_empty();
    while more {
        let byte = bytes.next();
        let field = fields.last_mut().expect("one at least");
        match byte {
            Some(b',') => fields.push(Vec::new()),
            Some(b'\\') => field.extend(bytes.next()),
            Some(b' ') if field.is_empty() => {}
            Some(b';') | None => {
                devices.push(device(std::mem::take(&mut fields), byte.is_none())?);
                fields.push(Vec::new());
                more = byte.is_some() && bytes.len() > 0;
            }
            Some(byte) => field.push(*byte),
        }
    }
    Ok(devices)
}

fn device(fields: Vec<Vec<u8>>, last: bool) -> Result<Device, Incomplete> {
    if fields.len() < 5 || fields[4].is_empty() {
        let why = if last && fields.len() > 1 {
            "Incomplete entry: five comma-separated fields are required for each device"
        } else {
            "Five comma-separated fields are required for each device"
        };
        let mut found = format!("Parsed {} fields:", fields.len().min(5)).into_bytes();
        for (at, name) in ["name", "uuid", "minor", "flags", "table"].iter().enumerate() {
            let value = fields.get(at).map_or(&b"(null)"[..], |field| field);
            found.extend([b" ", name.as_bytes(), b": ", value].concat());
        }
        return Err(Incomplete { why, found });
    }
    let mut fields = fields.into_iter();
    let mut next = || fields.next().unwrap_or_default();
    let (name, uuid, minor, flags) = (next(), next(), next(), next());
    Ok(Device { name, uuid, minor, flags, lines: fields.collect() })
}

/// Of which the separators are escaped.
fn escaped(text: &[u8]) -> Vec<u8> {
    let escaped = |byte: &u8| if b"\\,;".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] };
    text.iter().flat_map(escaped).collect()
}

/// One device as [`parse`] reads it.
pub(crate) fn written(name: &[u8], uuid: &[u8], minor: u32, readonly: bool, table: &[Target]) -> Vec<u8> {
    let minor = minor.to_string();
    let flags: &[u8] = if readonly { b"ro" } else { b"rw" };
    let mut fields = vec![escaped(name), escaped(uuid), minor.into_bytes(), flags.to_vec()];
    for line in table {
        let numbers = format!("{} {} ", line.start, line.len);
        fields.push([numbers.as_bytes(), &line.kind, b" ", &escaped(&line.parameters)].concat());
    }
    fields.join(&b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let line = |start, parameters: &str| Target {
            start,
            len: 8,
            kind: b"linear".to_vec(),
            parameters: parameters.into(),
        };
        let table = [line(0, "1:0 0"), line(8, "a,b;c\\d 1")];
        let text = written(b"a;b", b"u,v", 7, true, &table);
        let found = parse(&text).unwrap();
        assert_eq!(found.len(), 1);
        let Device { name, uuid, minor, flags, lines } = &found[0];
        assert_eq!(
            (&name[..], &uuid[..], &minor[..], &flags[..]),
            (&b"a;b"[..], &b"u,v"[..], &b"7"[..], &b"ro"[..])
        );
        assert_eq!(lines.len(), 2);
        let text = lines.join(&b'\n');
        assert_eq!(super::super::tables::parse(&text, 1).unwrap(), table);
    }

    #[test]
    fn devices_and_fields_are_separated() {
        let found = parse(b"a,,,,0 8 zero,8 8 error; b, u,,rw,0 8 zero;").unwrap();
        let names: Vec<_> = found.iter().map(|device| device.name.clone()).collect();
        assert_eq!(names, [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(found[0].lines.len(), 2);
        assert_eq!(found[1].flags, b"rw");
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn what_lacks_fields_is_shown() {
        let found = |text: &[u8]| {
            let Incomplete { why, found } = parse(text).unwrap_err();
            format!("{} {}", why.starts_with("Incomplete"), String::from_utf8(found).unwrap())
        };
        assert_eq!(found(b"j,,,,"), "true Parsed 5 fields: name: j uuid:  minor:  flags:  table: ");
        assert_eq!(found(b"l,,"), "true Parsed 3 fields: name: l uuid:  minor:  flags: (null) table: (null)");
        let one = "Parsed 1 fields: name: m uuid: (null) minor: (null) flags: (null) table: (null)";
        assert_eq!(found(b"m"), format!("false {one}"));
        assert!(found(b";q,,,,0 8 zero").starts_with("false Parsed 1 fields: name:  uuid"));
    }
}
