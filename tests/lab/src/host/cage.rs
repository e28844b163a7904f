//! The cage in which a host's kernel runs, whatever kind of kernel that is.
//!
//! `guest/cage.sh` gives the kernel, as an unprivileged user, its own mount, process and network
//! namespaces with a root of read-only bind mounts. What must hold: see [`super`]. The lifeline is
//! a pipe whose writing end only the driver has; when it closes, the cage ends.

use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};

use super::{Boot, Host};

/// The script that builds the cage.
const CAGE: &str = include_str!("../../guest/cage.sh");

/// The descriptor of the agent's channel (a stream socket) in the cage.
pub(super) const AGENT: i32 = 3;

/// The descriptor of the host's end of the link (a datagram socket) in the cage.
pub(super) const NETWORK: i32 = 4;

const LIFELINE: i32 = 5;

#[derive(Debug)]
struct Cage {
    process: Child,
    /// Writes the console's file.
    console: JoinHandle<()>,
    /// Its only purpose is to be closed when the driver ends.
    _lifeline: PipeWriter,
}

/// Runs `command` in a cage of its own; `kernel`, if any, is a folder that it sees as `/lab/kernel`.
///
/// # Errors
/// When the cage cannot be started.
pub(super) fn start(boot: Boot, command: Vec<String>, kernel: Option<&Path>) -> Result<Box<dyn Host>> {
    let (lifeline, writer) = io::pipe().context("cannot make the host's lifeline")?;
    let (console, console_writer) = io::pipe().context("cannot make the host's console")?;
    let log = File::options().create(true).append(true).open(&boot.console);
    let mut log = log.with_context(|| format!("cannot open {}", boot.console.display()))?;
    let mut cage = Command::new("unshare");
    cage.args(["--mount", "--pid", "--net", "--fork", "--kill-child=KILL", "bash", "-c", CAGE, "cage"])
        .args(command)
        .env("CAGE", &boot.scratch)
        .env("LAB_BIN", &boot.programs)
        .env("LAB_SOCKETS", &boot.sockets)
        .env("KERNEL_FOLDER", kernel.unwrap_or(Path::new("")))
        .env("SHARE", &boot.share)
        .env("MEMORY_MIB", boot.memory_mib.to_string())
        .stdin(Stdio::null())
        .stdout(console_writer.try_clone().context("cannot duplicate the console")?)
        .stderr(console_writer)
        .process_group(0);
    let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
    cage.fd_mappings(vec![
        mapping(boot.agent, AGENT),
        mapping(boot.network, NETWORK),
        mapping(lifeline.into(), LIFELINE),
    ])?;
    let process = cage.spawn().context("cannot start `unshare` (package util-linux)")?;
    // The descriptors that belong to the host must not stay open here: their end tells of its.
    drop(cage);
    let console = thread::spawn(move || {
        let mut console = console;
        // Ends with the host.
        let _ = io::copy(&mut console, &mut log);
    });
    Ok(Box::new(Cage { process, console, _lifeline: writer }))
}

impl Host for Cage {
    fn kill(&mut self) -> Result<()> {
        // The cage's process 1 dies with its parent, and everything in the cage with that.
        self.process.kill().context("cannot kill the host")?;
        self.process.wait().context("cannot wait for the host's end")?;
        Ok(())
    }

    fn wait_end(&mut self, patience: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            // A process that cannot be asked has ended.
            let status = self.process.try_wait().ok().flatten();
            let complete = status.is_some() && self.console.is_finished();
            if complete || begun.elapsed() > patience {
                return status.map(|status| status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.kill();
    }
}
