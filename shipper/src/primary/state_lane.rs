//! The primary's durable state is written on a thread of its own, one version after the other.
//!
//! Always holds: after the first error nothing is written any more, and that was reported; the state stays locked for
//! as long as the thread runs, which is as long as the daemon.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use ftship_proto::primary::PrimaryEvent;
use ftship_proto::state::DurableState;

use crate::runtime::reactor::Reports;
use crate::runtime::wake::LoopWaker;
use crate::runtime::worker::Worker;
use crate::store::state_file::StateFile;

/// The writing thread.
#[derive(Debug)]
pub(super) struct StateLane {
    writing: Worker<Box<DurableState>>,
    pub(super) reports: Receiver<PrimaryEvent>,
}

impl StateLane {
    /// Starts the thread on an open state.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(mut file: StateFile, waker: &Arc<LoopWaker>) -> anyhow::Result<Self> {
        let (sender, reports) = Reports::channel(waker);
        let writing = Worker::start("state", 128 << 10, move |queue: Receiver<Box<DurableState>>| {
            let mut failed = false;
            for state in queue {
                if failed {
                    continue;
                }
                sender.send(match file.write(&state) {
                    Ok(()) => PrimaryEvent::StateWritten,
                    Err(error) => {
                        failed = true;
                        PrimaryEvent::Failed { reason: error.to_string() }
                    }
                });
            }
        })?;
        Ok(Self { writing, reports })
    }

    /// Queues a version of the state.
    pub(super) fn push(&self, state: Box<DurableState>) {
        self.writing.push(state);
    }
}
