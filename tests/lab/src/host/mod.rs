//! Hosts: a kernel with its own memory that boots, runs and dies without a goodbye.
//!
//! This is the seam between the lab and whatever runs the kernels. A back end gets the disks as
//! vhost-user sockets, the network as a datagram socket (one Ethernet frame per datagram) and the
//! agent's channel as a stream socket. What must hold for each: after [`Host::kill`] and the end of
//! the agent's channel no process of the host exists any more; when the driver dies, however that
//! happens, so do its hosts; and a host can write to nothing but its disks and the share.

pub mod uml;

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Result, bail};

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

/// A way to run kernels.
pub trait Backend: Debug + Send + Sync {
    /// Checks that the machine has what is needed, with an error that says what to do.
    ///
    /// # Errors
    /// When something is missing.
    fn check(&self) -> Result<()>;

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
}

/// Names of the back ends that exist.
pub const BACKENDS: [&str; 1] = ["uml"];

/// The back end of this name.
///
/// # Errors
/// When there is none.
pub fn backend(name: &str) -> Result<Box<dyn Backend>> {
    match name {
        "uml" => Ok(Box::new(uml::UserModeLinux)),
        _ => bail!("there is no back end `{name}`; available: {}", BACKENDS.join(", ")),
    }
}
