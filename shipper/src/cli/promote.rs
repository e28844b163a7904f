//! `ftship promote`, its rehearsal `--test`, and the last resort `--accept-loss`.
//!
//! Always holds: the epoch that the volume holds is printed only after the promote is durable.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use ftship::backup::last_resort::{LastResort, LastResortError};
use ftship::config::Config;
use ftship::control::exit::Code;
use ftship::control::{Request, Response};
use ftship_proto::ids::Epoch;

use crate::cli::failure::{Failure, failure, is_served, request, unexpected};
use crate::cli::snapshots::print_snapshot;

pub(crate) fn promote(
    group: &str,
    epoch: Option<u64>,
    force: bool,
    token: Option<u64>,
    timeout: Duration,
) -> Result<(), Failure> {
    if force {
        note!(
            "ftship: --force: what the volume holds may be a mixture of two states; check it before it is used"
        );
    }
    match request(group, &Request::Promote { epoch, force, token }, timeout)? {
        Response::Promoted { epoch } => say!("{epoch}"),
        _ => Err(unexpected()),
    }
}

/// Creates a writable copy of what a promote would give.
pub(crate) fn test_copy(
    group: &str,
    name: String,
    size: Option<String>,
    timeout: Duration,
) -> Result<(), Failure> {
    match request(group, &Request::TestCopy { name, size }, timeout)? {
        Response::Snapshot(snapshot) => print_snapshot(&snapshot),
        _ => Err(unexpected()),
    }
}

/// Without a daemon: says what the volumes hold and what is lost, asks, and makes them usable.
pub(crate) fn accept_loss(
    config: &Config,
    epoch: Option<u64>,
    token: Option<u64>,
    yes: bool,
    with_journal: bool,
) -> Result<(), Failure> {
    let group = config.group.as_str();
    if is_served(group) {
        let text = format!(
            "{group}: its daemon runs: try `ftship promote {group}` first. If that is refused for good, stop the daemon \
             (systemctl stop ftship@{group}), and say this again"
        );
        return Err(Failure { code: Code::Refused, text });
    }
    let last_resort = LastResort::open(config, with_journal).map_err(|error| failed(group, &error))?;
    for line in last_resort.claim() {
        note!("ftship: {line}");
    }
    if !yes {
        agree(group)?;
    }
    let epoch = last_resort.promote(epoch.map(Epoch), token).map_err(|error| failed(group, &error))?;
    note!("ftship: {group}: this host is the primary now; start its daemon, and the VM");
    say!("{epoch}")
}

fn failed(group: &str, error: &LastResortError) -> Failure {
    let code = match error {
        LastResortError::Refused(_) => Code::Refused,
        LastResortError::Stale(_) => Code::StaleToken,
        LastResortError::Failed(_) => Code::Failed,
    };
    Failure { code, text: format!("{group}: {error}") }
}

fn agree(group: &str) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure { code: Code::Refused, text });
    if !std::io::stdin().is_terminal() {
        return refuse(format!("{group}: nothing was changed: say --yes to accept this"));
    }
    note!("ftship: type the group's name to accept this:");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| failure(Code::Failed, &error))?;
    if line.trim() == group { Ok(()) } else { refuse(format!("{group}: nothing was changed")) }
}
