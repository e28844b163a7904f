//! The command line: dmsetup's verbs on all devices of device-mapper, with `ft` as one more target, and verbs of its own.
//!
//! Always holds: results go to standard output, errors to standard error. Of what dmsetup has too, the words and exit
//! codes are dmsetup's; errors about ft devices are `ftdm: VERB NAME: what: what to do`, and the exit code says which
//! kind of error it was.

use std::ffi::OsString;
use std::io::Write;

use ftdm::block_io::OpenError;
use ftdm::ioctl::DmControl;
use ftdm::ioctl::exchange::Address;
use ftdm::kernel_gate::KernelError;
use ftdm::mangle::Mangling;
use ftdm::stack::StackError;
use ftdm::stack::written::WrittenError;
use ftdm::units::DevNum;

pub(crate) mod args;
mod change;
mod concise;
mod cookie;
mod create;
mod dm;
mod ft;
pub(crate) mod getopt;
pub(crate) mod help;
mod list;
mod nodes;
mod own;
mod remove;
mod report;
mod show;
mod tables;
mod tree;
mod udev;

use structopt::StructOpt;

use args::{Options, Verb};
use cookie::{Udev, udev_runs};
use dm::{Dm, Done, Failed, fail, say};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Said already, in dmsetup's words.
    #[error("it failed")]
    Said,
    /// Said already, and that it failed is not to be said.
    #[error("it failed")]
    Wording,
    /// Help was asked for, and given.
    #[error("that was the help")]
    Helped,
    /// Too many or too few words: the usage follows.
    #[error("{0}")]
    Usage(String),
    /// An option has a value that it cannot have.
    #[error("{0}")]
    Misused(String),
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Written(#[from] WrittenError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A line of an ft table, or a name that an ft device cannot have.
    #[error("{0}")]
    Wrong(String),
    /// Not with an ft device, or not now.
    #[error("{0}")]
    Refused(String),
    #[error("the process that guards the pause: {0}")]
    Guard(#[source] std::io::Error),
    #[error("dm-era's metadata does not fail; --force gives tracking up all the same")]
    Healthy,
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
}

impl From<Failed> for Failure {
    fn from(_: Failed) -> Self {
        Self::Said
    }
}

pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const REFUSED: u8 = 4;
const MISSING: u8 = 5;
const TRACKING_LOST: u8 = 6;

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Wrong(_) => USAGE,
            Self::Kernel(_) => MISSING,
            Self::Written(e) if e.tracking_lost() => TRACKING_LOST,
            Self::Written(
                WrittenError::InUse { .. } | WrittenError::NoRoom { .. } | WrittenError::Locked,
            )
            | Self::Healthy
            | Self::Refused(_) => REFUSED,
            Self::Stack(e) | Self::Written(WrittenError::Stack(e)) => match e {
                StackError::NotFound(_) => NOT_FOUND,
                StackError::NameTaken { .. }
                | StackError::Different { .. }
                | StackError::OtherDiscards { .. }
                | StackError::Busy { .. }
                | StackError::Refused { .. }
                | StackError::Device { .. } => REFUSED,
                StackError::Missing { .. } => MISSING,
                StackError::TrackingLost { .. } | StackError::Bypassed { .. } => TRACKING_LOST,
                _ => FAILED,
            },
            _ => FAILED,
        }
    }
}

pub(crate) fn misused(text: &str) -> Failure {
    Failure::Misused(text.to_owned())
}

/// The command line in the form that [`Options`] knows.
pub(crate) fn canonical(parts: getopt::Parts) -> Vec<OsString> {
    let app = Options::clap();
    let long = |app: &structopt::clap::App<'_, '_>| -> Vec<String> {
        let flags = app.p.flags.iter().filter_map(|flag| flag.s.long);
        let options = app.p.opts.iter().filter_map(|option| option.s.long);
        flags.chain(options).map(str::to_owned).collect()
    };
    let verb = parts.words.first().and_then(|word| word.to_str());
    let of_verb = app.p.subcommands.iter().find(|known| Some(known.p.meta.name.as_str()) == verb);
    let of_verb = of_verb.map(long).unwrap_or_default();
    parts.canonical(&long(&app), &of_verb)
}

pub(crate) fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}

/// The devices that a verb is to work on.
pub(crate) struct Which {
    pub(crate) addresses: Vec<Address>,
    /// Words that name no device.
    pub(crate) rest: Vec<OsString>,
}

/// The devices that the words name, the first `most` of them; or the one that an option names.
pub(crate) fn which(dm: &Dm, given: &args::Which, most: usize) -> Result<Which, Failure> {
    if given.major.is_some() != given.minor.is_some() {
        return Err(misused("Please specify both major number and minor number."));
    }
    let by_option = if let Some(uuid) = &given.uuid {
        Some(dm.by_uuid(uuid)?)
    } else {
        match (&given.major, &given.minor) {
            (Some(major), Some(minor)) => {
                let number = DevNum { major: create::atoi(major), minor: create::atoi(minor) };
                Some(Address { number: Some(number), ..Address::default() })
            }
            _ => None,
        }
    };
    if let Some(address) = by_option {
        return Ok(Which { addresses: vec![address], rest: given.devices.clone() });
    }
    let (devices, rest) = given.devices.split_at(most.min(given.devices.len()));
    let addresses = devices.iter().map(|word| dm.named(word)).collect::<Done<_>>()?;
    Ok(Which { addresses, rest: rest.to_vec() })
}

