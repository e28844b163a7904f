//! The verbs, their options and words, as `--help` shows them.
//!
//! Always holds: what dmsetup takes is taken; the line comes in the form of [`super::getopt`].

use std::ffi::OsString;

use ftdm::discard::Discards;
use ftdm::table::BlockSectors;
use ftdm::units::Era;
use structopt::StructOpt;
use structopt::clap::{AppSettings, Shell};

pub(crate) const AFTER_HELP: &str = "\
Each verb has its own --help. Long options may be abbreviated, and options may stand anywhere.

TABLE:
    START SECTORS TARGET PARAMETERS, a line for each target: what dmsetup takes. And:
    0 SECTORS ft METADATA ORIGIN BLOCK_SECTORS
    SECTORS        size of the visible device, at most the origin's
    METADATA       device that keeps dm-era's state: blank, or from the same volume
    ORIGIN         the volume to protect
    BLOCK_SECTORS  tracking granule, a multiple of 8

EXIT CODES:
    0  done, or already so
    1  a step failed, or dmsetup would end with 1
    2  wrong arguments of a verb that dmsetup does not have, or a wrong `ft` line
    3  no such ftdm device
    4  in use, or refused by a check; nothing was changed
    5  the kernel lacks a module, or fixes that dm-era needs
    6  tracking was lost: the metadata's history does not go on, so that what
       changed is unknown";

/// What concerns all verbs.
#[derive(StructOpt)]
#[structopt(about = "Device-mapper devices, and among them volumes that ftship replicates", after_help = AFTER_HELP,
    settings = &[AppSettings::DisableHelpSubcommand, AppSettings::DisableVersion, AppSettings::VersionlessSubcommands, AppSettings::ColorNever])]
