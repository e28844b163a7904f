//! The `ftship` command: the daemon of a group, and the verbs that talk to it.

#[macro_use]
mod output;
mod verb_init;
mod verb_keys;
mod verb_setup;
mod verb_verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ftship::config::{Config, path_of};
use ftship::control::client::{ClientError, ask};
use ftship::control::{Request, Response};
use ftship::journal_view::View;
use ftship::snapshots::Snapshot;
use ftship::state_file::StateFile;
use ftship::{daemon, hooks, journal_report, logging, report, snapshots, watchdog};
use structopt::StructOpt;
use structopt::clap::{AppSettings, ErrorKind, Shell};

/// Wait for answers that need no remote side.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a verify is asked how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

const EXIT_CODES: &str = "EXIT CODES:
    0  done
    1  failed; the message says what and where
    2  wrong arguments, or a configuration that is refused
    3  no daemon serves this group on this host
    4  refused: does not fit the role, the state or what the devices hold
    5  journal: a newer version wrote it
    6  no answer in time
    7  journal: damaged
    8  verify: something differed, whether or not it was repaired
    9  a promote's fencing token is not above one seen before
    10 permission denied: you may not ask this of the daemon
    11 verify: something changed on the primary and was never shipped, whether or not it was repaired";

/// Ships the epochs of a fault-tolerant VM's volumes to a backup host.
#[derive(Debug, StructOpt)]
#[structopt(name = "ftship", after_help = EXIT_CODES)]
struct Cli {
    /// Log more; twice for everything. RUST_LOG overrides it
    #[structopt(short, long, parse(from_occurrences), global = true)]
    verbose: usize,
    #[structopt(subcommand)]
    verb: Verb,
}

