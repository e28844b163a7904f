//! `ftship keygen` and `ftship pair`: the keys of this host, and those that it trusts.
//!
//! Always holds: standard output has fingerprints alone; nothing is trusted without a person's yes, or a fingerprint
//! that was given.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ftship::config::path_of;
use ftship::control::exit::Code;
use ftship::link::tls::fingerprint::Fingerprint;
use ftship::link::tls::identity::{DEFAULT_DAYS, Identity, IdentityError, KeyFiles};
use ftship::link::tls::pairing::{Met, PairError, meet};
use ftship::link::tls::pins::{PinError, Pins};
use structopt::StructOpt;

use crate::cli::failure::{Failure, failure, load};

/// `ftship keygen`
#[derive(Debug, StructOpt)]
pub(crate) struct Keygen {
    /// A configuration file, or the name of a group in /etc/ftdm. It need not exist yet
    config: String,
    /// Generate the next key beside the present one
    #[structopt(long, conflicts_with = "activate")]
    rotate: bool,
    /// Use the key that --rotate generated from the next connection on, and delete the present one
    #[structopt(long)]
    activate: bool,
    /// Print the fingerprint of the present key. Generates none
    #[structopt(long, conflicts_with_all = &["rotate", "activate"])]
    show: bool,
    /// Days for which the key is valid
    #[structopt(long)]
    days: Option<u32>,
}

/// `ftship pair`
#[derive(Debug, StructOpt)]
pub(crate) struct Pair {
    /// A configuration file, or the name of a group in /etc/ftdm
    config: String,
    /// The other host's key, as `ftship keygen` printed it there. Asks nothing, connects to nothing
    #[structopt(long)]
    fingerprint: Option<Fingerprint>,
    /// Stop trusting this key
    #[structopt(long, conflicts_with = "fingerprint")]
    forget: Option<Fingerprint>,
    /// List the trusted keys
    #[structopt(long, conflicts_with_all = &["fingerprint", "forget"])]
    list: bool,
    /// Seconds to wait for the other host before giving up
    #[structopt(long, default_value = "300")]
    timeout: u64,
}

/// Longest time that a key may be used, in days: certificates cannot name later years.
const MOST_DAYS: u32 = 100 * 366;

pub(crate) fn keygen(asked: &Keygen) -> Result<(), Failure> {
    let path = path_of(&asked.config);
    let files = KeyFiles::beside(&path);
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let days = asked.days.unwrap_or(DEFAULT_DAYS);
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(Failure {
            code: Code::Usage,
            text: format!("--days {days} is not between 1 and {MOST_DAYS}"),
        });
    }
    let group = &asked.config;
    let fingerprint = if asked.show {
        Identity::load(&files.key).map_err(no_key)?.fingerprint
    } else if asked.activate {
        let fingerprint = Identity::activate(&files).map_err(no_key)?;
        note!(
            "ftship: shown from the next connection on; on the other host, then: ftship pair {group} --forget OLD"
        );
        fingerprint
    } else if asked.rotate {
        Identity::load(&files.key).map_err(no_key)?;
        let advice = " that waits: pin it on the other host, then --activate it";
        let fingerprint = Identity::create(&files.next, advice, &name, days).map_err(no_key)?;
        note!("ftship: on the other host: ftship pair {group} --fingerprint {fingerprint}");
        note!("ftship: then here: ftship keygen {group} --activate");
        fingerprint
    } else {
        let advice = ": --show prints its fingerprint, --rotate makes the next one";
        let fingerprint = Identity::create(&files.key, advice, &name, days).map_err(no_key)?;
        note!(
            "ftship: {}: made, for {days} days; on both hosts then: ftship pair {group}",
            files.key.display()
        );
        fingerprint
    };
    say!("{fingerprint}")?;
    Ok(())
}

fn no_key(error: IdentityError) -> Failure {
    let code = match error {
        IdentityError::Missing { .. } | IdentityError::Exists { .. } => Code::Refused,
        IdentityError::File(_) | IdentityError::Malformed { .. } | IdentityError::Generate(_) => Code::Failed,
    };
    failure(code, &error)
}

pub(crate) fn pair(asked: &Pair) -> Result<(), Failure> {
    let path = path_of(&asked.config);
    let files = KeyFiles::beside(&path);
    let failed = |error: PinError| failure(Code::Failed, &error);
    if asked.list {
        for (key, note) in Pins::load(&files.pins).map_err(failed)?.iter() {
            say!("{key} {note}")?;
        }
        return Ok(());
    }
    if let Some(key) = &asked.forget {
        if Pins::remove(&files.pins, key).map_err(failed)? {
            return Ok(());
        }
        return Err(Failure {
            code: Code::Refused,
            text: format!("{}: {key} is not in it", files.pins.display()),
        });
    }
    if let Some(key) = asked.fingerprint {
        return pin(&files.pins, key, "given");
    }
    let config = load(&asked.config)?;
    let own = Identity::load(&files.key).map_err(no_key)?.fingerprint;
    note!("ftship: this host's key is     {own}");
    note!("ftship: waiting for the other host, at {} and {}", config.peer, config.address);
    let met =
        meet(&path, &config.address, &config.peer, Duration::from_secs(asked.timeout)).map_err(|error| {
            let code = if matches!(error, PairError::TimedOut(..)) { Code::TimedOut } else { Code::Failed };
            failure(code, &error)
        })?;
    note!("ftship: the other host's key is {}  ({})", met.key, met.address);
    if Pins::load(&files.pins).map_err(failed)?.trusts(&met.key) {
        note!("ftship: it is trusted already");
    } else {
        confirm(&met)?;
        pin(&files.pins, met.key, &met.address.ip().to_string())?;
    }
    if !met.has_seen_us {
        let group = &asked.config;
        note!(
            "ftship: a daemon runs there that does not trust this host: there, ftship pair {group} --fingerprint {own}"
        );
    }
    Ok(())
}

/// Asks whether it is the other host's key.
fn confirm(met: &Met) -> Result<(), Failure> {
    ask!("Compare it with what the other host prints as its own. Is it the same? Trust it [yes/no]? ");
    let mut answer = String::new();
    std::io::stderr().flush().map_err(|error| failure(Code::Failed, &error))?;
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| failure(Code::Failed, &error))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure {
            code: Code::Refused,
            text: format!("{} is not trusted: that was not a yes", met.key),
        }),
    }
}

fn pin(path: &Path, key: Fingerprint, from: &str) -> Result<(), Failure> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let note = format!("{from} {since}");
    if !Pins::add(path, key, &note).map_err(|error| failure(Code::Failed, &error))? {
        note!("ftship: it is trusted already");
    }
    say!("{key}")?;
    Ok(())
}
