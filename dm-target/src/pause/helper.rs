//! A thread beside the one that pauses, so that what takes long is done for all volumes of a group at the same time: they
//! cost the slowest, not the sum.
//!
//! Always holds: what was begun is waited for before the pause goes on; after the start nothing here allocates; signals
//! that would end the process never interrupt it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::PAUSE_URGENCY;
use super::signals::HeldSignals;
use crate::block_io::BlockDevice;
use crate::ioctl::{DmControl, set_urgency};
use crate::units::DevNum;

/// What a helper does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// Drains a device, and holds back what is written from then on.
    Suspend(DevNum),
    /// Flushes the log.
    Flush,
}

#[derive(Default)]
struct Desk {
    task: Option<Task>,
    done: Option<io::Result<()>>,
    quit: bool,
}

#[derive(Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` has something.
    fn wait_for<T>(&self, mut ready: impl FnMut(&mut Desk) -> Option<T>) -> T {
        let mut desk = self.lock();
        loop {
            if let Some(found) = ready(&mut desk) {
                return found;
            }
            desk = self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn serve(&self, mut control: DmControl, log: &BlockDevice) {
        loop {
            let next = |desk: &mut Desk| desk.task.take().map(Some).or_else(|| desk.quit.then_some(None));
            let done = match self.wait_for(next) {
                Some(Task::Suspend(device)) => control.suspend(device),
                Some(Task::Flush) => log.flush(),
                None => return,
            };
            self.lock().done = Some(done);
            self.changed.notify_all();
        }
    }
}

/// The helper of one volume.
pub(crate) struct Helper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Helper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Helper").finish_non_exhaustive()
    }
}

impl Helper {
    /// Starts the thread; `log` is what it flushes.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(log: Arc<BlockDevice>) -> io::Result<Self> {
        let control = DmControl::open()?;
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("pause".to_owned()).stack_size(128 << 10);
        let thread = builder.spawn(move || {
            let _signals = HeldSignals::hold();
            if let Err(e) = set_urgency(PAUSE_URGENCY) {
                log::debug!("pausing without real-time priority: {e}");
            }
            served.serve(control, &log);
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Begins a task. [`wait`](Self::wait) has to follow before the next.
    pub(crate) fn begin(&self, task: Task) {
        self.shared.lock().task = Some(task);
        self.shared.changed.notify_all();
    }

    /// Waits for the task that was begun.
    ///
    /// # Errors
    /// The task's.
    pub(crate) fn wait(&self) -> io::Result<()> {
        self.shared.wait_for(|desk| desk.done.take())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.shared.lock().quit = true;
        self.shared.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread beside a pause panicked");
        }
    }
}
