//! Hosts that are user-mode-linux kernels.
//!
//! The kernel is a program in a cage ([`super::cage`]), so its root file system can be the machine's
//! own programs through hostfs. What must hold: see [`super`].

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ftdm_lab_kernels::Kernel;
use ftdm_lab_kernels::uml::Uml;

use super::cage::{self, AGENT, NETWORK};
use super::{Backend, Boot, Host};

/// The back end `uml`.
#[derive(Debug)]
pub struct UserModeLinux {
    kernel: Kernel,
    cache: PathBuf,
    uml: Uml,
}

impl UserModeLinux {
    /// Hosts with `kernel`; one that is fetched is kept in the folder `cache`.
    #[must_use]
    pub fn new(kernel: Kernel, cache: &Path) -> Self {
        UserModeLinux { kernel, cache: cache.to_owned(), uml: Uml::new(kernel, cache) }
    }

    /// The kernel with its command line.
    fn command(&self, boot: &Boot) -> Result<Vec<String>> {
        let mut line = self.uml.command("/lab/bin")?;
        line.extend([
            "root=/dev/root".to_owned(),
            "rootfstype=hostfs".to_owned(),
            "rootflags=/".to_owned(),
            "init=/lab/bin/init.sh".to_owned(),
            "con=null".to_owned(),
            "con0=null,fd:1".to_owned(),
            "ssl=null".to_owned(),
            format!("ssl0=fd:{AGENT},fd:{AGENT}"),
            format!("vec0:transport=fd,fd={NETWORK},vec=0,mtu=9000,mac={}", boot.mac()),
            format!("mem={}M", boot.memory_mib),
        ]);
        line.extend(boot.kernel_words("uml"));
        line.extend(boot.disks.iter().map(|disk| format!("virtio_uml.device=/lab/sockets/{disk}:2")));
        Ok(line)
    }
}

impl Backend for UserModeLinux {
    fn prepare(&self, say: &dyn Fn(&str)) -> Result<()> {
        self.uml.provide(self.kernel, &self.cache, say).context("cannot provide the hosts' kernel")
    }

    fn install(&self, _programs: &Path) -> Result<()> {
        Ok(())
    }

    fn kernel(&self) -> Result<String> {
        Ok(format!("user-mode-linux {}", self.uml.release()?))
    }

    fn slowness(&self) -> u32 {
        1
    }

    fn boot(&self, boot: Boot) -> Result<Box<dyn Host>> {
        let command = self.command(&boot)?;
        cage::start(boot, command, self.uml.folder())
    }
}
