//! Hosts that are user-mode-linux kernels.
//!
//! The kernel runs as an unprivileged user in a cage (`guest/cage.sh`): its own mount, process and
//! network namespaces with a root of read-only bind mounts, so that its root file system can be the
//! machine's own programs through hostfs. What must hold: see [`super`]. The lifeline is a pipe
//! whose writing end only the driver has; when it closes, the cage ends.

use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use command_fds::{CommandFdExt, FdMapping};

use super::{Backend, Boot, Host};

/// The script that builds the cage.
const CAGE: &str = include_str!("../../guest/cage.sh");

/// The program that is the kernel, and where Debian's package puts its modules.
const KERNEL: &str = "/usr/bin/linux.uml";
const MODULES: &str = "/usr/lib/uml/modules";

/// The back end `uml`.
#[derive(Debug)]
pub struct UserModeLinux;

#[derive(Debug)]
struct UmlHost {
    cage: Child,
    /// Its only purpose is to be closed when the driver ends.
    _lifeline: PipeWriter,
}

impl Backend for UserModeLinux {
    fn check(&self) -> Result<()> {
        for path in [KERNEL, MODULES] {
            if !Path::new(path).exists() {
                bail!("{path} is missing: install the Debian package user-mode-linux");
            }
        }
        Ok(())
    }

    fn boot(&self, boot: Boot) -> Result<Box<dyn Host>> {
        let (lifeline, writer) = io::pipe().context("cannot make the host's lifeline")?;
        let (console, console_writer) = io::pipe().context("cannot make the host's console")?;
        let log = File::options().create(true).append(true).open(&boot.console);
        let mut log = log.with_context(|| format!("cannot open {}", boot.console.display()))?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--net", "--fork", "--kill-child=KILL", "bash", "-c", CAGE, "cage"])
            .args(kernel_command_line(&boot))
            .env("CAGE", &boot.scratch)
            .env("LAB_BIN", &boot.programs)
            .env("LAB_SOCKETS", &boot.sockets)
            .env("SHARE", &boot.share)
            .env("MEMORY_MIB", boot.memory_mib.to_string())
            .stdin(Stdio::null())
            .stdout(console_writer.try_clone().context("cannot duplicate the console")?)
            .stderr(console_writer)
            .process_group(0);
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        command.fd_mappings(vec![
            mapping(boot.agent, 3),
            mapping(boot.network, 4),
            mapping(lifeline.into(), 5),
        ])?;
        let cage = command.spawn().context("cannot start `unshare` (package util-linux)")?;
        // The descriptors that belong to the host must not stay open here: their end tells of its.
        drop(command);
        thread::spawn(move || {
            let mut console = console;
            // Ends with the host.
            let _ = io::copy(&mut console, &mut log);
        });
        Ok(Box::new(UmlHost { cage, _lifeline: writer }))
    }
}

fn kernel_command_line(boot: &Boot) -> Vec<String> {
    let index = boot.address.rsplit('.').next().unwrap_or("0");
    let mut line = vec![
        KERNEL.to_owned(),
        "root=/dev/root".to_owned(),
        "rootfstype=hostfs".to_owned(),
        "rootflags=/".to_owned(),
        "init=/lab/bin/init.sh".to_owned(),
        "con=null".to_owned(),
        "con0=null,fd:1".to_owned(),
        "ssl=null".to_owned(),
        "ssl0=fd:3,fd:3".to_owned(),
        format!("vec0:transport=fd,fd=4,vec=0,mtu=9000,mac=02:00:00:00:00:0{index}"),
        format!("mem={}M", boot.memory_mib),
        "panic=1".to_owned(),
        format!("LAB_HOST={}", boot.name),
        format!("LAB_ADDRESS={}", boot.address),
    ];
    line.extend(boot.disks.iter().map(|disk| format!("virtio_uml.device=/lab/sockets/{disk}:2")));
    line
}

impl Host for UmlHost {
    fn kill(&mut self) -> Result<()> {
        // The cage's process 1 dies with its parent, and everything in the cage with that.
        self.cage.kill().context("cannot kill the host")?;
        self.cage.wait().context("cannot wait for the host's end")?;
        Ok(())
    }
}

impl Drop for UmlHost {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.kill();
    }
}
