//! Reports in columns: which columns, in which order of rows, in which form.
//!
//! Always holds: what is written is a function of the rows and of [`Form`]; nothing here asks the kernel.

use std::collections::BTreeMap;

pub(crate) mod fields;
pub(crate) mod select;

use super::args::Columns;
use fields::{Field, Kind};
use select::{Select, Wrong};

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Text(Vec<u8>),
    Number(u64),
}

impl Value {
    pub(crate) fn text(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string().into_bytes(),
        }
    }
}

/// The cells of a row, by the names of their columns.
pub(crate) type Row = BTreeMap<&'static str, Value>;

/// How a report looks.
#[derive(Debug)]
pub(crate) struct Form {
    columns: Vec<&'static Field>,
    /// A column, and whether downwards.
    sort: Vec<(&'static Field, bool)>,
    select: Option<Select>,
    headings: bool,
    prefixes: bool,
    quotes: bool,
    aligned: bool,
    separator: Vec<u8>,
    turned: bool,
}

/// Why there is no report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoReport {
    /// Help was asked for: on columns, or on selections.
    Help { select: bool },
    /// A column that there is not.
    Column(String),
    /// A selection that is not understood.
    Select(Wrong),
}

impl Form {
    /// As the command line wants it. `usual`: the columns if none are named; `groups`: what `-o all` means.
    pub(crate) fn new(
        given: &Columns,
        select: Option<&[u8]>,
        usual: &str,
        groups: &[&str],
    ) -> Result<Self, NoReport> {
        let given_text =
            |word: &Option<std::ffi::OsString>| word.as_ref().map(|word| word.to_string_lossy().into_owned());
        let wanted = match given_text(&given.options) {
            None => usual.to_owned(),
            Some(options) => {
                options.strip_prefix('+').map_or(options.clone(), |more| format!("{usual},{more}"))
            }
        };
        let mut columns = Vec::new();
        for word in words(&wanted) {
            if matches!(word, "help" | "?") {
                return Err(NoReport::Help { select: false });
            }
            let named = fields::groups_of(&columns);
            let meant = fields::meant(word, if named.is_empty() { groups } else { &named });
            columns.extend(meant.ok_or_else(|| NoReport::Column(format!("Unrecognised field: {word}")))?);
        }
        let mut sort = Vec::new();
        let sorted = given_text(&given.sort).unwrap_or_default();
        for word in words(&sorted) {
            let (down, name) = match word.strip_prefix(['+', '-']) {
                Some(name) => (word.starts_with('-'), name),
                None => (false, word),
            };
            let field = fields::find(name)
                .ok_or_else(|| NoReport::Column(format!("dm_report: Unrecognised field: {word}")))?;
            sort.push((field, down));
        }
        if matches!(select, Some(b"help" | b"?")) {
            return Err(NoReport::Help { select: true });
        }
        let select = Select::parse(select.unwrap_or_default()).map_err(NoReport::Select)?;
        let aligned = !given.noheadings && given.separator.is_none();
        let separator = match &given.separator {
            Some(separator) => std::os::unix::ffi::OsStrExt::as_bytes(separator.as_os_str()).to_vec(),
            None => {
                if aligned {
                    b" ".to_vec()
                } else {
                    b":".to_vec()
                }
            }
        };
        Ok(Self {
            columns,
            sort,
            select,
            headings: !given.noheadings,
            prefixes: given.nameprefixes,
            quotes: given.nameprefixes && !given.unquoted,
            aligned: aligned && !given.nameprefixes && !given.rows,
            separator,
            turned: given.rows,
        })
    }

    /// The columns that rows have to have.
    pub(crate) fn needs(&self) -> Vec<&'static Field> {
        let mut needed: Vec<_> =
            self.columns.iter().chain(self.sort.iter().map(|(field, _)| field)).copied().collect();
        if let Some(select) = &self.select {
            select.fields(&mut needed);
        }
        needed
    }

    /// The rows in their order, in their form. `None` when there is nothing to show.
    pub(crate) fn write(&self, mut rows: Vec<Row>) -> Option<Vec<u8>> {
        let shows_all = self.columns.iter().any(|field| field.name == "selected");
        for row in &mut rows {
            row.insert("selected", Value::Number(1));
            let selected = self.select.as_ref().is_none_or(|select| select.holds(row));
            row.insert("selected", Value::Number(selected.into()));
        }
        rows.retain(|row| shows_all || row.get("selected") == Some(&Value::Number(1)));
        if rows.is_empty() {
            return None;
        }
        rows.sort_by(|one, other| {
            let order = |(field, down): &(&Field, bool)| {
                let order = one.get(field.name).cmp(&other.get(field.name));
                if *down { order.reverse() } else { order }
            };
            self.sort.iter().map(order).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
        });
        let lines = rows.iter().map(|row| self.cells(row));
        let headings = self.headings.then(|| self.columns.iter().map(|f| f.heading.into()).collect());
        let lines: Vec<Vec<Vec<u8>>> = headings.into_iter().chain(lines).collect();
        let mut written = Vec::new();
        if self.turned {
            for column in 0..self.columns.len() {
                let cells: Vec<&[u8]> = lines.iter().map(|line| &line[column][..]).collect();
                written.extend(cells.join(&self.separator[..]));
                written.push(b'\n');
            }
            return Some(written);
        }
        let width = |column: usize| {
            let widest = lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
            if self.aligned { widest.max(self.columns[column].width) } else { 0 }
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for (at, line) in lines.iter().enumerate() {
            let is_heading = self.headings && at == 0;
            for (column, cell) in line.iter().enumerate() {
                if column > 0 {
                    written.extend(&self.separator);
                }
                let room = vec![b' '; widths[column].saturating_sub(cell.len())];
                if self.columns[column].kind == Kind::Number && !is_heading {
                    written.extend(room);
                    written.extend(cell);
                } else {
                    written.extend(cell);
                    written.extend(room);
                }
            }
            written.push(b'\n');
        }
        Some(written)
    }

    fn cells(&self, row: &Row) -> Vec<Vec<u8>> {
        let cell = |field: &&Field| {
            let text = row.get(field.name).map(Value::text).unwrap_or_default();
            if !self.prefixes {
                return text;
            }
            let quote: &[u8] = if self.quotes { b"'" } else { b"" };
            let name = format!("DM_{}=", field.name.to_uppercase());
            [name.as_bytes(), quote, &text, quote].concat()
        };
        self.columns.iter().map(cell).collect()
    }
}

