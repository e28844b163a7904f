//! `ftship promote`, and its rehearsal `--test`.
//!
//! Always holds: the epoch that the volume holds is printed only after the daemon has made the promote durable.

use std::time::Duration;

use ftship::control::{Request, Response};

use crate::cli::failure::{Failure, request, unexpected};
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
