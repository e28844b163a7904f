//! The command line in any order and with any abbreviation that dmsetup takes, made into the one form that the
//! definitions of the verbs ([`super::args`]) know: options that concern all verbs, the verb, its options, its words.
//!
//! Always holds: nothing is guessed: an abbreviation stands for exactly one option; an option that dmsetup knows, but
//! the verb does not use, is left out, as dmsetup does; a value is never taken for an option.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// An option: its name, whether a value follows, and its letter.
type Known = (&'static str, bool, Option<u8>);

/// Those of dmsetup, its statistics' included, because an abbreviation may not stand for one of those either.
const DMSETUP: &[Known] = &[
    ("alias", true, None),
    ("alldevices", false, None),
    ("allprograms", false, None),
    ("allregions", false, None),
    ("area", false, None),
    ("areas", true, None),
    ("areasize", true, None),
    ("addnodeonresume", false, None),
    ("addnodeoncreate", false, None),
    ("bounds", true, None),
    ("checks", false, None),
    ("clear", false, None),
    ("columns", false, Some(b'c')),
    ("concise", false, None),
    ("count", true, None),
    ("deferred", false, None),
    ("exec", true, None),
    ("filemap", false, None),
    ("follow", true, None),
    ("force", false, Some(b'f')),
    ("foreground", false, None),
    ("gid", true, Some(b'G')),
    ("group", false, None),
    ("groupid", true, None),
    ("help", false, Some(b'h')),
    ("histogram", false, None),
    ("inactive", false, None),
    ("interval", true, None),
    ("length", true, None),
    ("manglename", true, None),
    ("major", true, Some(b'j')),
    ("minor", true, Some(b'm')),
    ("mode", true, Some(b'M')),
    ("nameprefixes", false, None),
    ("nogroup", false, None),
    ("noflush", false, None),
    ("noheadings", false, None),
    ("nolockfs", false, None),
    ("noopencount", false, None),
    ("nosuffix", false, None),
    ("notable", false, Some(b'n')),
    ("notimesuffix", false, None),
    ("nomonitor", false, None),
    ("noudevrules", false, None),
    ("noudevsync", false, None),
    ("options", true, Some(b'o')),
    ("precise", false, None),
    ("programid", true, None),
    ("readonly", false, Some(b'r')),
    ("raw", false, None),
    ("readahead", true, None),
    ("region", false, None),
    ("regions", true, None),
    ("regionid", true, None),
    ("relative", false, None),
    ("retry", false, None),
    ("rows", false, None),
    ("select", true, Some(b'S')),
    ("segments", false, None),
    ("separator", true, None),
    ("setuuid", false, None),
    ("showkeys", false, None),
    ("sort", true, Some(b'O')),
    ("start", true, None),
    ("table", true, None),
    ("target", true, None),
    ("tree", false, None),
    ("udevcookie", true, None),
    ("uid", true, Some(b'U')),
    ("units", true, None),
    ("uuid", true, Some(b'u')),
    ("unbuffered", false, None),
    ("unquoted", false, None),
    ("userdata", true, None),
    ("verbose", false, Some(b'v')),
    ("verifyudev", false, None),
    ("version", false, None),
    ("yes", false, Some(b'y')),
];

/// Our own: an abbreviation stands for one of these only if it stands for none of dmsetup's.
const OWN: &[Known] = &[
    ("all", false, None),
    ("allow-kernel", false, None),
    ("discards", true, None),
    ("json", false, None),
    ("recorded-era", true, None),
];

/// Letters that mean the same as another.
const ALSO: &[(u8, u8)] = &[(b'C', b'c'), (b'?', b'h')];

/// A command line that cannot be understood, in getopt's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misused {
    #[error("ftdm: unrecognized option '--{0}'")]
    Unknown(String),
    #[error("ftdm: invalid option -- '{0}'")]
    Letter(char),
    #[error("ftdm: option '--{0}' is ambiguous; possibilities: {1}")]
    Ambiguous(String, String),
    #[error("ftdm: option '--{0}' requires an argument")]
    NoValue(&'static str),
    #[error("ftdm: option requires an argument -- '{0}'")]
    NoLetterValue(char),
    #[error("ftdm: option '--{0}' doesn't allow an argument")]
    Value(&'static str),
}

/// A command line in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// In the order given; of an option that is given twice, both.
    pub(crate) options: Vec<(&'static str, Option<OsString>)>,
    /// The verb first.
    pub(crate) words: Vec<OsString>,
}

/// Takes a command line, without the program's name, to its parts.
pub(crate) fn parts(arguments: impl IntoIterator<Item = OsString>) -> Result<Parts, Misused> {
    let mut parts = Parts::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_bytes() {
            b"--" => break,
            [b'-', b'-', long @ ..] => {
                let (name, value) = match long.iter().position(|b| *b == b'=') {
                    Some(at) => (&long[..at], Some(OsStr::from_bytes(&long[at + 1..]).to_owned())),
                    None => (long, None),
                };
                let (name, takes_value, _) = find(name)?;
                let value = match (takes_value, value) {
                    (true, None) => Some(arguments.next().ok_or(Misused::NoValue(name))?),
                    (false, Some(_)) => return Err(Misused::Value(name)),
                    (_, value) => value,
                };
                parts.options.push((name, value));
            }
            [b'-', letters @ ..] if !letters.is_empty() => {
                parts.take_letters(letters, &mut arguments)?;
            }
            _ => parts.words.push(argument),
        }
    }
    parts.words.extend(arguments);
    Ok(parts)
}

impl Parts {
    /// Help on all of it is asked for.
    pub(crate) fn is_for_help(&self) -> bool {
        self.words.is_empty() && self.options.iter().any(|(name, _)| *name == "help")
    }

    fn take_letters(
        &mut self,
        letters: &[u8],
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), Misused> {
        for (at, letter) in letters.iter().enumerate() {
            let meant = ALSO.iter().find(|(also, _)| also == letter).map_or(*letter, |(_, meant)| *meant);
            let known = DMSETUP.iter().find(|(.., short)| *short == Some(meant));
            let (name, takes_value, _) = known.ok_or(Misused::Letter(char::from(*letter)))?;
            if *takes_value {
                let value = match &letters[at + 1..] {
                    [] => rest.next().ok_or(Misused::NoLetterValue(char::from(*letter)))?,
                    attached => OsString::from_vec(attached.to_vec()),
                };
                self.options.push((name, Some(value)));
                return Ok(());
            }
            self.options.push((name, None));
        }
        Ok(())
    }

    /// The form that the definitions of the verbs know. `common` has the names of the options that concern all verbs,
    /// `of_verb` those of the verb. Of an option with a value, the last counts.
    pub(crate) fn canonical(self, common: &[String], of_verb: &[String]) -> Vec<OsString> {
        let written = |(name, value): &(&'static str, Option<OsString>)| {
            let mut text = OsString::from(format!("--{name}"));
            if let Some(value) = value {
                text.push("=");
                text.push(value);
            }
            text
        };
        let mut kept: Vec<(&'static str, Option<OsString>)> = Vec::new();
        for option in self.options {
            if option.0 != "verbose" {
                kept.retain(|(name, _)| *name != option.0);
            }
            kept.push(option);
        }
        let known = |names: &[String], name: &str| names.iter().any(|known| known == name);
        let mut words = self.words.into_iter();
        let mut line = vec![OsString::from("ftdm")];
        line.extend(kept.iter().filter(|(name, _)| known(common, name)).map(written));
        line.extend(words.next());
        let of_verb = |name: &str| known(of_verb, name) || name == "help";
        line.extend(kept.iter().filter(|(name, _)| of_verb(name)).map(written));
        if words.len() > 0 {
            line.push("--".into());
            line.extend(words);
        }
        line
    }
}

/// The option of this name, or the only one that it begins.
fn find(name: &[u8]) -> Result<Known, Misused> {
    let exact = DMSETUP.iter().chain(OWN).find(|(known, ..)| known.as_bytes() == name);
    if let Some(known) = exact {
        return Ok(*known);
    }
    let given = || String::from_utf8_lossy(name).into_owned();
    for table in [DMSETUP, OWN] {
        let begun: Vec<&Known> =
            table.iter().filter(|(known, ..)| known.as_bytes().starts_with(name)).collect();
        match &begun[..] {
            [] => {}
            [one] => return Ok(**one),
            several => {
                let names: Vec<String> = several.iter().map(|(known, ..)| format!("'--{known}'")).collect();
                return Err(Misused::Ambiguous(given(), names.join(" ")));
            }
        }
    }
    Err(Misused::Unknown(given()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(line: &[&str]) -> Result<Parts, Misused> {
        parts(line.iter().map(OsString::from))
    }

    fn written(line: &[&str], of_verb: &[&str]) -> Vec<String> {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let line = taken(line).unwrap().canonical(&names(&["verbose", "noudevsync"]), &names(of_verb));
        line.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn the_verb_and_the_options_may_stand_in_any_order() {
        let expected = ["ftdm", "--verbose", "create", "--uuid=u", "--notable", "--", "a"];
        for line in [
            &["create", "a", "-u", "u", "-n", "-v"][..],
            &["-v", "--uuid", "u", "create", "--notable", "a"],
            &["-nvuu", "create", "a"],
            &["--uu=u", "create", "--notab", "--verb", "--", "a"],
        ] {
            let mut found = written(line, &["uuid", "notable"]);
            found[3..5].sort();
            let mut sorted = expected;
            sorted[3..5].sort_unstable();
            assert_eq!(found, sorted, "{line:?}");
        }
    }

    #[test]
    fn what_the_verb_does_not_use_is_left_out_and_the_last_value_counts() {
        let line = ["ls", "--target", "a", "--readahead", "8", "--target", "--tree", "--noudevsync"];
        assert_eq!(written(&line, &["target"]), ["ftdm", "--noudevsync", "ls", "--target=--tree"]);
        assert_eq!(written(&["-vv", "ls", "-v"], &[]), ["ftdm", "--verbose", "--verbose", "--verbose", "ls"]);
    }

    #[test]
    fn an_abbreviation_stands_for_one_option() {
        assert_eq!(taken(&["--disc", "pass"]).unwrap().options[0].0, "discards");
        let same = |line: &[&str], expected: &str| {
            assert_eq!(taken(line).unwrap_err().to_string(), expected);
        };
        same(
            &["--f"],
            "ftdm: option '--f' is ambiguous; possibilities: '--filemap' '--follow' '--force' '--foreground'",
        );
        same(&["--nosuch"], "ftdm: unrecognized option '--nosuch'");
        same(&["--force=x"], "ftdm: option '--force' doesn't allow an argument");
        same(&["-Z"], "ftdm: invalid option -- 'Z'");
        same(&["-u"], "ftdm: option requires an argument -- 'u'");
        same(&["--table"], "ftdm: option '--table' requires an argument");
    }

    #[test]
    fn words_after_two_hyphens_are_no_options_and_a_hyphen_is_a_word() {
        let parts = taken(&["create", "-", "--", "-n"]).unwrap();
        assert_eq!((parts.options.len(), parts.words.len()), (0, 3));
    }
}
