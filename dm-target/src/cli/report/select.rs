//! `--select`: which rows are shown.
//!
//! Always holds: a selection that is not understood is refused with the place, before a row is looked at; an operator
//! is used only with the kind of field that it fits.

use regex::bytes::Regex;

use super::fields::{self, Field, Kind};
use super::{Row, Value};

/// A selection.
#[derive(Debug)]
pub(crate) enum Select {
    All(Vec<Select>),
    Any(Vec<Select>),
    Not(Box<Select>),
    Is(&'static Field, Test),
}

/// What is asked of one field.
#[derive(Debug)]
pub(crate) enum Test {
    Number(Order, u64),
    Text { equal: bool, text: Vec<u8> },
    Matches { matches: bool, regex: Regex },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Equal,
    NotEqual,
    Least,
    More,
    Most,
    Less,
}

/// Why a selection is refused: the lines that say so, and which help goes before them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) fields: bool,
    pub(crate) operators: bool,
    pub(crate) lines: Vec<String>,
}

/// What is still to be read.
struct Text<'a> {
    rest: &'a [u8],
}

/// Operators of comparison, those that others begin with last.
const COMPARISONS: [&str; 8] = ["=~", "!~", "!=", ">=", "<=", "=", ">", "<"];
/// What ends a value that is not quoted.
const ENDS: [&[u8]; 5] = [b"&&", b"||", b",", b"#", b")"];

impl Select {
    /// Reads a selection; none when there is nothing in it.
    pub(crate) fn parse(text: &[u8]) -> Result<Option<Self>, Wrong> {
        if text.is_empty() {
            return Ok(None);
        }
        let mut rest = Text { rest: text };
        let read = rest.any()?;
        rest.skip_space();
        if rest.rest.is_empty() { Ok(Some(read)) } else { Err(rest.syntax("Expecting logical operator")) }
    }

    /// The fields that it asks for.
    pub(crate) fn fields(&self, found: &mut Vec<&'static Field>) {
        match self {
            Self::All(several) | Self::Any(several) => several.iter().for_each(|one| one.fields(found)),
            Self::Not(one) => one.fields(found),
            Self::Is(field, _) => found.push(field),
        }
    }

    pub(crate) fn holds(&self, row: &Row) -> bool {
        match self {
            Self::All(several) => several.iter().all(|one| one.holds(row)),
            Self::Any(several) => several.iter().any(|one| one.holds(row)),
            Self::Not(one) => !one.holds(row),
            Self::Is(field, test) => row.get(field.name).is_some_and(|value| test.holds(value)),
        }
    }
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Number(order, wanted), Value::Number(number)) => match order {
                Order::Equal => number == wanted,
                Order::NotEqual => number != wanted,
                Order::Least => number >= wanted,
                Order::More => number > wanted,
                Order::Most => number <= wanted,
                Order::Less => number < wanted,
            },
            (Self::Text { equal, text }, value) => (value.text() == *text) == *equal,
            (Self::Matches { matches, regex }, value) => regex.is_match(&value.text()) == *matches,
            _ => false,
        }
    }
}

