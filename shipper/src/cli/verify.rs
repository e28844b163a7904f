//! `ftship verify`: asks the daemon to compare the pair, or compares a stopped one by a list of digests.
//!
//! Always holds: a difference is never code 0.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};

use ftship::config::Config;
use ftship::control::exit::Code;
use ftship::control::text;
use ftship::control::{Differing, Request, Response};
use ftship::store::digest_list;

use crate::cli::failure::{
    ANSWER_TIMEOUT, Failure, PROGRESS_INTERVAL, failure, is_served, request, unexpected,
};

pub(crate) fn verify(group: &str, repair: bool, progress: Option<&Option<String>>) -> Result<(), Failure> {
    let json = matches!(progress, Some(Some(_)));
    let (sender, receiver) = mpsc::channel();
    let asked = group.to_owned();
    // It takes as long as it takes.
    std::thread::spawn(move || sender.send(request(&asked, &Request::Verify { repair }, None)));
    let answer = loop {
        match receiver.recv_timeout(PROGRESS_INTERVAL) {
            Ok(answer) => break answer?,
            Err(RecvTimeoutError::Disconnected) => return Err(unexpected()),
            Err(RecvTimeoutError::Timeout) if progress.is_none() => {}
            Err(RecvTimeoutError::Timeout) => {
                if let Ok(Response::Status(status)) = request(group, &Request::Status, Some(ANSWER_TIMEOUT))
                    && let Some(running) = status.verify.and_then(|figures| figures.running)
                {
                    if json {
                        say!("{}", serde_json::json!({ "verifying": running }))?;
                    } else {
                        note!("{}", text::progress(&running));
                    }
                }
            }
        }
    };
    let Response::Verified(outcome) = answer else { return Err(unexpected()) };
    if json {
        say!("{}", serde_json::json!({ "verified": outcome }))?;
    } else {
        for Differing { volume, sector, sectors } in &outcome.differing {
            say!("{volume} {sector} {sectors}")?;
        }
        note!("{}", text::verify(&outcome));
    }
    match outcome.differing_bytes {
        0 => Ok(()),
        _ if outcome.untracked_bytes > 0 => {
            Err(Failure { code: Code::NeverShipped, text: format!("{group}: {}", text::untracked(&outcome)) })
        }
        _ => Err(Failure { code: Code::Differs, text: format!("{group}: the backup differed, see above") }),
    }
}

pub(crate) fn verify_offline(
    config: &Config,
    write: Option<&Path>,
    against: Option<&Path>,
) -> Result<(), Failure> {
    let refused = |text: String| Failure { code: Code::Refused, text: format!("{}: {text}", config.group) };
    let failed = Failure::of(config);
    if is_served(config.group.as_str()) {
        return Err(refused("its daemon runs here: stop it first, or verify without --offline".into()));
    }
    if let Some(reason) = digest_list::unapplied(config).map_err(&failed)? {
        return Err(refused(reason));
    }
    let file = |path: &Path, result: std::io::Result<File>| {
        result.map_err(|error| failure(Code::Failed, &format!("{}: {error}", path.display())))
    };
    match (write, against) {
        (Some(path), _) => {
            let mut out = BufWriter::new(file(path, File::create(path))?);
            let bytes = digest_list::write(config, &mut out).map_err(&failed)?;
            note!("{bytes} bytes: {}", path.display());
            Ok(())
        }
        (None, Some(path)) => {
            let mut list = BufReader::new(file(path, File::open(path))?);
            let found = digest_list::against(config, &mut list).map_err(&failed)?;
            for Differing { volume, sector, sectors } in &found.differing {
                say!("{volume} {sector} {sectors}")?;
            }
            let differing: u64 = found.differing.iter().map(|place| place.sectors * 512).sum();
            note!("{} bytes compared, {differing} in units that differ", found.bytes);
            if differing == 0 {
                return Ok(());
            }
            Err(Failure {
                code: Code::Differs,
                text: format!("{}: the volumes differ, see above", config.group),
            })
        }
        (None, None) => Err(failure(Code::Usage, &"--offline wants --write FILE or --against FILE")),
    }
}
