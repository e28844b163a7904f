//! `ftship status`.
//!
//! Always holds: the text and the JSON show the same answer of the daemon.

use ftship::control::{Request, Response, text};

use crate::cli::failure::{ANSWER_TIMEOUT, Failure, request, unexpected};
use crate::cli::output;

pub(crate) fn status(group: &str, json: bool) -> Result<(), Failure> {
    let Response::Status(status) = request(group, &Request::Status, ANSWER_TIMEOUT)? else {
        return Err(unexpected());
    };
    if json { output::json(&status) } else { output::print(&text::status(&status)) }
}
