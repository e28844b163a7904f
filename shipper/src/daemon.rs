//! Starting a daemon: the durable state decides the role, the configuration only names the devices. When a role
//! has ended, by a promote or a demote, the same process reads the state anew and goes on in the other one.
//!
//! Always holds: nothing is listened on, connected to or captured before the state was read and every
//! device of the role was opened and checked; of two roles the first has ended before the other begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use ftdm::stack::{Stack, StackError};
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
    let reactor = Reactor::new()?;
    let stopping = watch_signals(&reactor)?;
    let mut next = |reactor: &Reactor| role(config, reactor);
    let result = reactor.run(config.group.as_str(), &mut next, &|| stopping.load(Ordering::Relaxed));
    log::info!("group {}: stopped", config.group);
    result
}

/// The role that the durable state says.
fn role(config: &Config, reactor: &Reactor) -> anyhow::Result<Box<dyn Driver>> {
    let mut state_file = StateFile::open(&config.state)?;
    let state = state_file.load()?;
    anyhow::ensure!(
        state.group_name == config.group,
        "state {} belongs to group {}, not {}: is `state` right in the configuration?",
        config.state.display(),
        state.group_name,
        config.group
    );
    log::info!(
        "group {}: {} of generation {}",
        config.group,
        state.role,
        state.generation().map_or(0, |generation| generation.number)
    );
    // A backup that was promoted without stacks has nothing to capture with.
    let is_bare = state.group.is_some() && !has_stacks(config)?;
    Ok(if state.role == Role::Primary && !is_bare {
        Box::new(PrimaryDriver::new(config, state, state_file, reactor)?)
    } else {
        Box::new(BackupDriver::new(config, state, state_file, reactor)?)
    })
}

/// Whether there is a stack of each volume's name on this host.
///
/// # Errors
/// When device-mapper cannot be asked, or one is not as it should be.
pub(crate) fn has_stacks(config: &Config) -> anyhow::Result<bool> {
    for volume in &config.volume {
        match Stack::open(&volume.name) {
            Ok(_) => {}
            Err(StackError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("volume {}", volume.name)),
        }
    }
    Ok(true)
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
