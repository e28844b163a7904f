//! The `ftdm` command: makes, removes and shows stacks, with dmsetup's manners.
//!
//! Always holds: results go to standard output, errors to standard error as
//! `ftdm: COMMAND NAME: what: what to do`, and the exit code says which kind of error it was.

use std::io::Write;
use std::path::Path;
use std::process::{Command as Process, ExitCode};

use ftdm::block_io::{Access, BlockDevice, OpenError};
use ftdm::discard::Discards;
use ftdm::era::size::{MetadataSize, Room};
use ftdm::kernel_gate::{self, KernelError};
use ftdm::name::StackName;
use ftdm::stack::guard::{self, Guard};
use ftdm::stack::written::{Written, WrittenError};
use ftdm::stack::{self, Created, Stack, StackError, StackStatus};
use ftdm::table::{BlockSectors, FtTable};
use ftdm::units::{Era, Sectors};
use structopt::StructOpt;
use structopt::clap::{AppSettings, ErrorKind, Shell};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const REFUSED: u8 = 4;
const MISSING: u8 = 5;
const TRACKING_LOST: u8 = 6;

const AFTER_HELP: &str = "\
TABLE:
    0 SECTORS ft METADATA ORIGIN BLOCK_SECTORS
    SECTORS        size of the visible device, at most the origin's
    METADATA       device that keeps dm-era's state: blank, or from the same volume
    ORIGIN         the volume to protect
    BLOCK_SECTORS  tracking granule, a multiple of 8

EXIT CODES:
    0  done, or already so
    1  a step failed
    2  wrong arguments
    3  no such ftdm device
    4  in use, or refused by a check; nothing was changed
    5  the kernel lacks a module, or mends that dm-era needs
    6  tracking was lost: the metadata's history does not go on, so that what
       changed is unknown";

#[derive(StructOpt)]
#[structopt(about = "Sets up volumes that ftship replicates", after_help = AFTER_HELP)]
struct Options {
    /// Says more: -v steps, -vv every device-mapper call
    #[structopt(short, long, parse(from_occurrences), global = true)]
    verbose: u8,
    #[structopt(subcommand)]
    command: Command,
}

#[derive(StructOpt)]
enum Command {
    /// Creates the device NAME. A device that exists with the same table is left as it is
    Create {
        /// Name of the visible device
        name: StackName,
        /// The table, see TABLE below
        #[structopt(long)]
        table: FtTable,
        /// Last era in use: metadata that is blank or older is refused (code 6)
        #[structopt(long, parse(try_from_str = era))]
        recorded_era: Option<Era>,
        /// The guest's discards: off, or pass (accepted during a capture, and passed to the volume
        /// in small steps)
        #[structopt(long, default_value = "off")]
        discards: Discards,
        /// Accept any kernel. Without the fixes of dm-era a crash may hide changed blocks for good
        #[structopt(long)]
        allow_kernel: bool,
    },
    /// Removes the device NAME and the hidden devices below it. The volume keeps its content
    Remove {
        /// Name of the visible device
        name: StackName,
    },
    /// Shows: 0 SECTORS ft MODE USED/TOTAL ERA SNAPSHOT [LOG_ENTRIES LOG_SECTORS]
    Status {
        /// Name of the visible device
        name: StackName,
    },
    /// Shows the table that recreates NAME
    Table {
        /// Name of the visible device
        name: StackName,
    },
    /// Shows device-mapper's information about NAME
    Info {
        /// Name of the visible device
        name: StackName,
    },
    /// Lists all ftdm devices
    Ls,
    /// Lists what was written in era ERA and later, as `START SECTORS` lines. Then `next-era ERA`,
    /// the value to pass next time, and `pause-us N`, how long the volume was suspended
    WrittenSince {
        /// Name of the visible device
        name: StackName,
        /// An era that was shown before; 1: since the metadata was made; 0: the whole volume
        #[structopt(parse(try_from_str = era))]
        era: Era,
        /// As one JSON object
        #[structopt(long)]
        json: bool,
    },
    /// Ends the pause of a `written-since` or `bypass` that was killed: started by these
    #[structopt(setting(AppSettings::Hidden))]
    Guard {
        /// Name of the visible device
        name: StackName,
    },
    /// For packages: what a shell completes
    #[structopt(setting(AppSettings::Hidden))]
    Completions {
        /// bash, fish or zsh
        shell: Shell,
    },
    /// Takes dm-era out of the stack of NAME when its metadata fails: the volume works on, tracking is lost
    Bypass {
        /// Name of the visible device
        name: StackName,
        /// Even if dm-era's metadata does not fail
        #[structopt(long)]
        force: bool,
    },
    /// Shows the recommended size of the metadata device, in sectors
    MetadataSize {
        /// Size of the volume in sectors, or the device itself
        volume: String,
        /// Tracking granule in sectors
        block_sectors: BlockSectors,
    },
}

fn era(text: &str) -> Result<Era, std::num::ParseIntError> {
    text.parse().map(Era)
}

