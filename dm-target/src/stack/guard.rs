//! A second process that ends a pause when the one that began it cannot: for commands, which no daemon's watchdog
//! stands by.
//!
//! The command starts its own program as the guard, waits until that has greeted, and sends it one byte per
//! beat. The guard brings the volume back when the line ends within a pause, or is silent there for too long;
//! it ends when the line does.
//!
//! Always holds: what the guard needs was opened, and its memory locked, before it greeted; it touches nothing
//! outside a pause. A pause that it ended is noticed by the command, which verifies before it resumes.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::{Rescue, Stack};
use crate::ioctl::{Urgency, enter_io_path, set_urgency};
use crate::pause::pulse::{Phase, Pulse};

/// The greeting.
const READY: u8 = b'g';
/// A pause begins, or goes on.
const PAUSED: u8 = b'p';
/// The volume runs.
const RUNS: u8 = b'r';
/// How long one step of a pause may take.
const SILENCE: Duration = Duration::from_secs(2);
const PRIORITY: u8 = 20;

/// The command's end of the line.
#[derive(Debug)]
pub struct Guard {
    line: Mutex<ChildStdin>,
    process: Child,
}

impl Guard {
    /// Starts `command`, which is to run [`stand_by`], and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, or does not get ready: its standard error says why.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        // A process group of its own: what ends the command's must not end the guard.
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn();
        let mut process = started?;
        let (Some(line), Some(mut answer)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(ErrorKind::BrokenPipe.into());
        };
        let mut greeting = [0];
        answer.read_exact(&mut greeting)?;
        if greeting != [READY] {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(Self { line: Mutex::new(line), process })
    }
}

impl Pulse for Guard {
    fn beat(&self, phase: Phase) -> bool {
        let byte = if phase == Phase::Tracking { RUNS } else { PAUSED };
        self.line.lock().is_ok_and(|mut line| line.write_all(&[byte]).is_ok())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It ends with its line, which is closed only after this.
        if let Ok(mut line) = self.line.lock()
            && let Err(e) = line.write_all(&[RUNS])
        {
            log::debug!("the guard has ended: {e}");
        }
        if let Err(e) = self.process.try_wait() {
            log::debug!("the guard: {e}");
        }
    }
}

/// Stands by for `stack`: greets on `answer`, then hears beats from `line` until that ends.
///
/// # Errors
/// When memory cannot be locked, or the volume not be brought back.
pub fn stand_by(
    stack: Stack,
    mut line: impl Read + Send + 'static,
    answer: &mut impl Write,
) -> io::Result<()> {
    enter_io_path()?;
    if let Err(e) = set_urgency(Urgency::RealTime(PRIORITY)) {
        log::debug!("the guard has no real-time priority: {e}");
    }
    let mut rescue = Rescue::prepare(stack).map_err(io::Error::other)?;
    let (sender, beats) = mpsc::channel();
    std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
        let mut byte = [0];
        while line.read_exact(&mut byte).is_ok() && sender.send(byte[0]).is_ok() {}
    })?;
    answer.write_all(&[READY])?;
    answer.flush()?;
    let mut is_paused = false;
    loop {
        match beats.recv_timeout(SILENCE) {
            Ok(beat) => is_paused = beat == PAUSED,
            Err(RecvTimeoutError::Timeout) if !is_paused => {}
            Err(ended) => {
                // A suspend that still drains holds nobody back who would not wait for the disk anyway.
                if is_paused && rescue.is_suspended()? {
                    log::error!("{} was left in a pause: it goes on", rescue.stack().name());
                    rescue.act()?;
                }
                if ended == RecvTimeoutError::Disconnected {
                    return Ok(());
                }
            }
        }
    }
}
