//! The agent of a lab host: serves the driver over the device given as its argument.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result};
use ftdm_lab::agent::guest;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "the host's console is where this can be seen")]
            {
                eprintln!("lab-agent: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let path = std::env::args_os().nth(1).context("usage: lab-agent DEVICE")?;
    let line = OpenOptions::new().read(true).write(true).open(&path).context("cannot open the channel")?;
    if line.is_terminal() {
        make_raw(&line)?;
    }
    let writer = line.try_clone().context("cannot duplicate the channel")?;
    Ok(guest::serve(line, writer)?)
}

/// For a serial line: without this its line discipline would translate line ends and react to control characters.
fn make_raw(line: &File) -> Result<()> {
    let mut settings = tcgetattr(line).context("the channel is no terminal line")?;
    cfmakeraw(&mut settings);
    tcsetattr(line, SetArg::TCSANOW, &settings).context("cannot set the channel to raw mode")
}
