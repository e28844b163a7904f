//! What the command prints: answers on standard output, everything else on standard error.
//!
//! Always holds: a closed pipe ends the printing and nothing else, so the exit code is what it would be otherwise. An
//! answer that cannot be written for another reason, as on a full disk, is a failure with code 1. What does not reach
//! standard error changes nothing.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

use structopt::StructOpt;
use structopt::clap::{AppSettings, Shell};

use crate::cli::args::Cli;
use crate::cli::failure::{Failure, failure};
use ftship::control::exit::Code;

/// Prints a line of the answer.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::answer(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints a line on standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::output::aside(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints a question on standard error, without ending the line.
macro_rules! ask {
    ($($text:tt)*) => { $crate::cli::output::aside(format_args!($($text)*)) };
}

/// Prints an answer of whole lines.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    answer(format_args!("{text}"))
}

/// Prints an answer as one JSON object, or list of them.
/// Prints what a shell completes: what `--help` lists, and no verb of packages, udev or the daemon.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut app = Cli::clap();
    app.p.subcommands.retain(|verb| !verb.p.is_set(AppSettings::Hidden));
    let mut script = Vec::new();
    app.gen_completions_to("ftship", shell, &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| failure(Code::Failed, &error))?;
    answer(format_args!("{text}\n"))
}

pub(crate) fn answer(text: Arguments<'_>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure { code: Code::Failed, text: format!("cannot write to standard output: {error}") })
        }
        _ => Ok(()),
    }
}

pub(crate) fn aside(text: Arguments<'_>) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_fmt(text).and_then(|()| err.flush());
}