#[derive(Debug, StructOpt)]
enum Verb {
    /// Starts a group: writes its configuration for both hosts and creates the volumes it needs
    Init(verb_init::Options),
    /// Creates the stacks of a group's volumes, /dev/mapper/NAME, from its configuration
    Setup {
        /// A configuration file, or the name of a group in /etc/ftdm
        config: String,
        /// Seconds to wait for its devices
        #[structopt(long, default_value = "0")]
        wait: u64,
        /// Remove the stacks instead. The volumes keep their content
        #[structopt(long, conflicts_with = "wait")]
        remove: bool,
    },
    /// For packages: what a shell completes
    #[structopt(setting(AppSettings::Hidden))]
    Completions {
        /// bash, fish or zsh
        shell: Shell,
    },
    /// For udev: whose a logical volume is, as properties
    #[structopt(setting(AppSettings::Hidden))]
    Claim {
        /// Names of its device
        names: Vec<PathBuf>,
    },
    /// Prepares the state (and, on a backup, the journal) for the first start
    Format {
        /// A configuration file, or the name of a group in /etc/ftdm
        config: String,
        /// Overwrite a state or journal that is in use for another purpose or another group
        #[structopt(long)]
        force: bool,
    },
    /// Reports every fault of a configuration, with its line and the nearest valid value
    CheckConfig {
        /// Names of groups. Default: every file in /etc/ftdm
        groups: Vec<String>,
        /// A configuration file
        #[structopt(long, value_name = "FILE", conflicts_with = "groups")]
        config: Option<PathBuf>,
    },
    /// Makes the daemon read its configuration again. Reports what changed and what needs a restart
    Reload {
        /// Name of the group
        group: String,
    },
    /// Generates this host's key and prints its fingerprint
    Keygen(verb_keys::Keygen),
    /// Connects to the other host, shows its key, and trusts it after you confirm
    Pair(verb_keys::Pair),
    /// Runs the daemon of a group in the foreground, on either host
    Run {
        /// A configuration file, or the name of a group in /etc/ftdm
        config: String,
    },
    /// Runs the hooks around an epoch; the daemon starts it
    #[structopt(setting(AppSettings::Hidden))]
    Hold {
        /// Configuration file
        config: String,
        /// The epoch
        epoch: u64,
    },
    /// Primary: waits, and resumes the volume when the daemon stops or is killed
    Watchdog {
        /// A configuration file, or the name of a group in /etc/ftdm
        config: String,
    },
    /// Backup: lists the epochs in the journal. Changes nothing. The daemon may run meanwhile
    Journal {
        /// A configuration file, or the name of a group in /etc/ftdm
        config: String,
        /// Report by the exit code whether the journal is sound
        #[structopt(long)]
        check: bool,
        /// Also list applied epochs that are not overwritten yet. Reads the whole journal
        #[structopt(long)]
        all: bool,
        /// As one JSON object
        #[structopt(long)]
        json: bool,
    },
    /// Shows the state of a group
    Status {
        /// Name of the group
        group: String,
        /// As one JSON object
        #[structopt(long)]
        json: bool,
    },
    /// Primary: ends the epoch now and prints its number
    Checkpoint {
        /// Name of the group
        group: String,
        /// Return only when the backup has committed the epoch (staged: when the backup holds it)
        #[structopt(long, require_equals = true, possible_values = &["staged", "committed"])]
        wait: Option<Option<String>>,
        /// The VM is paused: cut without suspending the volume. Refused if the volume is written to
        #[structopt(long)]
        quiesced: bool,
        /// Seconds to wait before giving up
        #[structopt(long, default_value = "60")]
        timeout: u64,
    },
    /// Primary, with commit = "external": commits a staged epoch and all before it. Returns when the
    /// commit is durable on the backup, and prints the last committed epoch
    Commit {
        /// Name of the group
        group: String,
        /// The epoch
        #[structopt(long)]
        epoch: u64,
        /// Seconds to wait before giving up
        #[structopt(long, default_value = "60")]
        timeout: u64,
    },
    /// Backup: applies the committed epochs, drops the rest, and opens the volume for use.
    /// Prints the epoch that the volume holds
    Promote {
        /// Name of the group
        group: String,
        /// With commit = "external": commit up to this staged epoch, drop what follows, and promote to it
        #[structopt(long)]
        epoch: Option<u64>,
        /// Promote even if the volume holds no committed epoch. It may be a mixture of two
        #[structopt(long)]
        force: bool,
        /// Fencing token: a number that rises with each decision. Refused (code 9) unless above all seen before
        #[structopt(long)]
        token: Option<u64>,
        /// Do not promote: create a writable copy with this name of what a promote would give
        #[structopt(long, value_name = "NAME", conflicts_with = "epoch")]
        test: Option<String>,
        /// With --test, if the volume is not thin: room for changes. Default: a fifth of the volume
        #[structopt(long, requires = "test")]
        size: Option<String>,
        /// Seconds to wait before giving up
        #[structopt(long, default_value = "300")]
        timeout: u64,
    },
    /// Backup: lists the copies of committed epochs on this host. Needs no daemon
    Snapshots {
        /// Name of the group
        group: String,
        /// Remove the copy with this name
        #[structopt(long, value_name = "NAME")]
        remove: Option<String>,
        /// As JSON
        #[structopt(long)]
        json: bool,
    },
    /// Primary: compares the backup's volumes with this host's while the VM runs. Lists what differs
    Verify {
        /// Name of the group; with --offline a configuration file, or the name of a group in /etc/ftdm
        group: String,
        /// Compare a stopped pair, on either host, by a list of digests
        #[structopt(long, conflicts_with_all = &["repair", "progress"])]
        offline: bool,
        /// With --offline: write the list of this host's volumes
        #[structopt(long, value_name = "FILE", requires = "offline", conflicts_with = "against")]
        write: Option<PathBuf>,
        /// With --offline: compare this host's volumes with the other host's list
        #[structopt(long, value_name = "FILE", requires = "offline")]
        against: Option<PathBuf>,
        /// Repair what differs on the backup
        #[structopt(long)]
        repair: bool,
        /// Report progress every second (json: one JSON object per line, on standard output)
        #[structopt(long, require_equals = true, possible_values = &["json"])]
        progress: Option<Option<String>>,
    },
    /// Primary: hands over to the backup and becomes its backup
    Switch {
        /// Name of the group
        group: String,
        /// Also if the volume is open: writes wait while the other side takes over, and then fail
        #[structopt(long)]
        stall: bool,
        /// Seconds to wait before giving up
        #[structopt(long, default_value = "60")]
        timeout: u64,
    },
    /// Old primary, after the other side was promoted: becomes its backup
    Demote {
        /// Name of the group
        group: String,
    },
    /// Ends a split brain
    Resolve {
        /// Name of the group
        group: String,
        /// Discard what this side has written since the fork, and become the other side's backup
        #[structopt(long)]
        discard_mine: bool,
    },
    /// Primary: overwrites the backup with a new copy of the volume
    FullSync {
        /// Name of the group
        group: String,
        /// Wait until it is done and report progress every second (json: one JSON object per line, on standard
        /// output)
        #[structopt(long, require_equals = true, possible_values = &["json"])]
        progress: Option<Option<String>>,
    },
}

impl Verb {
    /// The group of a process that stays, for its log.
    fn served(&self) -> Option<&str> {
        match self {
            Self::Run { config } | Self::Watchdog { config } => Path::new(config).file_stem()?.to_str(),
            _ => None,
        }
    }
}

/// A failure and the exit code that goes with it.
struct Failure {
    code: u8,
    text: String,
}