/// The words between the commas; nothing at all has none.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let empty_between = |(at, word): &(usize, &str)| !word.is_empty() || *at == 0;
    let words = text.split(',').enumerate().filter(empty_between).map(|(_, word)| word);
    words.filter(move |_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(given: &Columns, select: &str) -> String {
        let form = Form::new(given, Some(select.as_bytes()), "name,minor,uuid", &["name_all"]).unwrap();
        let text = |text: &str| Value::Text(text.into());
        let row = |name: &str, minor, uuid: &str| {
            Row::from_iter([("name", text(name)), ("minor", Value::Number(minor)), ("uuid", text(uuid))])
        };
        let rows = vec![row("a", 0, "u"), row("a-name-that-is-long", 10, ""), row("b", 9, "")];
        String::from_utf8(form.write(rows).unwrap_or_default()).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_dmsetups() {
        let shown = shown(&Columns::default(), "");
        let mut lines = shown.lines();
        assert_eq!(lines.next(), Some("Name                Min UUID                            "));
        assert_eq!(lines.next(), Some("a                     0 u                               "));
        assert_eq!(lines.nth(1), Some("b                     9                                 "));
    }

    #[test]
    fn forms_without_columns() {
        let bare = Columns { noheadings: true, ..Columns::default() };
        assert_eq!(shown(&bare, "minor>8"), "a-name-that-is-long:10:\nb:9:\n");
        let named = Columns { nameprefixes: true, ..bare.clone() };
        assert_eq!(shown(&named, "name=a"), "DM_NAME='a':DM_MINOR='0':DM_UUID='u'\n");
        let unquoted = Columns { unquoted: true, ..named };
        assert_eq!(shown(&unquoted, "name=a"), "DM_NAME=a:DM_MINOR=0:DM_UUID=u\n");
        let turned = Columns { rows: true, options: Some("name,minor".into()), ..Columns::default() };
        assert_eq!(shown(&turned, "minor<10"), "Name a b\nMin 0 9\n");
        let separator =
            Columns { separator: Some("::".into()), options: Some("minor".into()), ..Columns::default() };
        assert_eq!(shown(&separator, "minor<10"), "Min\n0\n9\n");
    }

    #[test]
    fn rows_are_sorted_and_chosen() {
        let sorted = Columns {
            sort: Some("-minor,name".into()),
            options: Some("minor".into()),
            noheadings: true,
            ..Columns::default()
        };
        assert_eq!(shown(&sorted, ""), "10\n9\n0\n");
        assert_eq!(shown(&sorted, "name=none"), "");
        let selected =
            Columns { options: Some("minor,selected".into()), noheadings: true, ..Columns::default() };
        assert_eq!(shown(&selected, "minor=9"), "0:0\n10:0\n9:1\n");
    }

    #[test]
    fn columns_that_there_are_not_are_named() {
        let of = |options: &str, sort: &str| {
            let given =
                Columns { options: Some(options.into()), sort: Some(sort.into()), ..Columns::default() };
            Form::new(&given, None, "name", &["name_all"]).map(|form| form.columns.len())
        };
        assert_eq!(of("NAME,Un_mangledname,,uuid", ""), Ok(3));
        assert_eq!(of("all", "minor"), Ok(7));
        assert_eq!(of("", ""), Ok(0));
        assert_eq!(of("name,help", ""), Err(NoReport::Help { select: false }));
        assert_eq!(of("name,nosuch", ""), Err(NoReport::Column("Unrecognised field: nosuch".into())));
        assert_eq!(of("name", "x"), Err(NoReport::Column("dm_report: Unrecognised field: x".into())));
        assert_eq!(of("+", ""), Ok(1));
    }
}
