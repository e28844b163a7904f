//! The primary's durable state is written on a thread of its own, one version after the other.
//!
//! Always holds: after the first error nothing is written any more, and that was reported; the state stays locked for
//! as long as the thread runs, which is as long as the daemon.

use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use anyhow::Context;
use ftship_proto::primary::PrimaryEvent;
use ftship_proto::state::DurableState;

use crate::reactor::Reports;
use crate::state_file::StateFile;

/// The writing thread.
#[derive(Debug)]
pub(super) struct StateLane {
    jobs: Option<Sender<Box<DurableState>>>,
    thread: Option<JoinHandle<()>>,
}

impl StateLane {
    /// Starts the thread on an open state.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(mut file: StateFile, reports: Reports<PrimaryEvent>) -> anyhow::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Box<DurableState>>();
        let thread = std::thread::Builder::new()
            .name("state".into())
            .stack_size(128 << 10)
            .spawn(move || {
                let mut failed = false;
                for state in queue {
                    if failed {
                        continue;
                    }
                    reports.send(match file.write(&state) {
                        Ok(()) => PrimaryEvent::StateWritten,
                        Err(error) => {
                            failed = true;
                            PrimaryEvent::Failed { reason: error.to_string() }
                        }
                    });
                }
            })
            .context("starting the state thread")?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a version of the state.
    pub(super) fn push(&self, state: Box<DurableState>) {
        if let Some(jobs) = &self.jobs
            && jobs.send(state).is_err()
        {
            log::error!("the state thread has ended; it must have panicked");
        }
    }
}

impl Drop for StateLane {
    /// Writes what is queued, and waits for that.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the state thread had panicked");
        }
    }
}
