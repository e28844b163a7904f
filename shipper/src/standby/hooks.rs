//! The hooks of an interval's epoch, run by a process of their own: it freezes the guest, waits until it is told or its
//! starter is gone, and thaws.
//!
//! Always holds: the thaw follows the freeze, whether that succeeded or not, whether the daemon lives or not, at the latest
//! when the time-out is over; a mark in `/run` says that it has not been done yet, and how to do it. A mark that no
//! process holds is a leftover: the next daemon thaws before it does anything else, in any role, and so does the service
//! manager after each end of the daemon, because it may end this process together with the daemon. Each hook ends in its
//! time, or is killed with all that it started.

mod mark;

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::pause::signals::HeldSignals;
use ftship_proto::ids::Epoch;
use ftship_proto::text::one_line;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::Config;
use crate::runtime::command;
use crate::runtime::reactor::Reports;
use crate::runtime::worker::Worker;
use mark::Mark;
pub use mark::{thaw_after_the_end, thaw_leftover};

/// What the process says, each in a line: when the guest is frozen, when it could not be, and at its end.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Frozen,
    /// Nobody said anything within the time-out: it thaws by itself.
    Expired,
    Thawed,
    Failed(String),
}

const FAILED: &str = "failed: ";

impl Word {
    /// `None`: no such word. It never passes for a success.
    fn parse(line: &str) -> Option<Self> {
        match line {
            "frozen" => Some(Self::Frozen),
            "expired" => Some(Self::Expired),
            "thawed" => Some(Self::Thawed),
            other => other.strip_prefix(FAILED).map(|reason| Self::Failed(reason.to_owned())),
        }
    }

    fn failed(error: &anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen => f.write_str("frozen"),
            Self::Expired => f.write_str("expired"),
            Self::Thawed => f.write_str("thawed"),
            // A hook's words may have several lines, and any of them could be a word of this process.
            Self::Failed(reason) => write!(f, "{FAILED}{}", one_line(reason)),
        }
    }
}

/// What it is told; the end of the line means the same.
const THAW: &[u8] = b"thaw\n";

/// Freezes, waits, thaws; see the head of this module. What is read and written is the daemon's.
///
/// # Errors
/// When nobody listens any more; the thaw was run all the same.
pub fn hold(config: &Config, epoch: u64, mut out: impl Write) -> anyhow::Result<()> {
    // Whoever ends the daemon's service may mean this process too: it has something to do first.
    let _unasked = HeldSignals::hold();
    let mark = Mark::set(config, epoch)?;
    let frozen = freeze(config, epoch);
    let said = match &frozen {
        Ok(()) => writeln!(out, "{}", Word::Frozen),
        Err(_) => Ok(()),
    };
    if frozen.is_ok() && said.is_ok() && !wait(config.hooks.timeout) {
        // Before the guest goes on; whoever does not listen any more need not hear it.
        let _ = writeln!(out, "{}", Word::Expired);
    }
    let thawed = mark.thaw();
    if let Err(error) = frozen {
        writeln!(out, "{}", Word::failed(&error))?;
    }
    let last = thawed.map_or_else(|error| Word::failed(&error), |()| Word::Thawed);
    writeln!(out, "{last}")?;
    Ok(said?)
}

/// Until the other end says something or closes its line. Returns whether it did.
fn wait(limit: Duration) -> bool {
    let ends = Instant::now() + limit;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        if is_asked(left) {
            return true;
        }
    }
}

/// Whether the other end says something, or has closed its line, within this time.
fn is_asked(within: Duration) -> bool {
    let input = std::io::stdin();
    let within = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, within) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => false,
        // Nobody could ask any more.
        Ok(_) | Err(_) => true,
    }
}

/// Freezes the guest, unless the thaw is asked for before that is done.
fn freeze(config: &Config, epoch: u64) -> anyhow::Result<()> {
    let Some(mut hook) = command_of(config.group.as_str(), &config.hooks.freeze, epoch) else {
        return Ok(());
    };
    command::run_while(&mut hook, config.hooks.timeout, || !is_asked(Duration::ZERO)).map(drop)
}

fn thaw(group: &str, hook: &[String], epoch: u64, patience: Duration) -> anyhow::Result<()> {
    let Some(mut hook) = command_of(group, hook, epoch) else { return Ok(()) };
    command::run(&mut hook, patience).map(drop)
}

