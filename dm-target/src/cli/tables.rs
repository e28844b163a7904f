//! Tables as people write them: a line `START SECTORS TARGET PARAMETERS` for each target.
//!
//! Always holds: a line is a target, a comment, blank, or an error with its number. Numbers are read as C reads
//! them, because dmsetup does.

use ftdm::ioctl::exchange::Target;

/// A line that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    pub(crate) number: usize,
}

/// The lines of a table. `from`: the number of its first line.
pub(crate) fn parse(text: &[u8], from: usize) -> Result<Vec<Target>, BadLine> {
    let mut table = Vec::new();
    for (at, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = line.split(|b| *b == b'#').next().unwrap_or_default().trim_ascii_start();
        if line.is_empty() {
            continue;
        }
        table.push(target(line).ok_or(BadLine { number: from + at })?);
    }
    Ok(table)
}

fn target(line: &[u8]) -> Option<Target> {
    let (start, rest) = number(line)?;
    let (len, rest) = number(rest)?;
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let (kind, parameters) = rest.split_at(end);
    if kind.is_empty() {
        return None;
    }
    Some(Target { start, len, kind: kind.to_vec(), parameters: parameters.trim_ascii_start().to_vec() })
}

/// A number of C, and what follows it: too large ones are the largest, negative ones wrap.
pub(crate) fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let value = std::str::from_utf8(&digits[..end]).ok()?.parse::<u64>();
    let value = value.map(|value| if negative { value.wrapping_neg() } else { value }).unwrap_or(u64::MAX);
    Some((value, &digits[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, usize> {
        let text_of = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let line =
            |t: &Target| format!("{}|{}|{}|{}", t.start, t.len, text_of(&t.kind), text_of(&t.parameters));
        parse(text.as_bytes(), 1).map(|table| table.iter().map(line).collect()).map_err(|bad| bad.number)
    }

    #[test]
    fn lines_are_targets_comments_or_blank() {
        let text = "# a comment\n\n  \t\n\t0 100 zero # a comment too\n 100  28 linear   1:0 \t 8\n#end\n";
        assert_eq!(shown(text), Ok(vec!["0|100|zero|".into(), "100|28|linear|1:0 \t 8".into()]));
        assert_eq!(shown(""), Ok(vec![]));
        assert_eq!(shown("0 8 zero"), Ok(vec!["0|8|zero|".into()]));
    }

    #[test]
    fn what_is_no_line_has_its_number() {
        for (text, at) in [("0 100", 1), ("0 8 zero\nx 8 zero", 2), ("\n\n0 y z", 3), ("- 8 zero", 1)] {
            assert_eq!(shown(text), Err(at), "{text}");
        }
    }

    #[test]
    fn numbers_are_those_of_c() {
        assert_eq!(shown("0 -1 zero"), Ok(vec![format!("0|{}|zero|", u64::MAX)]));
        assert_eq!(shown("+0 99999999999999999999999 zero"), Ok(vec![format!("0|{}|zero|", u64::MAX)]));
        assert_eq!(shown("0 100zero x"), Ok(vec!["0|100|zero|x".into()]));
        assert_eq!(shown("0 0x64 zero"), Ok(vec!["0|0|x64|zero".into()]));
    }
}
