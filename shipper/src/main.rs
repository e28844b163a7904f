//! The `ftship` command: the daemon of a group, and the verbs that talk to it.

#[macro_use]
mod cli;

use std::process::ExitCode;
use std::time::Duration;

use ftship::control::exit::Code;
use ftship::control::{Request, Response};
use ftship::daemon;
use ftship::runtime::logging;
use ftship::standby::{hooks, watchdog};
use structopt::StructOpt;
use structopt::clap::ErrorKind;

use cli::args::{Cli, Verb};
use cli::failure::{Failure, group_of, load, request, started, unexpected};
use cli::{config, init, journal, keys, output, promote, snapshots, status, sync, verify};

fn main() -> ExitCode {
    let cli = match Cli::from_args_safe() {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind, ErrorKind::HelpDisplayed | ErrorKind::VersionDisplayed) => {
            return ended(say!("{}", error.message));
        }
        Err(error) => {
            note!("{}", error.message);
            return ExitCode::from(Code::Usage as u8);
        }
    };
    let level = ["info", "debug", "trace"][cli.verbose.min(2)];
    logging::start(level, cli.verb.served());
    ended(perform(cli.verb))
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            note!("ftship: {text}");
            ExitCode::from(code as u8)
        }
    }
}

fn perform(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Init(options) => init::init(options),
        Verb::Setup { config, wait, remove } => config::set_up(&load(&config)?, wait, remove),
        Verb::Completions { shell } => output::completions(shell),
        Verb::Claim { names } => config::claim(&names),
        Verb::Format { config, force } => config::format(&config, force),
        Verb::Reload { group } => config::reload(&group),
        Verb::CheckConfig { groups, config } => config::check_config(&groups, config),
        Verb::Keygen(asked) => keys::keygen(&asked),
        Verb::Pair(asked) => keys::pair(&asked),
        Verb::Run { config } => {
            // Whether or not the daemon can start.
            if let Err(error) = hooks::thaw_leftover(&group_of(&config)) {
                log::error!("{error:#}");
            }
            daemon::run(&load(&config)?).map_err(Failure::failed)
        }
        Verb::Thaw { config } => hooks::thaw_after_the_end(&group_of(&config)).map_err(Failure::failed),
        Verb::Hold { config, epoch } => {
            hooks::hold(&load(&config)?, epoch, std::io::stdout()).map_err(Failure::failed)
        }
        Verb::Watchdog { config } => watchdog::run(&load(&config)?).map_err(Failure::failed),
        Verb::Journal { config, check, all, json } => journal::journal(&load(&config)?, check, all, json),
        Verb::Status { group, json } => status::status(&group, json),
        Verb::Checkpoint { group, wait, quiesced, timeout } => {
            let staged = matches!(&wait, Some(Some(until)) if until == "staged");
            let asked = Request::Checkpoint { wait: wait.is_some(), staged, quiesced };
            match request(&group, &asked, Duration::from_secs(timeout))? {
                Response::Checkpoint { epoch } => say!("{epoch}"),
                _ => Err(unexpected()),
            }
        }
        Verb::Commit { group, epoch, timeout } => {
            match request(&group, &Request::Commit { epoch }, Duration::from_secs(timeout))? {
                Response::Committed { epoch } => say!("{epoch}"),
                _ => Err(unexpected()),
            }
        }
        Verb::Snapshots { group, remove, json } => snapshots::list_snapshots(&group, remove.as_deref(), json),
        Verb::Promote { group, test: Some(name), size, timeout, .. } => {
            promote::test_copy(&group, name, size, Duration::from_secs(timeout))
        }
        Verb::Promote { group, epoch, token, accept_loss: true, yes, without_journal, .. } => {
            promote::accept_loss(&load(&group)?, epoch, token, yes, !without_journal)
        }
        Verb::Promote { group, epoch, force, token, timeout, .. } => {
            promote::promote(&group, epoch, force, token, Duration::from_secs(timeout))
        }
        Verb::Verify { group, offline: true, write, against, .. } => {
            verify::verify_offline(&load(&group)?, write.as_deref(), against.as_deref())
        }
        Verb::Verify { group, repair, progress, .. } => verify::verify(&group, repair, progress.as_ref()),
        Verb::Switch { group, stall, timeout } => {
            started(&group, &Request::Switch { stall }, Duration::from_secs(timeout))
        }
        Verb::Resize { group, timeout } => sync::resize(&group, Duration::from_secs(timeout)),
        Verb::Demote { group } => started(&group, &Request::Demote, cli::failure::ANSWER_TIMEOUT),
        Verb::Resolve { group, discard_mine } => sync::resolve(&group, discard_mine),
        Verb::FullSync { group, progress } => sync::full_sync(&group, progress),
    }
}
