//! The hooks of an interval's epoch, run by a process of their own: it freezes the guest, waits until it is told or its
//! starter is gone, and thaws.
//!
//! Always holds: the thaw follows the freeze, whether that succeeded or not, whether the daemon lives or not, at the latest
//! when the time-out is over; a mark in `/run` says that it has not been done yet, and whoever finds it thaws first. Each
//! hook ends in its time, or is killed with all that it started.

use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::pause::signals::HeldSignals;
use ftship_proto::ids::Epoch;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::command;
use crate::config::Config;
use crate::control::DIRECTORY;
use crate::reactor::Reports;
use crate::worker::Worker;

/// What the process says when the guest is frozen, when it could not be, and at its end.
const FROZEN: &str = "frozen";
const FAILED: &str = "failed: ";
const THAWED: &str = "thawed";
/// What it is told; the end of the line means the same.
const THAW: &[u8] = b"thaw\n";

/// Freezes, waits, thaws; see the head of this module. What is read and written is the daemon's.
///
/// # Errors
/// When nobody listens any more; the thaw was run all the same.
pub fn hold(config: &Config, epoch: u64, mut out: impl Write) -> anyhow::Result<()> {
    // Whoever ends the daemon's service may mean this process too: it has something to do first.
    let _unasked = HeldSignals::hold();
    let mark = mark(config);
    std::fs::write(&mark, format!("{epoch}\n")).with_context(|| mark.display().to_string())?;
    let frozen = run(config, &config.hooks.freeze, epoch);
    let said = match &frozen {
        Ok(()) => writeln!(out, "{FROZEN}"),
        Err(_) => Ok(()),
    };
    if frozen.is_ok() && said.is_ok() {
        wait(config.hooks.timeout);
    }
    let thawed = thaw(config, epoch);
    if let Err(error) = frozen {
        let text = format!("{error:#}").replace('\n', ", ");
        writeln!(out, "{FAILED}{text}")?;
    }
    match thawed {
        Ok(()) => writeln!(out, "{THAWED}")?,
        Err(error) => writeln!(out, "{FAILED}{error:#}")?,
    }
    Ok(said?)
}

/// Until the other end says something or closes its line.
fn wait(limit: Duration) {
    let input = std::io::stdin();
    let ends = Instant::now() + limit;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, left) {
            Err(nix::errno::Errno::EINTR) => {}
            _ => return,
        }
    }
}

fn mark(config: &Config) -> PathBuf {
    PathBuf::from(DIRECTORY).join(format!("{}.frozen", config.group))
}

/// Lets the guest go on.
///
/// # Errors
/// When the hook fails; the mark stays.
fn thaw(config: &Config, epoch: u64) -> anyhow::Result<()> {
    run(config, &config.hooks.thaw, epoch)?;
    std::fs::remove_file(mark(config)).with_context(|| mark(config).display().to_string())
}

/// Thaws what a daemon before left frozen, which nobody else did.
pub(crate) fn thaw_leftover(config: &Config) {
    if !mark(config).exists() || config.hooks.policy().is_none() {
        return;
    }
    log::warn!("a daemon before left the guest frozen: thawing it");
    if let Err(error) = thaw(config, 0) {
        log::error!("the thaw hook: {error:#}");
    }
}

fn run(config: &Config, hook: &[String], epoch: u64) -> anyhow::Result<()> {
    let Some((program, arguments)) = hook.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).env("FTDM_GROUP", config.group.as_str()).env("FTDM_EPOCH", epoch.to_string());
    command::run(&mut command, config.hooks.timeout).map(drop)
}

/// What became of hooks.
#[derive(Debug)]
pub(crate) enum HookReport {
    /// Whether the guest is frozen.
    Froze {
        /// As ordered.
        token: u64,
        /// Or why not.
        result: Result<(), String>,
    },
    /// It goes on: as it should, or why not.
    Thawed(Result<(), String>),
}