impl<'a> Text<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn takes(&mut self, token: &[u8]) -> bool {
        self.skip_space();
        let taken = self.rest.strip_prefix(token);
        if let Some(rest) = taken {
            self.rest = rest;
        }
        taken.is_some()
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(self.rest).into_owned()
    }

    fn syntax(&self, why: &str) -> Wrong {
        wrong(vec![why.to_owned()], &self.shown())
    }

    fn any(&mut self) -> Result<Select, Wrong> {
        let mut several = vec![self.all()?];
        while self.takes(b"||") || self.takes(b"#") {
            several.push(self.all()?);
        }
        Ok(if several.len() == 1 { several.remove(0) } else { Select::Any(several) })
    }

    fn all(&mut self) -> Result<Select, Wrong> {
        let mut several = vec![self.one()?];
        while self.takes(b"&&") || self.takes(b",") {
            several.push(self.one()?);
        }
        Ok(if several.len() == 1 { several.remove(0) } else { Select::All(several) })
    }

    fn one(&mut self) -> Result<Select, Wrong> {
        let not = self.takes(b"!");
        if self.takes(b"(") {
            let inner = self.any()?;
            if !self.takes(b")") {
                let line = format!("Syntax error: right parenthesis expected at '{}'", self.shown());
                return Err(Wrong { lines: vec![line], ..Wrong::default() });
            }
            return Ok(if not { Select::Not(Box::new(inner)) } else { inner });
        }
        if not {
            let line = format!("Syntax error: left parenthesis expected at '{}'", self.shown());
            return Err(Wrong { lines: vec![line], ..Wrong::default() });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Select, Wrong> {
        self.skip_space();
        let at = self.shown();
        let end = self.rest.iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'_'));
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if name.is_empty() {
            return Err(self.syntax("Expecting field name"));
        }
        let name = String::from_utf8_lossy(name).into_owned();
        self.rest = rest;
        self.skip_space();
        let Some(field) = fields::find(&name) else {
            let lines = vec![format!("Unrecognised selection field: {name}")];
            return Err(Wrong { fields: true, ..wrong(lines, &at) });
        };
        let Some(operator) = COMPARISONS.into_iter().find(|op| self.takes(op.as_bytes())) else {
            let lines = vec![format!("Unrecognised comparison operator: {}", self.shown())];
            return Err(Wrong { operators: true, ..wrong(lines, &at) });
        };
        let unfit = |fit: &str| {
            let lines = vec![format!("Operator can be used only with {fit} fields: {at}")];
            Err(Wrong { operators: true, ..wrong(lines, &at) })
        };
        if field.kind != Kind::Number && matches!(operator, ">" | "<" | ">=" | "<=") {
            return unfit("number, size, time or percent");
        }
        if field.kind == Kind::Number && matches!(operator, "=~" | "!~") {
            let line = format!("dm_report: incompatible comparison type for selection field {}", field.name);
            return Err(Wrong { lines: vec![line], ..Wrong::default() });
        }
        let parsed = self.test(field, operator);
        parsed.map(|test| Select::Is(field, test)).map_err(|mut lines| {
            if lines.first().is_some_and(|line| line.starts_with("missing ")) {
                return Wrong { lines, ..Wrong::default() };
            }
            lines.retain(|line| !line.is_empty());
            wrong(lines, &at)
        })
    }

    fn test(&mut self, field: &Field, operator: &str) -> Result<Test, Vec<String>> {
        self.skip_space();
        let equal = !operator.starts_with('!');
        if operator.ends_with('~') {
            let failed =
                |line| vec![line, format!("Failed to parse regex value for selection field {}.", field.name)];
            let regex = self.regex_text().map_err(failed)?;
            let regex = Regex::new(&String::from_utf8_lossy(&regex)).map_err(|_| {
                let lines =
                    ["missing ')' in regular expression", "Parse error in regex", "Couldn't parse regex"];
                let mut lines: Vec<String> = lines.map(str::to_owned).into();
                lines.push(format!(
                    "dm_report: failed to create regex matcher for selection field {}",
                    field.name
                ));
                lines
            })?;
            return Ok(Test::Matches { matches: equal, regex });
        }
        let failed = |what: &str, line: Option<String>| {
            let mut lines: Vec<String> = line.into_iter().collect();
            lines.push(format!("Failed to parse {what} value for selection field {}.", field.name));
            lines
        };
        match field.kind {
            Kind::Number => {
                let digits = self.rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(self.rest.len());
                let number =
                    std::str::from_utf8(&self.rest[..digits]).ok().and_then(|text| text.parse().ok());
                let number = number.ok_or_else(|| failed("numeric", None))?;
                self.rest = &self.rest[digits..];
                if self.rest.first().is_some_and(|unit| b"bBsSkKmMgGtTpPeE".contains(unit)) {
                    let line = "Found size unit specifier but numeric value expected for selection field";
                    return Err(vec![format!("{line} {}.", field.name)]);
                }
                let order = match operator {
                    "=" => Order::Equal,
                    "!=" => Order::NotEqual,
                    ">=" => Order::Least,
                    ">" => Order::More,
                    "<=" => Order::Most,
                    _ => Order::Less,
                };
                Ok(Test::Number(order, number))
            }
            Kind::Text => {
                let text = self.string().map_err(|line| failed("string", Some(line)))?;
                Ok(Test::Text { equal, text })
            }
        }
    }

    /// Up to the quote that ends it.
    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>, String> {
        let end = self.rest[1..].iter().position(|b| *b == quote).ok_or("Missing end quote.")?;
        let text = self.rest[1..=end].to_vec();
        self.rest = &self.rest[end + 2..];
        Ok(text)
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        if let Some(quote @ (b'"' | b'\'')) = self.rest.first() {
            return self.quoted(*quote);
        }
        let ends = |at: usize| {
            let rest = &self.rest[at..];
            rest[0].is_ascii_whitespace() || ENDS.iter().any(|end| rest.starts_with(end))
        };
        let end = (0..self.rest.len()).find(|at| ends(*at)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(text.to_vec())
    }

    /// A regular expression may stand in brackets of any kind too.
    fn regex_text(&mut self) -> Result<Vec<u8>, String> {
        match self.rest.first() {
            Some(b'(') => self.quoted(b')'),
            Some(b'{') => self.quoted(b'}'),
            Some(b'[') => self.quoted(b']'),
            _ => self.string(),
        }
    }
}