/// `None`: there is no such hook.
fn command_of(group: &str, hook: &[String], epoch: u64) -> Option<Command> {
    let (program, arguments) = hook.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).env("FTDM_GROUP", group).env("FTDM_EPOCH", epoch.to_string());
    Some(command)
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
    /// It goes on, though nobody ordered that.
    Expired {
        /// As ordered.
        token: u64,
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
    /// Starts the thread.
    ///
    /// # Errors
    /// When that cannot be.
    pub(crate) fn start(config: &Config, reports: Reports<HookReport>) -> anyhow::Result<Self> {
        let config = config.clone();
        let holding = Worker::start("hooks", 128 << 10, move |queue: Receiver<Order>| {
            for order in queue {
                let token = order.token;
                match spawn(&config, &order) {
                    Ok(Some(process)) => listen(&config, &order, process, &reports),
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
fn listen(config: &Config, order: &Order, mut process: Child, reports: &Reports<HookReport>) {
    let token = order.token;
    let froze = |result| reports.send(HookReport::Froze { token, result });
    let expired = || reports.send(HookReport::Expired { token });
    let output = process.stdout.take().map(BufReader::new);
    let (is_told, thawed) = output.map_or((false, None), |output| follow(output, froze, expired));
    // It was killed: the guest goes on, or is about to.
    if is_told && thawed.is_none() && !matches!(*lock(&order.line), Line::Closed) {
        expired();
    }
    if let Err(error) = process.wait() {
        log::warn!("the process that runs the hooks: {error}");
    }
    if !is_told {
        froze(Err("the process that runs the hooks was killed".to_owned()));
    }
    let thawed = thawed.unwrap_or_else(|| {
        let left = Mark::left(config.group.as_str()).map_err(|error| format!("{error:#}"))?;
        left.map_or(Ok(()), |mark| mark.thaw().map_err(|error| format!("{error:#}")))
    });
    reports.send(HookReport::Thawed(thawed));
}

/// Reads what the process says, to its end: gives on what became of the freeze, and that it thaws unasked, and returns whether it said that, and
/// what became of the thaw. `None`: it did not say.
fn follow(
    output: impl BufRead,
    froze: impl Fn(Result<(), String>),
    expired: impl Fn(),
) -> (bool, Option<Result<(), String>>) {
    let (mut is_told, mut thawed) = (false, None);
    for line in output.lines().map_while(Result::ok) {
        match Word::parse(&line) {
            Some(Word::Frozen) if !is_told => {
                is_told = true;
                froze(Ok(()));
            }
            Some(Word::Failed(reason)) if !is_told => {
                is_told = true;
                froze(Err(format!("the freeze hook failed: {reason}")));
            }
            Some(Word::Expired) => expired(),
            // A failure stays one: later lines change nothing.
            Some(Word::Failed(reason)) => thawed = Some(Err(reason)),
            Some(Word::Thawed) if thawed.is_none() => thawed = Some(Ok(())),
            _ => log::warn!("the process that runs the hooks says {line:?}, which is not expected here"),
        }
    }
    (is_told, thawed)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    type Outcome = Result<(), String>;

    /// What the daemon makes of these lines.
    fn heard(said: &str) -> (Vec<Outcome>, bool, Option<Outcome>) {
        let froze = RefCell::new(Vec::new());
        let (is_told, thawed) = follow(said.as_bytes(), |result| froze.borrow_mut().push(result), || {});
        (froze.into_inner(), is_told, thawed)
    }

    /// How a hook fails that says this.
    fn failure(script: &str) -> Word {
        let run = command::run(Command::new("sh").args(["-c", script]), Duration::from_secs(30));
        Word::failed(&run.unwrap_err())
    }

    #[test]
    fn a_thaw_that_fails_with_several_lines_has_failed() {
        let failed = failure("printf 'no agent\nthawed\n\nfrozen' >&2; exit 1");
        let (froze, _, thawed) = heard(&format!("{}\n{failed}\n", Word::Frozen));
        assert_eq!(froze, [Ok(())]);
        assert_eq!(thawed, Some(Err("sh: no agent thawed  frozen".into())));
    }

    #[test]
    fn a_freeze_that_fails_with_several_lines_has_failed_and_the_thaw_is_its_own() {
        let failed = failure("printf 'no agent\nthawed' >&2; exit 1");
        let (froze, is_told, thawed) = heard(&format!("{failed}\n{}\n", Word::Thawed));
        assert_eq!(froze, [Err("the freeze hook failed: sh: no agent thawed".into())]);
        assert_eq!((is_told, thawed), (true, Some(Ok(()))));
    }

    #[test]
    fn only_its_very_word_is_a_success() {
        assert_eq!(heard("frozen\nfailed: a\nb\nthawed\n").2, Some(Err("a".into())));
        assert_eq!(heard("frozen\nb\n").2, None, "the daemon thaws");
        assert_eq!(heard("b\n"), (Vec::new(), false, None));
        assert_eq!(heard(""), (Vec::new(), false, None));
        for word in [Word::Frozen, Word::Expired, Word::Thawed, Word::Failed("why".into())] {
            assert_eq!(Word::parse(&word.to_string()), Some(word));
        }
    }

    #[test]
    fn a_thaw_that_nobody_ordered_is_told_before_it_is_done() {
        let count = std::cell::Cell::new(0);
        let expired = || count.set(count.get() + 1);
        let end = follow("frozen\nexpired\nthawed\n".as_bytes(), |_| {}, expired);
        assert_eq!((end, count.get()), ((true, Some(Ok(()))), 1));
        follow("frozen\nthawed\n".as_bytes(), |_| {}, expired);
        assert_eq!(count.get(), 1);
    }
}