/// The daemon's end of the line to a process that holds the guest.
#[derive(Debug, Default)]
enum Line {
    /// It is not started yet.
    #[default]
    Waiting,
    /// As long as this is open the guest may be held.
    Open(Option<ChildStdin>),
    /// It is to thaw, or need not be started.
    Closed,
}

/// A freeze that was ordered.
#[derive(Debug)]
struct Order {
    token: u64,
    epoch: Epoch,
    line: Arc<Mutex<Line>>,
}

/// A thread that has the guest frozen and thawed, one freeze after the other.
#[derive(Debug)]
pub(crate) struct Hooks {
    holding: Worker<Order>,
    line: Arc<Mutex<Line>>,
}

impl Hooks {
    /// Starts the thread; thaws what a daemon before left frozen.
    ///
    /// # Errors
    /// When that cannot be.
    pub(crate) fn start(config: &Config, reports: Reports<HookReport>) -> anyhow::Result<Self> {
        let config = config.clone();
        let holding = Worker::start("hooks", 128 << 10, move |queue: Receiver<Order>| {
            thaw_leftover(&config);
            for order in queue {
                let (token, epoch) = (order.token, order.epoch.0);
                match spawn(&config, &order) {
                    Ok(Some(process)) => listen(&config, token, epoch, process, &reports),
                    Ok(None) => {}
                    Err(error) => {
                        let result = Err(format!("{error:#}"));
                        reports.send(HookReport::Froze { token, result });
                    }
                }
            }
        })?;
        Ok(Self { holding, line: Arc::default() })
    }

    /// Has the guest frozen.
    pub(crate) fn freeze(&mut self, token: u64, epoch: Epoch) {
        self.line = Arc::default();
        self.holding.push(Order { token, epoch, line: Arc::clone(&self.line) });
    }

    /// Has it thawed.
    pub(crate) fn thaw(&mut self) {
        if let Line::Open(Some(mut line)) = std::mem::replace(&mut *lock(&self.line), Line::Closed) {
            // Where that fails it sees the line's end, or is gone itself.
            let _ = line.write_all(THAW);
        }
    }
}

impl Drop for Hooks {
    /// The thread ends with the thaw, for which this waits.
    fn drop(&mut self) {
        self.thaw();
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the process, in a group of its own: what ends the daemon's must not end it. `None`: it is not wanted any more.
fn spawn(config: &Config, order: &Order) -> anyhow::Result<Option<Child>> {
    let mut line = lock(&order.line);
    if matches!(*line, Line::Closed) {
        return Ok(None);
    }
    let program = std::env::current_exe().context("finding this program")?;
    let mut process = Command::new(program)
        .args(["hold", &config.path.to_string_lossy(), &order.epoch.0.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting the process that runs the hooks")?;
    *line = Line::Open(process.stdin.take());
    Ok(Some(process))
}

/// Tells what the process says; does its work when it ends without.
fn listen(config: &Config, token: u64, epoch: u64, mut process: Child, reports: &Reports<HookReport>) {
    let (mut is_told, mut thawed) = (false, None);
    let lines = process.stdout.take().map(std::io::BufReader::new);
    for line in lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
        let result = match line.strip_prefix(FAILED) {
            Some(reason) => Err(reason.to_owned()),
            None => Ok(()),
        };
        match (&*line, is_told) {
            (THAWED, _) | (_, true) => thawed = Some(result),
            _ => {
                is_told = true;
                let result = result.map_err(|reason| format!("the freeze hook failed: {reason}"));
                reports.send(HookReport::Froze { token, result });
            }
        }
    }
    if let Err(error) = process.wait() {
        log::warn!("the process that runs the hooks: {error}");
    }
    if !is_told {
        let result = Err("the process that runs the hooks was killed".to_owned());
        reports.send(HookReport::Froze { token, result });
    }
    let thawed = thawed.unwrap_or_else(|| thaw(config, epoch).map_err(|error| format!("{error:#}")));
    reports.send(HookReport::Thawed(thawed));
}
