//! A thread that performs jobs, in order.
//!
//! Always holds: whoever drops the [`Worker`] waits until every job that was pushed before is done, so that nothing of
//! it outlives its owner.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use anyhow::Context;

/// The thread and its queue, which nothing here bounds.
#[derive(Debug)]
pub(crate) struct Worker<J> {
    name: &'static str,
    jobs: Option<Sender<J>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Worker<J> {
    /// Starts a thread of this name and `stack_size` bytes of stack. `work` returns when its queue is closed.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(
        name: &'static str,
        stack_size: usize,
        work: impl FnOnce(Receiver<J>) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(name.into())
            .stack_size(stack_size)
            .spawn(move || work(queue))
            .with_context(|| format!("starting the {name} thread"))?;
        Ok(Self { name, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job.
    pub(crate) fn push(&self, job: J) {
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_err()
        {
            log::error!("the {} thread has ended; it must have panicked", self.name);
        }
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the {} thread had panicked", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_it_waits_for_every_job() {
        let (done, seen) = mpsc::channel();
        let worker = Worker::start("slow", 64 << 10, move |queue| {
            for job in queue {
                std::thread::sleep(std::time::Duration::from_millis(5));
                done.send(job).expect("somebody listens");
            }
        })
        .expect("a thread");
        (0..5).for_each(|job| worker.push(job));
        drop(worker);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