fn failure(code: u8, error: &dyn std::fmt::Display) -> Failure {
    Failure { code, text: format!("{error}") }
}

fn main() -> ExitCode {
    let cli = match Cli::from_args_safe() {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind, ErrorKind::HelpDisplayed | ErrorKind::VersionDisplayed) => {
            return ended(say!("{}", error.message));
        }
        Err(error) => {
            note!("{}", error.message);
            return ExitCode::from(2);
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
            ExitCode::from(code)
        }
    }
}

fn perform(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Init(options) => verb_init::init(options),
        Verb::Setup { config, wait, remove } => verb_setup::set_up(&load(&config)?, wait, remove),
        Verb::Completions { shell } => {
            let mut app = Cli::clap();
            // A shell offers what --help lists: no verb of packages, udev or the daemon.
            app.p.subcommands.retain(|verb| !verb.p.is_set(AppSettings::Hidden));
            let mut script = Vec::new();
            app.gen_completions_to("ftship", shell, &mut script);
            output::print(&String::from_utf8_lossy(&script))
        }
        Verb::Claim { names } => verb_setup::claim(&names),
        Verb::Format { config, force } => verb_setup::format(&config, force),
        Verb::Reload { group } => verb_setup::reload(&group),
        Verb::CheckConfig { groups, config } => verb_setup::check_config(&groups, config),
        Verb::Keygen(asked) => verb_keys::keygen(&asked),
        Verb::Pair(asked) => verb_keys::pair(&asked),
        Verb::Run { config } => {
            daemon::run(&load(&config)?).map_err(|error| Failure { code: 1, text: format!("{error:#}") })
        }
        Verb::Hold { config, epoch } => hooks::hold(&load(&config)?, epoch, std::io::stdout())
            .map_err(|error| Failure { code: 1, text: format!("{error:#}") }),
        Verb::Watchdog { config } => {
            watchdog::run(&load(&config)?).map_err(|error| Failure { code: 1, text: format!("{error:#}") })
        }
        Verb::Journal { config, check, all, json } => journal(&load(&config)?, check, all, json),
        Verb::Status { group, json } => {
            let Response::Status(status) = request(&group, &Request::Status, ANSWER_TIMEOUT)? else {
                return Err(unexpected());
            };
            if json {
                output::json(&status)?;
            } else {
                output::print(&report::status(&status))?;
            }
            Ok(())
        }
        Verb::Checkpoint { group, wait, quiesced, timeout } => {
            let staged = matches!(&wait, Some(Some(until)) if until == "staged");
            let request_ = Request::Checkpoint { wait: wait.is_some(), staged, quiesced };
            match request(&group, &request_, Duration::from_secs(timeout))? {
                Response::Checkpoint { epoch } => say!("{epoch}")?,
                _ => return Err(unexpected()),
            }
            Ok(())
        }
        Verb::Commit { group, epoch, timeout } => {
            match request(&group, &Request::Commit { epoch }, Duration::from_secs(timeout))? {
                Response::Committed { epoch } => say!("{epoch}")?,
                _ => return Err(unexpected()),
            }
            Ok(())
        }
        Verb::Snapshots { group, remove, json } => list_snapshots(&group, remove.as_deref(), json),
        Verb::Promote { group, test: Some(name), size, timeout, .. } => {
            match request(&group, &Request::TestCopy { name, size }, Duration::from_secs(timeout))? {
                Response::Snapshot(snapshot) => print_snapshot(&snapshot)?,
                _ => return Err(unexpected()),
            }
            Ok(())
        }
        Verb::Promote { group, epoch, force, token, timeout, .. } => {
            if force {
                note!(
                    "ftship: --force: what the volume holds may be a mixture of two states; check it before it is used"
                );
            }
            match request(&group, &Request::Promote { epoch, force, token }, Duration::from_secs(timeout))? {
                Response::Promoted { epoch } => say!("{epoch}")?,
                _ => return Err(unexpected()),
            }
            Ok(())
        }
        Verb::Verify { group, offline: true, write, against, .. } => {
            verb_verify::verify_offline(&load(&group)?, write.as_deref(), against.as_deref())
        }
        Verb::Verify { group, repair, progress, .. } => {
            verb_verify::verify(&group, repair, progress.as_ref())
        }
        Verb::Switch { group, stall, timeout } => {
            match request(&group, &Request::Switch { stall }, Duration::from_secs(timeout))? {
                Response::Started => Ok(()),
                _ => Err(unexpected()),
            }
        }
        Verb::Demote { group } => started(&group, &Request::Demote),
        Verb::Resolve { group, discard_mine: true } => started(&group, &Request::DiscardMine),
        Verb::Resolve { .. } => Err(Failure {
            code: 2,
            text: "say --discard-mine on the side whose writes are to be thrown away".into(),
        }),
        Verb::FullSync { group, progress } => {
            started(&group, &Request::FullSync)?;
            progress.map_or(Ok(()), |form| follow_full_sync(&group, form.is_some()))
        }
    }
}

