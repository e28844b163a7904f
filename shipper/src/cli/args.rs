//! What can be said to `ftship`: its verbs and their options.
//!
//! Always holds: a doc comment here is what `--help` prints, and the manual's reference lists every verb and option.

use std::path::{Path, PathBuf};

use structopt::StructOpt;
use structopt::clap::{AppSettings, Shell};

use crate::cli::{init, keys};

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
pub(crate) struct Cli {
    /// Log more; twice for everything. RUST_LOG overrides it
    #[structopt(short, long, parse(from_occurrences), global = true)]
    pub(crate) verbose: usize,
    #[structopt(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, StructOpt)]
pub(crate) enum Verb {
    /// Starts a group: writes its configuration for both hosts and creates the volumes it needs
    Init(init::Options),
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
    Keygen(keys::Keygen),
    /// Connects to the other host, shows its key, and trusts it after you confirm
    Pair(keys::Pair),
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
    /// For the service manager: thaws the guest if a daemon that is gone left it frozen
    #[structopt(setting(AppSettings::Hidden))]
    Thaw {
        /// A configuration file, or the name of a group in /etc/ftdm
        config: String,
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
        /// Without a daemon, if the primary is gone and the state or the journal is damaged or missing: say what
        /// the volumes hold and what is lost, ask, and make them usable
        #[structopt(long, conflicts_with_all = &["test", "force"])]
        accept_loss: bool,
        /// With --accept-loss: do not ask
        #[structopt(long, requires = "accept-loss")]
        yes: bool,
        /// With --accept-loss: leave the journal alone, even if it can be read
        #[structopt(long, requires = "accept-loss")]
        without_journal: bool,
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
    /// Primary: gives the volumes the sizes of their devices, on both sides, after `lvextend` on both. The VM runs
    /// on. Prints the sizes before and after
    Resize {
        /// Name of the group
        group: String,
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
    pub(crate) fn served(&self) -> Option<&str> {
        match self {
            Self::Run { config } | Self::Watchdog { config } => Path::new(config).file_stem()?.to_str(),
            _ => None,
        }
    }
}
