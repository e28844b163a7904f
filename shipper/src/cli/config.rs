//! The verbs about a group's configuration and what is made of it on this host.

use std::path::PathBuf;
use std::time::Duration;

use ftdm::kernel_gate;
use ftship::config::{self, Config, NamedDevices, path_of};
use ftship::control::exit::Code;
use ftship::control::{Request, Response};
use ftship::provision::{format, stacks};

use crate::cli::failure::{ANSWER_TIMEOUT, Failure, failure, load, request, unexpected};

/// Judges all of them before it says how it ended.
pub(crate) fn check_config(groups: &[String], file: Option<PathBuf>) -> Result<(), Failure> {
    let mut files: Vec<PathBuf> = groups.iter().map(|group| path_of(group)).chain(file).collect();
    if files.is_empty() {
        files = config::installed()
            .map_err(|error| failure(Code::Failed, &format!("{}: {error}", config::DIRECTORY)))?;
    }
    if files.is_empty() {
        return Err(failure(Code::Usage, &format!("{} holds no configuration", config::DIRECTORY)));
    }
    let mut refused = 0;
    let mut sound: Vec<Config> = Vec::new();
    for file in &files {
        match Config::load(file) {
            Ok(config) => match sound.iter().find_map(|other| Some((other, config.collides(other)?))) {
                Some((other, what)) => {
                    refused += 1;
                    note!("{}: {what}, as does {}", file.display(), other.path.display());
                }
                None => {
                    say!("{}: sound, group {}", file.display(), config.group)?;
                    for remark in config.remarks() {
                        note!("{}: {remark}", file.display());
                    }
                    sound.push(config);
                }
            },
            Err(error) => {
                refused += 1;
                note!("{error}");
            }
        }
    }
    if !sound.is_empty() {
        remark_on_kernel(sound.iter().all(|config| config.allow_kernel));
    }
    match refused {
        0 => Ok(()),
        _ => Err(failure(Code::Usage, &format!("{refused} of {} refused", files.len()))),
    }
}

/// What this host's kernel lacks. Nothing is refused for that: a file may be for another host.
pub(crate) fn remark_on_kernel(allowed: bool) {
    for remark in kernel_gate::remarks(allowed) {
        note!("this host: {remark}");
    }
}

pub(crate) fn format(config: &str, force: bool) -> Result<(), Failure> {
    let done = format::format(&load(config)?, force).map_err(|error| {
        let code = if error.is_refusal() { Code::Refused } else { Code::Failed };
        failure(code, &error)
    })?;
    say!("{done}")?;
    Ok(())
}

pub(crate) fn set_up(config: &Config, wait: u64, remove: bool) -> Result<(), Failure> {
    if remove {
        return stacks::take_down(config).map_err(Failure::of(config));
    }
    for name in stacks::set_up(config, Duration::from_secs(wait)).map_err(Failure::of(config))? {
        say!("/dev/mapper/{name}")?;
    }
    Ok(())
}

/// `KEY=VALUE` lines, none where it is nobody's.
pub(crate) fn claim(names: &[PathBuf]) -> Result<(), Failure> {
    let files = config::installed().map_err(|error| failure(Code::Failed, &error))?;
    let named: Vec<NamedDevices> = files.iter().filter_map(|file| NamedDevices::read(file)).collect();
    if let Some(claim) = stacks::claim(&named, names, &|path| path.exists()) {
        say!("FTDM_GROUP={}\nFTDM_PART={}", claim.group, claim.part)?;
        if claim.is_complete {
            say!("FTDM_COMPLETE=1")?;
        }
    }
    Ok(())
}

pub(crate) fn reload(group: &str) -> Result<(), Failure> {
    let Response::Reloaded { live, restart, ignored } = request(group, &Request::Reload, ANSWER_TIMEOUT)?
    else {
        return Err(unexpected());
    };
    if live.is_empty() && restart.is_empty() && ignored.is_empty() {
        say!("nothing has changed")?;
    }
    for key in live {
        say!("{key}: in force")?;
    }
    for key in restart {
        say!("{key}: needs a restart of the daemon")?;
    }
    for key in ignored {
        say!("{key}: not in force: the state on disk says it; see `ftship switch` and `ftship promote`")?;
    }
    Ok(())
}