fn list_snapshots(group: &str, remove: Option<&str>, json: bool) -> Result<(), Failure> {
    let failed = |error: anyhow::Error| Failure { code: 1, text: format!("{group}: {error:#}") };
    // It goes into a selection of LVM's.
    let name: ftship_proto::ids::GroupName = group.parse().map_err(|error| failure(2, &error))?;
    let all = snapshots::list(name.as_str()).map_err(failed)?;
    if let Some(name) = remove {
        let named = all.iter().find(|snapshot| snapshot.name == name);
        let text = || format!("{group}: there is no snapshot {name}");
        return named.ok_or_else(|| Failure { code: 4, text: text() })?.remove().map_err(failed);
    }
    if json {
        output::json(&all)?;
    } else {
        for snapshot in &all {
            print_snapshot(snapshot)?;
        }
    }
    Ok(())
}

/// `NAME EPOCH TIME DEVICE...`
fn print_snapshot(snapshot: &Snapshot) -> Result<(), Failure> {
    let devices: Vec<_> = snapshot.devices.iter().map(|device| device.display().to_string()).collect();
    say!("{} {} {} {}", snapshot.name, snapshot.epoch, snapshot.time, devices.join(" "))
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
                note!("{}", report::sync_under_way(&sync));
            }
        }
        match (status.state.as_str(), figures.last_sync) {
            ("in sync", Some(sync)) if sync.base.is_none() => {
                if json {
                    say!("{}", serde_json::json!({ "synced": sync }))?;
                }
                return Ok(());
            }
            // Whatever broke off is begun anew by itself.
            ("in sync" | "syncing" | "degraded", _) => {}
            (state, _) => {
                let reason = status.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                return Err(Failure { code: 1, text: format!("{group}: {state}{reason}") });
            }
        }
    }
}

fn started(group: &str, asked: &Request) -> Result<(), Failure> {
    match request(group, asked, Some(ANSWER_TIMEOUT))? {
        Response::Started => Ok(()),
        _ => Err(unexpected()),
    }
}

fn journal(config: &Config, check: bool, all: bool, json: bool) -> Result<(), Failure> {
    let state = StateFile::open_to_read(&config.state).and_then(|mut file| file.read());
    if let Err(error) = &state {
        note!("ftship: {error}; so the last committed epoch is not known");
    }
    let state = state.ok().flatten();
    let answer = ask(config.group.as_str(), &Request::Status, Some(ANSWER_TIMEOUT));
    let view = View {
        path: &config.journal.device,
        group: &config.group,
        state: state.as_ref(),
        daemon: !matches!(answer, Err(ClientError::NoDaemon { .. })),
        all,
    };
    let picture = view.take().map_err(|error| failure(journal_report::error_code(&error), &error))?;
    if json {
        output::json(&picture)?;
    } else {
        output::print(&journal_report::journal(&picture))?;
    }
    match journal_report::code(picture.verdict) {
        code if check && code != 0 => {
            Err(Failure { code, text: format!("journal {}: not sound, see above", picture.device.display()) })
        }
        _ => Ok(()),
    }
}

fn load(argument: &str) -> Result<Config, Failure> {
    Config::load(Path::new(&path_of(argument))).map_err(|error| failure(2, &error))
}

fn request(
    group: &str,
    request: &Request,
    timeout: impl Into<Option<Duration>>,
) -> Result<Response, Failure> {
    let group: ftship_proto::ids::GroupName = group.parse().map_err(|error| failure(2, &error))?;
    let response = ask(group.as_str(), request, timeout.into()).map_err(|error| {
        let code = match error {
            ClientError::NoDaemon { .. } => 3,
            ClientError::NotPermitted { .. } => 10,
            ClientError::TimedOut(_) => 6,
            ClientError::Broken(_) => 1,
        };
        failure(code, &error)
    })?;
    match response {
        Response::Stale { reason } => Err(Failure { code: 9, text: format!("{group}: {reason}") }),
        Response::Refused { reason } => Err(Failure { code: 4, text: format!("{group}: {reason}") }),
        Response::Forbidden { reason } => Err(Failure { code: 10, text: format!("{group}: {reason}") }),
        Response::Failed { reason } => Err(Failure { code: 1, text: format!("{group}: {reason}") }),
        answer => Ok(answer),
    }
}

fn unexpected() -> Failure {
    Failure { code: 1, text: "the daemon answered another question: are both of one version?".into() }
}
