//! Starting a daemon: the durable state decides the role, the configuration only names the devices. When a role
//! has ended, by a promote or a demote, the same process reads the state anew and goes on in the other one.
//!
//! Always holds: nothing is listened on, connected to or captured before the state was read and every
//! device of the role was opened and checked; of two roles the first has ended before the other begins.

mod stranded;
mod vacating;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use ftdm::stack::{Stack, StackError};
use ftship_proto::state::Role;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::backup::BackupDriver;
use crate::config::{Commit, Config, Taken};
use crate::control::{Request, Response};
use crate::primary::PrimaryDriver;
use crate::runtime::reactor::{Driver, Reactor, Service};
use crate::runtime::supervisor::Supervisor;
use crate::store::state_file::{StateError, StateFile, of_another_group};
use crate::store::storage::StorageError;
use stranded::Stranded;
use vacating::Vacating;

/// Runs the daemon of a group until SIGTERM or SIGINT. A primary that is in sync commits a last epoch before it ends.
///
/// # Errors
/// When the state or a device cannot be used, another daemon serves the group, or the loop fails.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let reactor = Reactor::new()?;
    let mut group = Group {
        signals: watch_signals(&reactor)?,
        config: config.clone(),
        supervisor: Supervisor::from_environment(),
    };
    let result = reactor.run(config.group.as_str(), config.control_group.as_deref(), &mut group);
    log::info!("group {}: stopped", config.group);
    result
}

/// The group that this daemon serves.
#[derive(Debug)]
struct Group {
    config: Config,
    signals: Arc<Asked>,
    supervisor: Supervisor,
}

/// What signals have asked for.
#[derive(Debug, Default)]
struct Asked {
    stop: AtomicBool,
    reload: AtomicBool,
}

impl Service for Group {
    fn role(&mut self, reactor: &Reactor) -> anyhow::Result<Box<dyn Driver>> {
        let role = role(&self.config, reactor);
        self.supervisor.forget();
        role
    }

    fn stranded(&mut self, error: &anyhow::Error) -> Box<dyn Driver> {
        log::error!("the role cannot begin again yet: {error:#}");
        Box::new(Stranded::new(&self.config, format!("{error:#}")))
    }

    fn begun(&mut self, driver: &dyn Driver) {
        self.supervisor.ready(&driver.summary(Duration::ZERO));
    }

    fn last_request(&mut self) -> Option<(Request, Duration)> {
        self.signals.stop.load(Ordering::Relaxed).then(|| {
            self.supervisor.stopping();
            let staged = self.config.commit == Commit::External;
            (Request::Checkpoint { wait: true, staged, quiesced: false }, self.config.limits.timeout)
        })
    }

    fn wants_reload(&mut self) -> bool {
        self.signals.reload.swap(false, Ordering::Relaxed)
    }

    fn reload(&mut self, now: Duration, driver: &mut dyn Driver) -> Response {
        let taken = Config::load(&self.config.path).and_then(|new| self.config.take(&new));
        let Taken { live, restart, ignored } = match taken {
            Ok(taken) => taken,
            Err(error) => {
                log::error!("the configuration stays as it was: {error}");
                return Response::Refused { reason: format!("the configuration stays as it was:\n{error}") };
            }
        };
        driver.reload(now, &self.config);
        log::info!("configuration read again: in force {live:?}, after a restart {restart:?}");
        let named = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        Response::Reloaded { live: named(live), restart: named(restart), ignored: named(ignored) }
    }

    fn supervise(&mut self, now: Duration, driver: &dyn Driver) -> Option<Duration> {
        self.supervisor.live(now, || driver.summary(now))
    }
}

/// The role that the durable state says.
fn role(config: &Config, reactor: &Reactor) -> anyhow::Result<Box<dyn Driver>> {
    let opened = StateFile::open(&config.state).and_then(|mut file| file.load().map(|state| (file, state)));
    let (state_file, state) = opened.map_err(|error| match error {
        // Another process serves the group: nothing is lost.
        StateError::Storage(StorageError::InUse(_)) => error.into(),
        StateError::Storage(_) | StateError::Io { .. } | StateError::Damaged { .. } => {
            anyhow::anyhow!("{error}. {}", without_state(config))
        }
        other => other.into(),
    })?;
    if let Some(reason) = of_another_group(&config.state, &state, &config.group) {
        anyhow::bail!(reason);
    }
    if let Some(damage) = state_file.damage() {
        log::error!("{damage}");
    }
    log::info!("group {}: {} of generation {}", config.group, state.role, state.generation_number());
    if Vacating::is_due(config, &state)? {
        return Ok(Box::new(Vacating::begin(config, state, state_file, reactor)?));
    }
    // A backup that was promoted without stacks has nothing to capture with.
    let is_bare = state.group.is_some() && !has_stacks(config)?;
    Ok(if state.role == Role::Primary && !is_bare {
        Box::new(PrimaryDriver::new(config, state, state_file, reactor)?)
    } else {
        Box::new(BackupDriver::new(config, state, state_file, reactor)?)
    })
}

/// What is left where the state cannot be read.
fn without_state(config: &Config) -> String {
    format!(
        "Point `state` in the configuration at the right device, or restore it. If the other host is there, `ftship format \
         --force` here makes this one a backup that it syncs. If it is gone, `ftship promote {} --accept-loss` takes the \
         volumes as they are",
        config.group
    )
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

/// What SIGTERM, SIGINT and SIGHUP ask for, waking the loop.
fn watch_signals(reactor: &Reactor) -> anyhow::Result<Arc<Asked>> {
    let asked = Arc::new(Asked::default());
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("watching for signals")?;
    let (flags, waker) = (Arc::clone(&asked), Arc::clone(reactor.waker()));
    std::thread::Builder::new()
        .name("signals".into())
        .stack_size(64 << 10)
        .spawn(move || {
            for signal in signals.forever() {
                let (flag, what) = match signal {
                    SIGHUP => (&flags.reload, "reading the configuration again"),
                    _ => (&flags.stop, "stopping"),
                };
                log::info!("signal {signal}: {what}");
                flag.store(true, Ordering::Relaxed);
                waker.wake();
            }
        })
        .context("starting the signal thread")?;
    Ok(asked)
}
