//! Running other programs.
//!
//! Always holds: a program that does not end in its time is killed with all that it started, and what it prints never
//! makes it wait.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Most that is kept of what a program prints; the rest is read and thrown away.
const MAX_OUTPUT: u64 = 16 << 20;

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started, does not end within `patience`, or fails; then with what it said.
pub(crate) fn run(command: &mut Command, patience: Duration) -> anyhow::Result<String> {
    run_while(command, patience, || true)
}

/// The same, for as long as it is wanted.
///
/// # Errors
/// Also when it was killed because it is not wanted any more.
pub(crate) fn run_while(
    command: &mut Command,
    patience: Duration,
    is_wanted: impl Fn() -> bool,
) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| name.clone())?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    // Both pipes are read while it runs: one that fills would stop it.
    std::thread::scope(|scope| {
        let output = scope.spawn(|| text(output));
        let errors = scope.spawn(|| text(errors));
        let status = wait(&mut child, patience, &is_wanted).with_context(|| name.clone());
        let output = output.join().unwrap_or_default();
        let errors = errors.join().unwrap_or_default();
        match status? {
            Some(status) if status.success() => Ok(output),
            Some(status) if errors.trim().is_empty() => anyhow::bail!("{name}: {status}"),
            Some(_) => anyhow::bail!("{name}: {}", errors.trim()),
            None if !is_wanted() => anyhow::bail!("{name} was killed: it is not wanted any more"),
            None => anyhow::bail!("{name} did not end within {patience:?} and was killed {}", errors.trim()),
        }
    })
}

/// Waits; `None`: it had to be killed. Whoever holds its pipes is gone afterwards either way.
fn wait(
    child: &mut Child,
    patience: Duration,
    is_wanted: impl Fn() -> bool,
) -> std::io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > patience || !is_wanted() {
            break None;
        }
        std::thread::sleep(LOOK);
    };
    // What it left behind would keep the pipes open.
    let _ = killpg(group, Signal::SIGKILL);
    if ended.is_none() {
        child.wait()?;
    }
    Ok(ended)
}

fn text(pipe: Option<impl Read>) -> String {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        // Unreadable output is no reason to fail: the exit status tells.
        let _ = (&mut pipe).take(MAX_OUTPUT).read_to_end(&mut kept);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: Duration) -> anyhow::Result<String> {
        run(Command::new("sh").args(["-c", script]), patience)
    }

    #[test]
    fn more_output_than_a_pipe_holds_comes_back_whole() {
        let output = shell(
            "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero >&2",
            Duration::from_secs(30),
        );
        assert_eq!(output.expect("it ends").len(), 300_000);
    }

    #[test]
    fn one_that_does_not_end_is_killed_with_what_it_started() {
        let begun = Instant::now();
        let error = shell("sleep 100 & sleep 100", Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn one_that_is_not_wanted_any_more_is_killed() {
        let begun = Instant::now();
        let is_wanted = || begun.elapsed() < Duration::from_millis(100);
        let error =
            run_while(Command::new("sleep").arg("100"), Duration::from_secs(60), is_wanted).unwrap_err();
        assert!(error.to_string().contains("not wanted"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn what_it_leaves_behind_does_not_keep_us() {
        let begun = Instant::now();
        assert_eq!(shell("sleep 100 & echo done", Duration::from_secs(60)).expect("it ends"), "done\n");
        assert!(begun.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        assert_eq!(
            shell("echo no room >&2; exit 5", Duration::from_secs(30)).unwrap_err().to_string(),
            "sh: no room"
        );
        assert_eq!(shell("exit 5", Duration::from_secs(30)).unwrap_err().to_string(), "sh: exit status: 5");
    }
}