fn wrong(mut lines: Vec<String>, at: &str) -> Wrong {
    lines.push(format!("Selection syntax error at '{at}'."));
    lines.push("Use 'help' for selection to get more help.".to_owned());
    Wrong { lines, ..Wrong::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let text = |text: &str| Value::Text(text.into());
        Row::from_iter([("name", text("vg-lv")), ("uuid", text("")), ("minor", Value::Number(9))])
    }

    #[test]
    fn selections_hold_as_dmsetup_reads_them() {
        for (text, expected) in [
            ("name=vg-lv", true),
            ("name = \"vg-lv\" && minor=9", true),
            ("name=vg-lv&&minor=8", false),
            ("name=x || minor=9", true),
            ("name=x # minor=9 , minor>8", true),
            ("!(name=x)", true),
            ("((name=vg-lv) && (minor=9)) || name=z", true),
            ("name=vg-lv || name=z && name=q", true),
            ("uuid=", true),
            ("uuid=''", true),
            ("minor>=9 && minor<10 && minor!=8 && minor<=9", true),
            ("name=~^vg", true),
            ("name!~^vg", false),
            ("name=~x|lv", true),
            ("name=~\"(v)(g)\"", true),
            ("NAME=vg-lv", true),
            ("name==vg-lv", false),
        ] {
            assert_eq!(Select::parse(text.as_bytes()).unwrap().unwrap().holds(&row()), expected, "{text}");
        }
        assert!(Select::parse(b"").unwrap().is_none());
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_place() {
        let last = "Use 'help' for selection to get more help.";
        for (text, lines) in [
            ("(name=a", &["Syntax error: right parenthesis expected at ''"][..]),
            ("!name=a", &["Syntax error: left parenthesis expected at 'name=a'"]),
            ("name=a)", &["Expecting logical operator", "Selection syntax error at ')'.", last]),
            ("name=a &&", &["Expecting field name", "Selection syntax error at ''.", last]),
            (
                "minor=x",
                &[
                    "Failed to parse numeric value for selection field minor.",
                    "Selection syntax error at 'minor=x'.",
                    last,
                ],
            ),
            (
                "name='v",
                &[
                    "Missing end quote.",
                    "Failed to parse string value for selection field name.",
                    "Selection syntax error at 'name='v'.",
                    last,
                ],
            ),
        ] {
            assert_eq!(Select::parse(text.as_bytes()).unwrap_err().lines, lines, "{text}");
        }
        assert!(Select::parse(b"nosuch=x").unwrap_err().fields);
        assert!(Select::parse(b"name>x").unwrap_err().operators);
    }
}
