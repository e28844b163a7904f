//! `ftship init`: takes what it was told, asks on a terminal for what is missing, shows or carries out the plan.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use ftdm::name::StackName;
use ftship::control::exit::Code;
use ftship::link::host::{HostAddress, NoAddress};
use ftship::provision::init::{Plan, Undone, Wishes, plan};
use ftship::provision::lvm::LvmSize;
use ftship_proto::ids::GroupName;
use ftship_proto::state::Role;
use structopt::StructOpt;

use crate::cli::failure::{Failure, failure};

/// Where the peer listens when no port is said.
const PORT: u16 = 7789;

/// The flags.
#[derive(Debug, StructOpt)]
pub(crate) struct Options {
    /// Name of the group
    group: GroupName,
    /// A volume to protect, as /dev/VG/LV or NAME=/dev/VG/LV; the VM opens /dev/mapper/NAME. May be repeated
    #[structopt(long = "volume", value_name = "VOLUME", number_of_values = 1, parse(try_from_str = volume))]
    volumes: Vec<(StackName, PathBuf)>,
    /// Address on which this host listens: ADDRESS or ADDRESS:PORT
    #[structopt(long, parse(try_from_str = address))]
    address: Option<HostAddress>,
    /// Address on which the other host listens
    #[structopt(long, parse(try_from_str = address))]
    peer: Option<HostAddress>,
    /// The first role of this host: primary or backup
    #[structopt(long, default_value = "primary", parse(try_from_str = role))]
    role: Role,
    /// Time between two epochs
    #[structopt(long, default_value = "50ms", parse(try_from_str = duration))]
    epoch: Duration,
    /// Size of volumes that do not exist yet
    #[structopt(long, value_name = "SIZE")]
    size: Option<LvmSize>,
    /// Size of the journal. Default: an eighth of the volumes, 64 MiB to 16 GiB, and at least one epoch
    #[structopt(long, value_name = "SIZE")]
    journal: Option<LvmSize>,
    /// Highest rate at which the VM writes, in bytes per second. Sets the log's size
    #[structopt(long, value_name = "SIZE", default_value = "100MiB")]
    rate: LvmSize,
    /// Also create the logical volumes that this host lacks, and format the state and the journal
    #[structopt(long)]
    create_lvs: bool,
    /// Show what would be created, and create nothing
    #[structopt(long)]
    dry_run: bool,
}

fn volume(text: &str) -> Result<(StackName, PathBuf), String> {
    let (name, device) = match text.split_once('=') {
        Some((name, device)) => (name.to_owned(), PathBuf::from(device)),
        None => {
            let device = PathBuf::from(text);
            (device.file_name().unwrap_or_default().to_string_lossy().into_owned(), device)
        }
    };
    Ok((name.parse().map_err(|error| format!("{error}"))?, device))
}

fn address(text: &str) -> Result<HostAddress, NoAddress> {
    HostAddress::with_port(text, PORT)
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "primary" => Ok(Role::Primary),
        "backup" => Ok(Role::Backup),
        _ => Err("a role is primary or backup".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Asks until the answer is one. Where nobody can be asked, what is missing is an error.
fn asked<T, E: std::fmt::Display>(
    flag: &str,
    question: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(failure(Code::Usage, &format!("{flag} is missing: {question}")));
    }
    loop {
        ask!("{question} ");
        let mut line = String::new();
        let read = std::io::stderr().flush().and_then(|()| std::io::stdin().lock().read_line(&mut line));
        if read.map_err(|error| failure(Code::Failed, &error))? == 0 {
            return Err(failure(Code::Usage, &format!("{flag} is missing")));
        }
        match parse(line.trim()) {
            Ok(answer) => return Ok(answer),
            Err(error) => note!("{error}"),
        }
    }
}

pub(crate) fn init(options: Options) -> Result<(), Failure> {
    let mut volumes = options.volumes;
    if volumes.is_empty() {
        volumes.push(asked("--volume", "Which logical volume is to be protected (/dev/VG/LV)?", volume)?);
    }
    let wishes = Wishes {
        group: options.group,
        role: options.role,
        volumes,
        address: options.address.map_or_else(|| asked("--address", "This host's address?", address), Ok)?,
        peer: options.peer.map_or_else(|| asked("--peer", "The other host's address?", address), Ok)?,
        epoch: options.epoch,
        size: options.size.map(|LvmSize(size)| size),
        journal: options.journal.map(|LvmSize(size)| size),
        rate: options.rate.0,
    };
    let refused = |error: anyhow::Error| Failure { code: Code::Refused, text: format!("{error:#}") };
    let plan = plan(&wishes).map_err(refused)?;
    crate::cli::config::remark_on_kernel(false);
    if options.dry_run {
        return show(&plan);
    }
    let format = || match options.create_lvs {
        true => crate::cli::config::format(&plan.mine.0.display().to_string(), false),
        false => Ok(()),
    };
    plan.carry_out(options.create_lvs, format).map_err(|undone| match undone {
        Undone::Failed(error) => Failure { code: Code::Failed, text: format!("{error:#}") },
        Undone::Then(failure) => failure,
    })?;
    for (path, _) in [&plan.mine, &plan.theirs] {
        say!("{}: written", path.display())?;
    }
    for volume in &plan.volumes {
        let (path, size) = (volume.path(), volume.shown());
        if options.create_lvs {
            say!("{path}, {size}: made")?;
        } else {
            say!(
                "{path}, {size}: make it: lvcreate --name {} --size {}b {}",
                volume.name,
                volume.bytes,
                volume.group
            )?;
        }
    }
    next(&wishes, &plan, options.create_lvs)
}

/// What is to be done now.
fn next(wishes: &Wishes, plan: &Plan, is_formatted: bool) -> Result<(), Failure> {
    let group = &wishes.group;
    if !is_formatted {
        say!("then: ftship format {group}")?;
    }
    if let Some(command) = &plan.command_there {
        say!("on the other host: {command}")?;
    }
    say!("then on both hosts: ftship keygen {group}; ftship pair {group}")?;
    say!("and: systemctl enable --now ftdm.target ftship@{group}.service")
}

fn show(plan: &Plan) -> Result<(), Failure> {
    for (path, text) in [&plan.mine, &plan.theirs] {
        say!("# {}\n{text}", path.display())?;
    }
    for volume in &plan.volumes {
        say!(
            "# lvcreate --name {} --size {}b {}   # {}",
            volume.name,
            volume.bytes,
            volume.group,
            volume.shown()
        )?;
    }
    match &plan.command_there {
        Some(command) => say!("# on the other host: {command}"),
        None => Ok(()),
    }
}
