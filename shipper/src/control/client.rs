//! The commands' side of the control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{LINE_LIMIT, Request, Response, socket_path};

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon for group {group} on this host ({path}: {source}): start it with `ftship run {group}`"
    )]
    NoDaemon {
        /// The group.
        group: String,
        /// The socket.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The daemon is there, and who asks may not even connect.
    #[error("{path}: {source}: only root, and the users of `control-group`, may ask the daemon")]
    NotPermitted {
        /// The socket.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The answer did not come in time.
    #[error("the daemon did not answer within {0:?}")]
    TimedOut(Duration),
    /// The connection broke, or the answer is not one.
    #[error("talking to the daemon: {0}")]
    Broken(String),
}

/// Asks the daemon of `group` and waits for its answer, at most `timeout` when one is given.
///
/// # Errors
/// When there is no daemon, no answer in time, or none that can be read.
pub fn ask(group: &str, request: &Request, timeout: Option<Duration>) -> Result<Response, ClientError> {
    let path = socket_path(group);
    let mut stream = UnixStream::connect(&path).map_err(|source| {
        let path = path.display().to_string();
        match source.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path, source },
            _ => ClientError::NoDaemon { group: group.into(), path, source },
        }
    })?;
    let broken = |error: std::io::Error| match (error.kind(), timeout) {
        (std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut, Some(timeout)) => {
            ClientError::TimedOut(timeout)
        }
        _ => ClientError::Broken(error.to_string()),
    };
    stream.set_read_timeout(timeout).map_err(broken)?;
    let mut line = serde_json::to_string(request).map_err(|error| ClientError::Broken(error.to_string()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(broken)?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_LIMIT as u64)).read_line(&mut answer).map_err(broken)?;
    if answer.is_empty() {
        return Err(ClientError::Broken("it closed the connection without an answer".into()));
    }
    Response::parse(&answer).map_err(ClientError::Broken)
}