pub(crate) struct Options {
    /// Says more: -v steps, -vv every device-mapper call
    #[structopt(short, long, parse(from_occurrences))]
    pub(crate) verbose: u8,
    /// The library's and the driver's version
    #[structopt(long)]
    pub(crate) version: bool,
    /// Taken for dmsetup's sake: nothing is left unchecked
    #[structopt(long)]
    #[allow(dead_code)]
    pub(crate) checks: bool,
    /// Answers yes to all questions
    #[structopt(short, long)]
    pub(crate) yes: bool,
    /// How names are mangled: auto, hex or none
    #[structopt(long)]
    pub(crate) manglename: Option<String>,
    /// Uses this cookie for udev, which somebody else waits for
    #[structopt(long)]
    pub(crate) udevcookie: Option<String>,
    /// Makes the nodes itself, not udev
    #[structopt(long)]
    pub(crate) noudevrules: bool,
    /// Does not wait for udev
    #[structopt(long)]
    pub(crate) noudevsync: bool,
    /// Corrects nodes that udev did not make as they should be
    #[structopt(long)]
    pub(crate) verifyudev: bool,
    #[structopt(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// Which device: by name, or by one of these.
#[derive(StructOpt, Clone, Default)]
pub(crate) struct Which {
    /// The device with this UUID
    #[structopt(short, long, parse(from_os_str))]
    pub(crate) uuid: Option<OsString>,
    /// The device with this major number
    #[structopt(short = "j", long, parse(from_os_str))]
    pub(crate) major: Option<OsString>,
    /// The device with this minor number
    #[structopt(short, long, parse(from_os_str))]
    pub(crate) minor: Option<OsString>,
    /// Only devices for which this holds
    #[structopt(short = "S", long, parse(from_os_str))]
    pub(crate) select: Option<OsString>,
    /// Names or paths
    #[structopt(parse(from_os_str))]
    pub(crate) devices: Vec<OsString>,
}

/// What makes a node for a device.
#[derive(StructOpt, Clone, Default)]
pub(crate) struct Node {
    /// Makes sure of the node when the device is created
    #[structopt(long)]
    pub(crate) addnodeoncreate: bool,
    /// Makes sure of the node when the device is resumed, which is usual
    #[structopt(long)]
    #[allow(dead_code)]
    pub(crate) addnodeonresume: bool,
    /// Read-ahead in sectors, [+]SECTORS, auto or none
    #[structopt(long)]
    pub(crate) readahead: Option<String>,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Create {
    /// The device's UUID
    #[structopt(short, long, parse(from_os_str))]
    pub(crate) uuid: Option<OsString>,
    /// The device's major number
    #[structopt(short = "j", long, parse(from_os_str))]
    pub(crate) major: Option<OsString>,
    /// The device's minor number
    #[structopt(short, long, parse(from_os_str))]
    pub(crate) minor: Option<OsString>,
    /// Owner of the node
    #[structopt(short = "U", long, parse(from_os_str))]
    pub(crate) uid: Option<OsString>,
    /// Group of the node
    #[structopt(short = "G", long, parse(from_os_str))]
    pub(crate) gid: Option<OsString>,
    /// Mode of the node, octal
    #[structopt(short = "M", long, parse(from_os_str))]
    pub(crate) mode: Option<OsString>,
    /// The device takes no writes
    #[structopt(short, long)]
    pub(crate) readonly: bool,
    /// Loads no table
    #[structopt(short, long)]
    pub(crate) notable: bool,
    /// The table, see TABLE; else it is read from a file or from standard input
    #[structopt(long, parse(from_os_str))]
    pub(crate) table: Option<OsString>,
    /// Whole devices: NAME,UUID,MINOR,FLAGS,LINE[,LINE]...[;NAME...], as a word or on standard input
    #[structopt(long)]
    pub(crate) concise: bool,
    #[structopt(flatten)]
    pub(crate) node: Node,
    /// ft: the last era in use. Metadata that is blank or older is refused (code 6)
    #[structopt(long, parse(try_from_str = era))]
    pub(crate) recorded_era: Option<Era>,
    /// ft: the guest's discards: off, or pass (accepted during a capture, and passed to the volume
    /// in small steps)
    #[structopt(long, default_value = "off")]
    pub(crate) discards: Discards,
    /// ft: accept any kernel. Without the fixes of dm-era a crash may hide changed blocks for good
    #[structopt(long)]
    pub(crate) allow_kernel: bool,
    /// NAME, and a file with the table
    #[structopt(parse(from_os_str))]
    pub(crate) words: Vec<OsString>,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Load {
    #[structopt(flatten)]
    pub(crate) which: Which,
    /// The table takes no writes
    #[structopt(short, long)]
    pub(crate) readonly: bool,
    /// The table, see TABLE; else it is read from a file or from standard input
    #[structopt(long, parse(from_os_str))]
    pub(crate) table: Option<OsString>,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Remove {
    #[structopt(flatten)]
    pub(crate) which: Which,
    /// Makes the device fail all I/O first
    #[structopt(short, long)]
    pub(crate) force: bool,
    /// Tries again for some seconds while it is open
    #[structopt(long)]
    pub(crate) retry: bool,
    /// Leaves a device that is open to the kernel, which removes it when it is closed
    #[structopt(long)]
    pub(crate) deferred: bool,
}

#[derive(StructOpt, Clone)]
pub(crate) struct RemoveAll {
    /// Makes devices that are open fail all I/O
    #[structopt(short, long)]
    pub(crate) force: bool,
    /// Leaves devices that are open to the kernel, which removes them when they are closed
    #[structopt(long)]
    pub(crate) deferred: bool,
    #[structopt(parse(from_os_str))]
    pub(crate) words: Vec<OsString>,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Suspend {
    #[structopt(flatten)]
    pub(crate) which: Which,
    /// Does not wait for I/O that is queued
    #[structopt(long)]
    pub(crate) noflush: bool,
    /// Does not freeze the file system on it
    #[structopt(long)]
    pub(crate) nolockfs: bool,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Resume {
    #[structopt(flatten)]
    pub(crate) suspend: Suspend,
    #[structopt(flatten)]
    pub(crate) node: Node,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Rename {
    #[structopt(flatten)]
    pub(crate) which: Which,
    /// Gives a UUID to a device that has none
    #[structopt(long)]
    pub(crate) setuuid: bool,
}

/// What is shown of tables and status lines.
#[derive(StructOpt, Clone)]
pub(crate) struct Lines {
    #[structopt(flatten)]
    pub(crate) which: Which,
    /// Only targets of this type
    #[structopt(long, parse(from_os_str))]
    pub(crate) target: Option<OsString>,
    /// The table that is loaded, not the live one
    #[structopt(long)]
    pub(crate) inactive: bool,
    /// Does not have thin pools commit their metadata first
    #[structopt(long)]
    pub(crate) noflush: bool,
    /// Hidden layers of ft devices too
    #[structopt(long)]
    pub(crate) all: bool,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Table {
    #[structopt(flatten)]
    pub(crate) lines: Lines,
    /// On one line, in the form of `create --concise`
    #[structopt(long)]
    pub(crate) concise: bool,
    /// Keys of encrypted devices too
    #[structopt(long)]
    pub(crate) showkeys: bool,
}

/// How columns are shown.
#[derive(StructOpt, Clone, Default)]
pub(crate) struct Columns {
    /// In columns
    #[structopt(short, long)]
    pub(crate) columns: bool,
    /// Which columns: NAME,...; +NAME,... adds to the usual ones; `help` lists them
    #[structopt(short, long, parse(from_os_str))]
    pub(crate) options: Option<OsString>,
    /// Sorts by these columns; `-` before one: downwards
    #[structopt(short = "O", long, parse(from_os_str))]
    pub(crate) sort: Option<OsString>,
    /// No line of headings
    #[structopt(long)]
    pub(crate) noheadings: bool,
    /// DM_COLUMN='VALUE'
    #[structopt(long)]
    pub(crate) nameprefixes: bool,
    /// No quotes around the values
    #[structopt(long)]
    pub(crate) unquoted: bool,
    /// A line for each column
    #[structopt(long)]
    pub(crate) rows: bool,
    /// Between the columns
    #[structopt(long, parse(from_os_str))]
    pub(crate) separator: Option<OsString>,
    /// So many times; 0: until it is interrupted
    #[structopt(long, parse(from_os_str))]
    pub(crate) count: Option<OsString>,
    /// So many seconds apart
    #[structopt(long, parse(from_os_str))]
    pub(crate) interval: Option<OsString>,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Info {
    #[structopt(flatten)]
    pub(crate) which: Which,
    #[structopt(flatten)]
    pub(crate) columns: Columns,
    /// Hidden layers of ft devices too
    #[structopt(long)]
    pub(crate) all: bool,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Splitname {
    #[structopt(flatten)]
    pub(crate) columns: Columns,
    /// Only if this holds
    #[structopt(short = "S", long, parse(from_os_str))]
    pub(crate) select: Option<OsString>,
    /// NAME, and the subsystem that made it
    #[structopt(parse(from_os_str))]
    pub(crate) words: Vec<OsString>,
}

#[derive(StructOpt, Clone)]
pub(crate) struct List {
    #[structopt(flatten)]
    pub(crate) which: Which,
    /// Only devices with a target of this type
    #[structopt(long, parse(from_os_str))]
    pub(crate) target: Option<OsString>,
    /// Runs this command for each device, whose name is added to it
    #[structopt(long, parse(from_os_str))]
    pub(crate) exec: Option<OsString>,
    /// As a tree, each device over those that it uses
    #[structopt(long)]
    pub(crate) tree: bool,
    /// How devices are named: devno, blkdevname or devname. With --tree: [no]device, blkdevname, active, open, rw,
    /// uuid; ascii, utf, vt100; compact, inverted, notrunc
    #[structopt(short, long, parse(from_os_str))]
    pub(crate) options: Option<OsString>,
    /// Hidden layers of ft devices too
    #[structopt(long)]
    pub(crate) all: bool,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Deps {
    #[structopt(flatten)]
    pub(crate) which: Which,
    /// How devices are named: devno, blkdevname or devname
    #[structopt(short, long, parse(from_os_str))]
    pub(crate) options: Option<OsString>,
    /// Of the table that is loaded, not of the live one
    #[structopt(long)]
    pub(crate) inactive: bool,
    /// Hidden layers of ft devices too
    #[structopt(long)]
    pub(crate) all: bool,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Wait {
    #[structopt(flatten)]
    pub(crate) which: Which,
    /// Does not have thin pools commit their metadata first
    #[structopt(long)]
    pub(crate) noflush: bool,
}

/// Words that are not looked at.
#[derive(StructOpt, Clone)]
#[allow(dead_code)]
pub(crate) struct AnyWords {
    #[structopt(parse(from_os_str))]
    pub(crate) words: Vec<OsString>,
}

#[derive(StructOpt, Clone)]
pub(crate) struct Words {
    #[structopt(parse(from_os_str))]
    pub(crate) words: Vec<OsString>,
}

#[derive(StructOpt)]
pub(crate) enum Verb {
    /// Creates a device
    Create(Create),
    /// Removes devices. The volume of an ft device keeps its content
    Remove(Remove),
    /// Removes all devices
    #[structopt(name = "remove_all")]
    RemoveAll(RemoveAll),
    /// Gives a device another name, or a UUID
    Rename(Rename),
    /// Holds a device's I/O back
    Suspend(Suspend),
    /// Lets a device's I/O go on, with the table that is loaded
    Resume(Resume),
    /// Loads a table, which the next resume makes live
    Load(Load),
    /// The same as load
    Reload(Load),
    /// Drops the table that is loaded and not live
    Clear(Which),
    /// Makes a device fail all I/O, and lets go of what it used
    #[structopt(name = "wipe_table")]
    WipeTable(Suspend),
    /// Sends a message to a target: DEVICE SECTOR MESSAGE
    Message(Which),
    /// Sets the geometry: DEVICE CYLINDERS HEADS SECTORS START
    Setgeometry(Which),
    /// Lists the devices
    Ls(List),
    /// Shows what a device is
    Info(Info),
    /// Shows tables
    Table(Table),
    /// Shows what targets say of themselves
    Status(Lines),
    /// Shows the devices that a device uses
    Deps(Deps),
    /// Waits for an event of a device: DEVICE [EVENT]
    Wait(Wait),
    /// Shows the parts of a name: NAME [SUBSYSTEM]
    Splitname(Splitname),
    /// Shows what would be measured of a device
    Measure(Which),
    /// Shows the targets that the kernel has
    Targets(Words),
    /// Shows the versions of these targets, whose modules are loaded if need be
    TargetVersion(Words),
    /// Shows the versions of the library and of the driver
    Version(Words),
    /// Makes the nodes in /dev/mapper right
    Mknodes(Which),
    /// Gives devices the names that udev can bear
    Mangle(Which),
    /// Statistics: see dmstats
    #[allow(dead_code)]
    Stats(AnyWords),
    /// Makes a cookie for udev
    Udevcreatecookie(Words),
    /// Waits for a cookie, and removes it
    Udevreleasecookie(Words),
    /// Says that an event of a cookie is dealt with: what udev's rules call
    Udevcomplete(Words),
    /// Says so of all cookies [older than so many minutes]
    #[structopt(name = "udevcomplete_all")]
    UdevcompleteAll(Words),
    /// Lists the cookies
    Udevcookies(Words),
    /// Shows what a cookie tells udev's rules
    Udevflags(Words),
    /// Lists the verbs; with --columns the columns of `info` too
    Help(Splitname),
    /// Lists what was written in era ERA and later, as `START SECTORS` lines. Then `next-era ERA`,
    /// the value to pass next time, and `pause-us N`, how long the volume was suspended
    WrittenSince {
        /// Name of the visible device
        name: String,
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
        name: String,
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
        name: String,
        /// Even if dm-era's metadata does not fail
        #[structopt(short, long)]
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