/// The connection, as the command line wants it.
fn open(options: &Options) -> Result<Dm, Failure> {
    let mode = options.manglename.clone().or_else(|| std::env::var("DM_DEFAULT_NAME_MANGLING_MODE").ok());
    let mangling = match (&options.manglename, mode.as_deref().map(str::parse::<Mangling>)) {
        (_, None) | (None, Some(Err(()))) => Mangling::default(),
        (_, Some(Ok(mode))) => mode,
        (Some(_), Some(Err(()))) => return Err(misused("Unknown name mangling mode.")),
    };
    match std::env::var_os("DM_DEV_DIR") {
        Some(folder) if !std::os::unix::ffi::OsStrExt::as_bytes(folder.as_os_str()).starts_with(b"/") => {
            say("Invalid DM_DEV_DIR environment variable value.");
            return Err(Failure::Wording);
        }
        _ => {}
    }
    let cookie = options.udevcookie.clone().or_else(|| std::env::var("DM_UDEV_COOKIE").ok());
    let udev = Udev {
        cookie: cookie.as_deref().map_or(0, |text| {
            let cookie = udev::number(text);
            if cookie == 0 {
                say("Incorrect cookie value.");
            }
            cookie
        }),
        sync: !options.noudevsync && udev_runs(),
        rules: !options.noudevrules && std::env::var_os("DM_DISABLE_UDEV").is_none(),
        verify: options.verifyudev,
    };
    let control = match DmControl::open() {
        Ok(control) => control,
        Err(e) => {
            say(format!("/dev/mapper/control: open failed: {}", nodes::reason(&e)));
            say("Failure to communicate with kernel device-mapper driver.");
            say("Check that device-mapper is available in the kernel.");
            return Err(Failure::Said);
        }
    };
    Ok(Dm { control, mangling, udev, verbose: options.verbose })
}

/// Carries out a verb.
pub(crate) fn run(options: Options, out: &mut dyn Write) -> Result<(), Failure> {
    if options.version {
        return list::version(&mut open(&options)?, out);
    }
    let Some(verb) = &options.verb else { return Err(usage("Please supply a command.")) };
    match verb {
        Verb::Udevcreatecookie(_)
        | Verb::Udevreleasecookie(_)
        | Verb::Udevcomplete(_)
        | Verb::UdevcompleteAll(_)
        | Verb::Udevcookies(_)
        | Verb::Udevflags(_) => return udev::run(&options, verb, out),
        Verb::Help(given) => return help::run(given, out),
        Verb::Stats(_) => return Ok(fail("Statistics are dmstats': see dmstats(8)")?),
        Verb::Splitname(given) => return show::splitname(given, out),
        Verb::WrittenSince { .. }
        | Verb::Guard { .. }
        | Verb::Completions { .. }
        | Verb::Bypass { .. }
        | Verb::MetadataSize { .. } => return own::run(verb, out),
        _ => {}
    }
    let mut dm = open(&options)?;
    match verb {
        Verb::Create(given) => create::create(&mut dm, given),
        Verb::Load(given) | Verb::Reload(given) => create::load(&mut dm, given),
        Verb::Remove(given) => remove::remove(&mut dm, given),
        Verb::RemoveAll(given) => remove::remove_all(&mut dm, given),
        Verb::WipeTable(given) => remove::wipe(&mut dm, given),
        Verb::Rename(given) => change::rename(&mut dm, given),
        Verb::Suspend(given) => change::suspend(&mut dm, given),
        Verb::Resume(given) => change::resume(&mut dm, given),
        Verb::Clear(given) => change::clear(&mut dm, given),
        Verb::Message(given) => change::message(&mut dm, given, out),
        Verb::Setgeometry(given) => change::set_geometry(&mut dm, given),
        Verb::Mknodes(given) => change::make_nodes(&mut dm, given),
        Verb::Mangle(given) => change::mangle(&mut dm, given),
        Verb::Wait(given) => change::wait(&mut dm, given, out),
        Verb::Ls(given) => list::ls(&mut dm, given, out),
        Verb::Deps(given) => list::deps(&mut dm, given, out),
        Verb::Targets(given) if given.words.is_empty() => list::targets(&mut dm, out),
        Verb::TargetVersion(given) => list::target_version(&mut dm, given, out),
        Verb::Version(given) if given.words.is_empty() => list::version(&mut dm, out),
        Verb::Targets(_) | Verb::Version(_) => Err(usage("Incorrect number of arguments.")),
        Verb::Info(given) => show::info(&mut dm, given, out),
        Verb::Table(given) => show::table(&mut dm, given, out),
        Verb::Status(given) => show::status(&mut dm, given, out),
        Verb::Measure(given) => show::measure(&mut dm, given, out),
        _ => Ok(()),
    }
}

/// For error messages about ft devices: the verb, and what it works on.
pub(crate) fn subject(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().take(2).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
