//! A trial: boots a user-mode-linux in the lab's cage until its first process speaks.
//!
//! What must hold: nothing of it is left afterwards, whatever happens.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::death;
use crate::registers::LIBRARY;
use crate::uml::Uml;

/// The cage, and how it is entered: its lifeline, descriptor 5, is the standard input; its errors belong to the console.
const CAGE: &str = include_str!("../../guest/cage.sh");
const ENTER: &str = "exec 5<&0 </dev/null 2>&1; exec unshare --mount --pid --net --fork --kill-child=KILL bash -c \"$CAGE_SCRIPT\" cage \"$@\"";

/// The host's first process, and what it says. It computes a little, with the registers that matter.
const INIT: &str = "#!/bin/bash\nawk 'BEGIN { print \"lab-trial: \" 0.25 * 4 * 42 }'\nsleep 60\n";
const SAYS: &str = "lab-trial: 42";

const MEMORY_MIB: u32 = 128;
const PATIENCE: Duration = Duration::from_secs(60);

/// Boots `uml`; `programs` is the folder with the library that older kernels may need. Returns how long it took.
///
/// # Errors
/// When it does not come up, with its last words and what helps.
pub fn boot(uml: &Uml, programs: &Path) -> Result<Duration> {
    let folder = Scratch::new(programs)?;
    let begun = Instant::now();
    let mut running = start(uml, &folder.0)?;
    let output = running.stdout.take().context("the trial has no output")?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let mut console = String::new();
    let spoken = loop {
        match lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
            Ok(line) if line.contains(SAYS) => break Some(begun.elapsed()),
            Ok(line) => console.push_str(&format!("{line}\n")),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break None,
        }
    };
    // One that never spoke may have ended by itself: its code tells how. The others end with their lifeline.
    let code = running.try_wait()?.map(|status| status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
    drop(running.stdin.take());
    running.wait().context("cannot wait for the trial's end")?;
    drop(lines);
    let _ = reader.join();
    match spoken {
        Some(time) => Ok(time),
        None => bail!(
            "it does not boot\n{}",
            death::explain(&console, &format!("user-mode-linux {}", uml.release()?), code)
        ),
    }
}

fn start(uml: &Uml, folder: &Path) -> Result<Child> {
    Command::new("bash")
        .args(["-c", ENTER, "trial"])
        .args(uml.command("/lab/bin")?)
        .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "init=/lab/bin/trial.sh", "panic=1"])
        .args(["con=null", "con0=null,fd:1"])
        .arg(format!("mem={MEMORY_MIB}M"))
        .env("CAGE_SCRIPT", CAGE)
        .env("CAGE", folder.join("cage"))
        .env("LAB_BIN", folder.join("bin"))
        .env("LAB_SOCKETS", folder.join("share"))
        .env("SHARE", folder.join("share"))
        .env("KERNEL_FOLDER", uml.folder().unwrap_or(Path::new("")))
        .env("MEMORY_MIB", MEMORY_MIB.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run bash")
}

/// A folder that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new(programs: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("lab-trial-{}", std::process::id()));
        let scratch = Scratch(folder);
        for part in ["cage", "bin", "share"] {
            fs::create_dir_all(scratch.0.join(part)).context("cannot make a temporary folder")?;
        }
        let script = scratch.0.join("bin/trial.sh");
        fs::write(&script, INIT).context("cannot write a temporary file")?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .context("cannot make a script executable")?;
        if programs.join(LIBRARY).exists() {
            fs::copy(programs.join(LIBRARY), scratch.0.join("bin").join(LIBRARY))
                .context("cannot copy the library")?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is only a waste of space.
        let _ = fs::remove_dir_all(&self.0);
    }
}
