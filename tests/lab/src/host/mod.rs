//! Hosts: a kernel with its own memory that boots, runs and dies without a goodbye.
//!
//! This is the seam between the lab and whatever runs the kernels. A back end gets the disks as
//! vhost-user sockets, the network as a datagram socket (one Ethernet frame per datagram) and the
//! agent's channel as a stream socket. What must hold for each: after [`Host::kill`] and the end of
//! the agent's channel no process of the host exists any more; when the driver dies, however that
//! happens, so do its hosts; and a host can write to nothing but its disks and the share.

mod cage;
mod initramfs;
pub mod qemu;
pub mod root_image;
pub mod uml;

use std::fmt::{self, Debug, Display};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use ftdm_lab_kernels::Kernel;

/// Everything that a host is started with.
#[derive(Debug)]
pub struct Boot {
    /// The host's name.
    pub name: String,
    /// Its IPv4 address on the link.
    pub address: String,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// The folder with the disks' sockets, and the sockets' names, `/dev/vda` first.
    pub sockets: PathBuf,
    /// The sockets' names in that folder.
    pub disks: Vec<String>,
    /// The device that it boots from, e.g. `/dev/vdb`; without one its root is the machine's, thrown away.
    pub root: Option<String>,
    /// The programs that go onto the host's path.
    pub programs: PathBuf,
    /// The folder that host and scenario share.
    pub share: PathBuf,
    /// An empty folder for the back end.
    pub scratch: PathBuf,
    /// The file that the console is appended to.
    pub console: PathBuf,
    /// The host's end of the link.
    pub network: OwnedFd,
    /// The host's end of the agent's channel.
    pub agent: OwnedFd,
}

impl Boot {
    /// The network interface's address.
    fn mac(&self) -> String {
        format!("02:00:00:00:00:0{}", self.address.rsplit('.').next().unwrap_or("0"))
    }

    /// Words of the kernel's command line that every host has: they become `init.sh`'s environment.
    fn kernel_words(&self, backend: &str) -> Vec<String> {
        let mut words = vec![
            "panic=1".to_owned(),
            format!("LAB_BACKEND={backend}"),
            format!("LAB_HOST={}", self.name),
            format!("LAB_ADDRESS={}", self.address),
        ];
        if let Some(root) = &self.root {
            words.push(format!("LAB_ROOT={root}"));
            // The interface keeps its name.
            words.push("net.ifnames=0".to_owned());
        }
        words
    }
}

/// A way to run kernels.
pub trait Backend: Debug + Send + Sync {
    /// Checks that the machine has what is needed, with an error that says what to do, and fetches
    /// what is only needed here; tells `say` before that takes long.
    ///
    /// # Errors
    /// When something is missing.
    fn prepare(&self, say: &dyn Fn(&str)) -> Result<()>;

    /// Puts what this back end's hosts start with beside a run's programs.
    ///
    /// # Errors
    /// When it cannot be made.
    fn install(&self, programs: &Path) -> Result<()>;

    /// What the hosts' kernel is, e.g. `user-mode-linux 6.1.176`; known once it is [prepared](Backend::prepare).
    ///
    /// # Errors
    /// When it is not there.
    fn kernel(&self) -> Result<String>;

    /// By how much every time-out is multiplied.
    fn slowness(&self) -> u32;

    /// Starts a host; it is ready when its agent says so.
    ///
    /// # Errors
    /// When the host cannot be started.
    fn boot(&self, boot: Boot) -> Result<Box<dyn Host>>;
}

/// A host that was started.
pub trait Host: Debug + Send {
    /// Ends the host at once, as a power cut does. Harmless when it has ended already.
    ///
    /// # Errors
    /// When it cannot be ended.
    fn kill(&mut self) -> Result<()>;

    /// Waits at most `patience` for an end that the host came to by itself; then its console is complete. Returns the
    /// exit code of what ran it, 128 + N after signal N; `None` when it still runs.
    fn wait_end(&mut self, patience: Duration) -> Option<i32>;
}

/// The back ends that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// User-mode-linux: quick, one CPU.
    Uml,
    /// QEMU without KVM: a distribution's kernel, two CPUs, slow.
    Qemu,
    /// The same but for the primary, whose clock counts its instructions: for figures.
    Icount,
}

impl Kind {
    /// All of them, the default first.
    pub const ALL: [Kind; 3] = [Kind::Uml, Kind::Qemu, Kind::Icount];

    /// Those whose disks and power switches work as the README says, for scenarios that name none.
    pub const FOR_ANY_SCENARIO: [Kind; 2] = [Kind::Uml, Kind::Qemu];

    /// The back end, with hosts that have `kernel`; what it fetches is kept in the folder `cache`.
    #[must_use]
    pub fn backend(self, kernel: Kernel, cache: &Path) -> Box<dyn Backend> {
        match self {
            Kind::Uml => Box::new(uml::UserModeLinux::new(kernel, cache)),
            Kind::Qemu => Box::new(qemu::Qemu::new(kernel, cache)),
            Kind::Icount => Box::new(qemu::Qemu::counting_instructions(kernel, cache)),
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Uml => "uml",
            Kind::Qemu => "qemu",
            Kind::Icount => "icount",
        })
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Kind::ALL.into_iter().find(|kind| kind.to_string() == name);
        found.with_context(|| format!("there is no back end `{name}`; available: {}", names(&Kind::ALL)))
    }
}

/// Their names, for people.
#[must_use]
pub fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(Kind::to_string).collect::<Vec<_>>().join(", ")
}