impl Command {
    /// For error messages: the command, and what it works on.
    fn subject(&self) -> String {
        match self {
            Self::Create { name, .. } => format!("create {name}"),
            Self::Remove { name } => format!("remove {name}"),
            Self::Status { name } => format!("status {name}"),
            Self::Table { name } => format!("table {name}"),
            Self::Info { name } => format!("info {name}"),
            Self::Ls => "ls".to_owned(),
            Self::WrittenSince { name, era, .. } => format!("written-since {name} {era}"),
            Self::Bypass { name, .. } => format!("bypass {name}"),
            Self::Completions { shell } => format!("completions {shell}"),
            Self::Guard { name } => format!("guard {name}"),
            Self::MetadataSize { volume, .. } => format!("metadata-size {volume}"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Written(#[from] WrittenError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the process that guards the pause: {0}")]
    Guard(#[source] std::io::Error),
    #[error("dm-era's metadata does not fail; --force gives tracking up all the same")]
    Healthy,
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Kernel(_) => MISSING,
            Self::Written(e) if e.tracking_lost() => TRACKING_LOST,
            Self::Written(
                WrittenError::InUse { .. } | WrittenError::NoRoom { .. } | WrittenError::Locked,
            )
            | Self::Healthy => REFUSED,
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
            Self::Written(_) | Self::Open(_) | Self::Guard(_) | Self::Output(_) => FAILED,
        }
    }
}

fn main() -> ExitCode {
    let options = match Options::from_args_safe() {
        Ok(options) => options,
        Err(e) => {
            let asked_for = matches!(e.kind, ErrorKind::HelpDisplayed | ErrorKind::VersionDisplayed);
            if asked_for {
                return ended("help", writeln!(std::io::stdout(), "{}", e.message).map_err(Failure::Output));
            }
            let _ = writeln!(std::io::stderr(), "ftdm: {}", e.message.trim_start_matches("error: "));
            return ExitCode::from(USAGE);
        }
    };
    let level = match options.verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    env_logger::Builder::new().filter_level(level).parse_default_env().init();
    let subject = options.command.subject();
    ended(&subject, run(options.command, &mut std::io::stdout().lock()))
}

fn ended(subject: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Its reader has read enough.
        Err(Failure::Output(e)) if is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            // With standard error gone there is only the exit code left to tell.
            let _ = writeln!(std::io::stderr(), "ftdm: {subject}: {e}");
            ExitCode::from(e.code())
        }
    }
}

fn is_closed_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

fn run(command: Command, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        Command::Create { name, table, recorded_era, discards, allow_kernel } => {
            check_kernel(allow_kernel)?;
            match stack::create(&name, &table, discards, recorded_era)? {
                Created::Made => log::info!("{name} made"),
                Created::AlreadyThere => log::info!("{name} is there already, with this table"),
            }
        }
        Command::Remove { name } => stack::remove(&name)?,
        Command::Status { name } => {
            let stack = Stack::open(&name)?;
            let status = stack.status()?;
            writeln!(out, "{}", status_line(&status))?;
            warn_when_full(&stack, &status);
        }
        Command::Table { name } => writeln!(out, "{}", Stack::open(&name)?.table()?)?,
        Command::Info { name } => info(&name, out)?,
        Command::Ls => {
            let stacks = stack::list()?;
            if stacks.is_empty() {
                writeln!(out, "No devices found")?;
            }
            for (name, number) in stacks {
                writeln!(out, "{name}\t({number})")?;
            }
        }
        Command::WrittenSince { name, era, json } => {
            // The volume may hold this very program, or swap: nothing is to be paged in during the pause.
            if let Err(e) = ftdm::ioctl::enter_io_path() {
                log::warn!("cannot lock memory: {e}; this must not run from the volume {name} itself");
            }
            let stack = Stack::open(&name)?;
            let written = stack.written_since(era, &start_guard(&name)?)?;
            if json { written_json(&name, era, &written, out)? } else { written_lines(&written, out)? }
        }
        Command::Guard { name } => {
            guard::stand_by(Stack::open(&name)?, std::io::stdin(), out).map_err(Failure::Guard)?;
        }
        Command::Completions { shell } => {
            let mut app = Options::clap();
            // A shell offers what --help lists.
            app.p.subcommands.retain(|command| !command.p.is_set(AppSettings::Hidden));
            let mut script = Vec::new();
            app.gen_completions_to("ftdm", shell, &mut script);
            out.write_all(&script)?;
        }
        Command::Bypass { name, force } => bypass(&name, force)?,
        Command::MetadataSize { volume, block_sectors } => {
            let sectors = match volume.parse() {
                Ok(sectors) => Sectors(sectors),
                Err(_) => BlockDevice::open(Path::new(&volume), Access::default())?.size(),
            };
            writeln!(out, "{}", MetadataSize::of(sectors, block_sectors).recommended_sectors().0)?;
        }
    }
    Ok(())
}

/// Another process of this program, which ends a pause that this one cannot end.
fn start_guard(name: &StackName) -> Result<Guard, Failure> {
    let program = std::env::current_exe()?;
    Guard::start(Process::new(program).arg("guard").arg(name.top())).map_err(Failure::Guard)
}

