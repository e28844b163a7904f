//! Starting a daemon: the durable state decides the role, the configuration only names the devices.
//!
//! Always holds: nothing is listened on, connected to or captured before the state was read and every
//! device of the role was opened and checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use ftship_proto::state::Role;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::backup::BackupDriver;
use crate::config::Config;
use crate::primary::PrimaryDriver;
use crate::reactor::{Driver, Reactor};
use crate::state_file::StateFile;

/// Runs the daemon of a group until SIGTERM or SIGINT.
///
/// # Errors
/// When the state or a device cannot be used, another daemon serves the group, or the loop fails.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let mut state_file = StateFile::open(&config.state)?;
    let state = state_file.load()?;
    anyhow::ensure!(
        state.group_name == config.group,
        "state {} belongs to group {}, not {}: is `state` right in the configuration?",
        config.state.display(),
        state.group_name,
        config.group
    );
    let reactor = Reactor::new()?;
    let stopping = watch_signals(&reactor)?;
    // A promoted backup is the primary of its own generation, but has no stack to capture with yet.
    let runs_stack = state.role == Role::Primary && state.group.is_none();
    log::info!(
        "group {}: {} of generation {}",
        config.group,
        state.role,
        state.generation().map_or(0, |generation| generation.number)
    );
    let driver: Box<dyn Driver> = if runs_stack {
        Box::new(PrimaryDriver::new(config, state, state_file, &reactor)?)
    } else {
        Box::new(BackupDriver::new(config, state, state_file, &reactor)?)
    };
    let result = reactor.run(config.group.as_str(), driver, &|| stopping.load(Ordering::Relaxed));
    log::info!("group {}: stopped", config.group);
    result
}

/// A flag that SIGTERM and SIGINT raise, waking the loop.
fn watch_signals(reactor: &Reactor) -> anyhow::Result<Arc<AtomicBool>> {
    let stopping = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("watching for signals")?;
    let (flag, waker) = (Arc::clone(&stopping), Arc::clone(reactor.waker()));
    std::thread::Builder::new()
        .name("signals".into())
        .stack_size(64 << 10)
        .spawn(move || {
            for signal in signals.forever() {
                log::info!("signal {signal}: stopping");
                flag.store(true, Ordering::Relaxed);
                if let Err(error) = waker.wake() {
                    log::error!("the event loop cannot be woken: {error}");
                }
            }
        })
        .context("starting the signal thread")?;
    Ok(stopping)
}
