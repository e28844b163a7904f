//! The `ftdm` command: what is said in [`cli`].
//!
//! Always holds: this parses and dispatches, and nothing else.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use structopt::StructOpt;
use structopt::clap::ErrorKind;

mod cli;

use cli::args::Options;
use cli::{FAILED, Failure, USAGE, getopt, help};

/// Writes a line to standard error: with that gone there is only the exit code left.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let parts = match getopt::parts(words) {
        Ok(parts) => parts,
        Err(misused) => {
            say(&misused.to_string());
            say("Couldn't process command line.");
            return ExitCode::from(FAILED);
        }
    };
    if parts.is_for_help() {
        return ended("help", print(&help::text()));
    }
    let subject = cli::subject(&parts.words);
    let line = cli::canonical(parts);
    let options = match Options::from_iter_safe(line) {
        Ok(options) => options,
        Err(e) if matches!(e.kind, ErrorKind::HelpDisplayed) => {
            return ended("help", print(&format!("{}\n", e.message)));
        }
        Err(e) => {
            say(&format!("ftdm: {}", e.message.trim_start_matches("error: ")));
            let unknown = matches!(e.kind, ErrorKind::InvalidSubcommand | ErrorKind::UnrecognizedSubcommand);
            return ExitCode::from(if unknown { FAILED } else { USAGE });
        }
    };
    let level = match options.verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    env_logger::Builder::new().filter_level(level).parse_default_env().init();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done = cli::run(options, &mut out);
    let done = out.flush().map_err(Failure::Output).and(done);
    ended(&subject, done)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

fn ended(subject: &str, result: Result<(), Failure>) -> ExitCode {
    let failure = match result {
        Ok(()) | Err(Failure::Helped) => return ExitCode::SUCCESS,
        // Its reader has read enough.
        Err(Failure::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    match &failure {
        Failure::Said => say("Command failed."),
        Failure::Wording => {}
        Failure::Usage(text) => {
            say(text);
            help::say_usage();
        }
        Failure::Misused(text) => {
            say(text);
            say("Couldn't process command line.");
        }
        other => say(&format!("ftdm: {subject}: {other}")),
    }
    ExitCode::from(failure.code())
}
