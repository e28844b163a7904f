//! Hosts that are user-mode-linux kernels.
//!
//! The kernel is a program in a cage ([`super::cage`]), so its root file system can be the machine's
//! own programs through hostfs. What must hold: see [`super`].

use std::path::Path;

use anyhow::{Result, bail};

use super::cage::{self, AGENT, NETWORK};
use super::{Backend, Boot, Host};

/// The program that is the kernel, and where Debian's package puts its modules.
const KERNEL: &str = "/usr/bin/linux.uml";
const MODULES: &str = "/usr/lib/uml/modules";

/// The back end `uml`.
#[derive(Debug)]
pub struct UserModeLinux;

impl Backend for UserModeLinux {
    fn prepare(&self, _say: &dyn Fn(&str)) -> Result<()> {
        for path in [KERNEL, MODULES] {
            if !Path::new(path).exists() {
                bail!("{path} is missing: install the Debian package user-mode-linux");
            }
        }
        Ok(())
    }

    fn install(&self, _programs: &Path) -> Result<()> {
        Ok(())
    }

    fn slowness(&self) -> u32 {
        1
    }

    fn boot(&self, boot: Boot) -> Result<Box<dyn Host>> {
        let command = command(&boot);
        cage::start(boot, command, None)
    }
}

/// The kernel with its command line.
fn command(boot: &Boot) -> Vec<String> {
    let mut line = vec![
        KERNEL.to_owned(),
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
    ];
    line.extend(boot.kernel_words("uml"));
    line.extend(boot.disks.iter().map(|disk| format!("virtio_uml.device=/lab/sockets/{disk}:2")));
    line
}
