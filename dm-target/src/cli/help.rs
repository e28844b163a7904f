//! `--help` with the verbs in groups, `help`, and what a shell completes.
//!
//! Always holds: every verb that `--help` is to show is in exactly one group (a test looks).

use std::io::{BufRead, Write};

use structopt::StructOpt;
use structopt::clap::{AppSettings, Shell};

use super::Failure;
use super::args::{Options, Splitname};
use super::dm::say;
use super::report::fields::GROUPS;

/// The groups of verbs.
const VERBS: &[(&str, &[&str])] = &[
    ("MAKE AND REMOVE", &["create", "remove", "remove_all", "rename", "mangle", "mknodes"]),
    ("CHANGE", &["load", "reload", "suspend", "resume", "clear", "wipe_table", "message", "setgeometry"]),
    (
        "LOOK",
        &[
            "ls",
            "info",
            "table",
            "status",
            "deps",
            "wait",
            "measure",
            "splitname",
            "targets",
            "target-version",
            "version",
            "stats",
            "help",
        ],
    ),
    (
        "UDEV",
        &[
            "udevcreatecookie",
            "udevreleasecookie",
            "udevcomplete",
            "udevcomplete_all",
            "udevcookies",
            "udevflags",
        ],
    ),
    ("VOLUMES OF FTDM", &["written-since", "bypass", "metadata-size"]),
];

/// What a selection may have.
const SELECTIONS: &str = "\
A selection compares columns: NAME OPERATOR VALUE.
    =  !=            with text (quoted by ' or \" if need be) and numbers
    >  >=  <  <=     with numbers
    =~  !~           text with a regular expression
Comparisons are joined: && or , (all of them), || or # (one of them), ( ), and ! before ( ).
";

/// `ftdm --help`.
pub(crate) fn text() -> String {
    let app = Options::clap();
    let mut plain = Vec::new();
    let _ = app.write_help(&mut plain);
    let plain = String::from_utf8_lossy(&plain).into_owned();
    // What clap lists in one piece is listed in groups.
    let (Some(start), Some(end)) = (plain.find("SUBCOMMANDS:"), plain.find("Each verb has")) else {
        return plain;
    };
    let mut grouped = String::from("VERBS:\n");
    for (title, verbs) in VERBS {
        grouped.push_str(&format!("  {title}\n"));
        for verb in *verbs {
            let about = about(&plain[start..end], verb);
            grouped.push_str(&format!("    {verb:<20} {about}\n"));
        }
    }
    format!("{}{grouped}\n{}", &plain[..start], &plain[end..])
}

/// What clap's list says of a verb, in one line.
fn about(list: &str, verb: &str) -> String {
    let mut lines = list
        .lines()
        .skip_while(|line| line.split_whitespace().next() != Some(verb) || !line.starts_with("    "));
    let first = lines.next().unwrap_or_default();
    let mut words: Vec<&str> = first.split_whitespace().skip(1).collect();
    for line in lines {
        if !line.starts_with("          ") {
            break;
        }
        words.extend(line.split_whitespace());
    }
    let about = words.join(" ");
    about.split(". ").next().unwrap_or_default().to_owned()
}

/// `help`: the verbs, and with `--columns` those of reports.
pub(crate) fn run(given: &Splitname, out: &mut dyn Write) -> Result<(), Failure> {
    write!(out, "{}", text())?;
    if given.columns.columns {
        write!(out, "\n{}", columns())?;
    }
    Ok(())
}

/// The columns of reports.
pub(crate) fn columns() -> String {
    let mut text = String::new();
    for group in GROUPS {
        text.push_str(&format!("{}\n{}\n", group.title, "-".repeat(group.title.len())));
        if !group.all.is_empty() {
            text.push_str(&format!("  {:<20}  - all of these\n", group.all));
        }
        for field in group.fields {
            text.push_str(&format!("  {:<20}  - {}\n", field.name, field.help));
        }
        text.push('\n');
    }
    text
}

/// How selections are written.
pub(crate) fn selections() -> &'static str {
    SELECTIONS
}

/// The usage after a wrong command line.
pub(crate) fn say_usage() {
    say(text());
}

pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut app = Options::clap();
    // A shell offers what --help lists.
    app.p.subcommands.retain(|command| !command.p.is_set(AppSettings::Hidden));
    let mut script = Vec::new();
    app.gen_completions_to("ftdm", shell, &mut script);
    script
}

/// Asks on the terminal. No answer is no.
pub(crate) fn asked_yes(question: &str, out: &mut dyn Write) -> Result<bool, Failure> {
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    if std::io::stdin().lock().read_line(&mut answer)? == 0 {
        writeln!(out)?;
    }
    Ok(answer.trim_start().starts_with(['y', 'Y']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_one_group_and_says_what_it_does() {
        let app = Options::clap();
        let mut shown: Vec<_> = app
            .p
            .subcommands
            .iter()
            .filter(|verb| !verb.p.is_set(AppSettings::Hidden))
            .map(|verb| verb.p.meta.name.clone())
            .collect();
        let mut grouped: Vec<_> =
            VERBS.iter().flat_map(|(_, verbs)| verbs.iter().map(ToString::to_string)).collect();
        shown.sort();
        grouped.sort();
        assert_eq!(grouped, shown);
        let text = text();
        for (title, verbs) in VERBS {
            assert!(text.contains(title));
            for verb in *verbs {
                let line = text.lines().find(|line| line.starts_with(&format!("    {verb} "))).unwrap();
                assert!(line.trim().len() > verb.len() + 4, "{line}");
            }
        }
    }
}
