//! How a verb fails: an exit code with a name, and the text that goes with it; and the ways to fail that all verbs share.
//!
//! Always holds: what a script can act upon has a code of its own. `--help` and the manual list them.

use std::path::Path;
use std::time::Duration;

use ftship::config::{Config, NamedDevices, path_of};
use ftship::control::client::{ClientError, ask};
use ftship::control::exit::Code;
use ftship::control::{Request, Response};

/// Wait for answers that need no remote side.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a running operation is asked for its progress.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A failure and the exit code that goes with it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl Failure {
    /// With the whole chain of causes.
    pub(crate) fn failed(error: anyhow::Error) -> Self {
        Self { code: Code::Failed, text: format!("{error:#}") }
    }

    /// The same, of a group.
    pub(crate) fn of(config: &Config) -> impl Fn(anyhow::Error) -> Self {
        |error| Self { code: Code::Failed, text: format!("{}: {error:#}", config.group) }
    }
}

pub(crate) fn failure(code: Code, error: &dyn std::fmt::Display) -> Failure {
    Failure { code, text: format!("{error}") }
}

pub(crate) fn load(argument: &str) -> Result<Config, Failure> {
    Config::load(Path::new(&path_of(argument))).map_err(|error| failure(Code::Usage, &error))
}

/// The group of a configuration that may be refused, or gone.
pub(crate) fn group_of(argument: &str) -> String {
    let path = path_of(argument);
    let named = NamedDevices::read(&path).map(|named| named.group);
    named.unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
}

pub(crate) fn request(
    group: &str,
    request: &Request,
    timeout: impl Into<Option<Duration>>,
) -> Result<Response, Failure> {
    let group: ftship_proto::ids::GroupName = group.parse().map_err(|error| failure(Code::Usage, &error))?;
    let response = ask(group.as_str(), request, timeout.into()).map_err(|error| {
        let code = match error {
            ClientError::NoDaemon { .. } => Code::NoDaemon,
            ClientError::NotPermitted { .. } => Code::NotPermitted,
            ClientError::TimedOut(_) => Code::TimedOut,
            ClientError::Broken(_) => Code::Failed,
        };
        failure(code, &error)
    })?;
    match response {
        Response::Stale { reason } => {
            Err(Failure { code: Code::StaleToken, text: format!("{group}: {reason}") })
        }
        Response::Refused { reason } => {
            Err(Failure { code: Code::Refused, text: format!("{group}: {reason}") })
        }
        Response::Forbidden { reason } => {
            Err(Failure { code: Code::NotPermitted, text: format!("{group}: {reason}") })
        }
        Response::Failed { reason } => {
            Err(Failure { code: Code::Failed, text: format!("{group}: {reason}") })
        }
        answer => Ok(answer),
    }
}

pub(crate) fn unexpected() -> Failure {
    Failure {
        code: Code::Failed,
        text: "unexpected reply from the daemon: are `ftship` and the daemon of the same version?".into(),
    }
}

/// Whether a daemon serves the group on this host.
pub(crate) fn is_served(group: &str) -> bool {
    let answer = ask(group, &Request::Status, Some(ANSWER_TIMEOUT));
    !matches!(answer, Err(ClientError::NoDaemon { .. }))
}

/// Asks for what the daemon only begins now.
pub(crate) fn started(group: &str, asked: &Request, timeout: Duration) -> Result<(), Failure> {
    match request(group, asked, timeout)? {
        Response::Started => Ok(()),
        _ => Err(unexpected()),
    }
}
