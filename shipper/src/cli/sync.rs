//! `ftship full-sync`, with its progress, `ftship resolve`, and `ftship resize`.
//!
//! Always holds: a full sync ends well only when the pair is in sync after a whole copy; a resize, when the volumes have
//! their new sizes.

use std::time::Duration;

use ftship::control::exit::Code;
use ftship::control::{Request, ResizedVolume, Response, text};

use crate::cli::failure::{ANSWER_TIMEOUT, Failure, PROGRESS_INTERVAL, request, started, unexpected};

pub(crate) fn full_sync(group: &str, progress: Option<Option<String>>) -> Result<(), Failure> {
    started(group, &Request::FullSync, ANSWER_TIMEOUT)?;
    progress.map_or(Ok(()), |form| follow_full_sync(group, form.is_some()))
}

/// Enlarges the volumes on both sides.
pub(crate) fn resize(group: &str, timeout: Duration) -> Result<(), Failure> {
    let Response::Resized { volumes } = request(group, &Request::Resize, timeout)? else {
        return Err(unexpected());
    };
    for ResizedVolume { name, before, after } in volumes {
        match before == after {
            true => say!("{name} {after} bytes, as before")?,
            false => say!("{name} {after} bytes, before {before}")?,
        }
    }
    Ok(())
}

pub(crate) fn resolve(group: &str, discard_mine: bool) -> Result<(), Failure> {
    if !discard_mine {
        let text = "say --discard-mine on the side whose writes are to be thrown away".into();
        return Err(Failure { code: Code::Usage, text });
    }
    started(group, &Request::DiscardMine, ANSWER_TIMEOUT)
}

/// Says how far the whole copy that was begun is, until the pair is in sync.
fn follow_full_sync(group: &str, json: bool) -> Result<(), Failure> {
    loop {
        std::thread::sleep(PROGRESS_INTERVAL);
        let Response::Status(status) = request(group, &Request::Status, Some(ANSWER_TIMEOUT))? else {
            return Err(unexpected());
        };
        let figures = status.primary.unwrap_or_default();
        if let Some(sync) = figures.sync {
            if json {
                say!("{}", serde_json::json!({ "syncing": sync }))?;
            } else {
                note!("{}", text::sync_under_way(&sync));
            }
        }
        match (status.state.as_str(), figures.last_sync) {
            ("in sync", Some(sync)) if sync.base.is_none() => {
                if json {
                    say!("{}", serde_json::json!({ "synced": sync }))?;
                }
                return Ok(());
            }
            // What broke off begins again by itself.
            ("in sync" | "syncing" | "degraded", _) => {}
            (state, _) => {
                let reason = status.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                return Err(Failure { code: Code::Failed, text: format!("{group}: {state}{reason}") });
            }
        }
    }
}