fn bypass(name: &StackName, force: bool) -> Result<(), Failure> {
    let mut stack = Stack::open(name)?;
    let failing = stack.failing_history()?;
    if failing.is_none() && stack.history().is_ok() && !force {
        return Err(Failure::Healthy);
    }
    if let Err(e) = ftdm::ioctl::enter_io_path() {
        log::warn!("cannot lock memory: {e}; this must not run from the volume {name} itself");
    }
    stack.bypass(&start_guard(name)?)?;
    log::warn!("tracking of {name} is lost: a full copy or comparison is needed");
    Ok(())
}

fn check_kernel(allowed: bool) -> Result<(), Failure> {
    let name = nix::sys::utsname::uname().map_err(std::io::Error::from)?;
    let judged = kernel_gate::check(&name.release().to_string_lossy(), &name.version().to_string_lossy());
    match judged {
        Err(e) if allowed => log::warn!("--allow-kernel: {e}"),
        judged => judged?,
    }
    Ok(())
}

fn written_lines(written: &Written, out: &mut impl Write) -> Result<(), Failure> {
    let mut lines = std::io::BufWriter::new(out);
    for extent in written.extents() {
        writeln!(lines, "{} {}", extent.start().0, extent.len().0)?;
    }
    writeln!(lines, "next-era {}", written.delta.next)?;
    writeln!(lines, "pause-us {}", written.pause.as_micros())?;
    Ok(lines.flush()?)
}

fn written_json(
    name: &StackName,
    since: Era,
    written: &Written,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut json = std::io::BufWriter::new(out);
    let (next, sectors) = (written.delta.next, written.sectors().0);
    let (pause, read) = (written.pause.as_micros(), written.read.as_micros());
    // A name has no character that JSON would escape.
    write!(json, "{{\"name\":\"{name}\",\"since\":{since},\"next_era\":{next},\"sectors\":{sectors},")?;
    write!(json, "\"pause_us\":{pause},\"read_us\":{read},\"extents\":[")?;
    for (index, extent) in written.extents().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(json, "{comma}[{},{}]", extent.start().0, extent.len().0)?;
    }
    writeln!(json, "]}}")?;
    Ok(json.flush()?)
}

fn warn_when_full(stack: &Stack, status: &StackStatus) {
    let (Some(era), Ok(history)) = (&status.era, stack.history()) else { return };
    match MetadataSize::of(stack.size(), history.block).room(era) {
        Room::Enough => {}
        Room::Low { percent } => log::warn!("the metadata of {} is {percent} % full", stack.name()),
        Room::Full { free, needed } => log::warn!(
            "the metadata of {} has {free} free blocks, an era may take {needed}: no era is begun any more",
            stack.name()
        ),
        Room::Exhausted { free, needed } => log::warn!(
            "the metadata of {} has {free} free blocks, writes may take {needed}: dm-era is about to fail them \
             (ftdm bypass)",
            stack.name()
        ),
    }
}

fn status_line(status: &StackStatus) -> String {
    let StackStatus { sectors, mode, suspended, era, log } = status;
    let state = if *suspended { "-suspended" } else { "" };
    let era = era.map_or_else(
        || "- - -".to_owned(),
        |era| {
            let snapshot = era.snapshot.map_or_else(|| "-".to_owned(), |block| block.to_string());
            format!("{}/{} {} {snapshot}", era.used, era.total, era.current)
        },
    );
    let log = log.map_or_else(String::new, |log| {
        let off = if log.on { "" } else { " logging_disabled" };
        format!(" {} {}{off}", log.entries, log.used.0)
    });
    format!("0 {} ft {mode}{state} {era}{log}", sectors.0)
}

fn info(name: &StackName, out: &mut impl Write) -> Result<(), Failure> {
    let stack = Stack::open(name)?;
    let info = stack.info()?;
    let state = if info.suspended { "SUSPENDED" } else { "ACTIVE" };
    let tables = match (info.live, info.inactive) {
        (true, false) => "LIVE",
        (true, true) => "LIVE & INACTIVE",
        (false, true) => "INACTIVE",
        (false, false) => "None",
    };
    writeln!(out, "Name:              {name}")?;
    writeln!(out, "State:             {state}")?;
    writeln!(out, "Tables present:    {tables}")?;
    writeln!(out, "Open count:        {}", info.open_count)?;
    writeln!(out, "Event number:      {}", info.event)?;
    writeln!(out, "Major, minor:      {}, {}", info.number.major, info.number.minor)?;
    writeln!(out, "UUID:              {}", info.uuid)?;
    writeln!(out, "Discards:          {}", stack.discards())?;
    writeln!(out, "Era device:        {}", stack.era())?;
    writeln!(out, "Origin device:     {}", stack.origin())?;
    let metadata = stack.history().map_or_else(|_| "none".to_owned(), |history| history.metadata.to_string());
    writeln!(out, "Metadata device:   {metadata}")?;
    Ok(())
}
