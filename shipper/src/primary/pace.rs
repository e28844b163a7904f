//! How urgent the encoder's thread is: while it keeps up it runs only when nobody else wants the processor, so that a
//! virtual processor that wakes never waits for it; once one job waits for another, or for long, it has a fair share.
//!
//! Always holds: a thread that gives way and is late is brought back by the one who gives it work, which does not give
//! way itself. Where the system would not let it come back it never gives way.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ftdm::ioctl::{ThreadId, Urgency, set_urgency, set_urgency_of};

/// Jobs, the one under way among them, at which the thread is too slow.
const TOO_MANY: usize = 2;
/// After this time a job is late: where others keep the processors busy the thread would take a second for some
/// milliseconds of work.
const LATE: Duration = Duration::from_millis(30);

/// What the thread and the one who gives it work know of each other.
#[derive(Debug, Default)]
struct Shared {
    /// Set when the thread gives way.
    thread: OnceLock<ThreadId>,
    jobs: AtomicUsize,
    is_hurried: AtomicBool,
}

/// The pace of one thread. The thread has a clone of it.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    shared: Arc<Shared>,
    /// Since when it has had something to do, or when it was hurried last.
    busy_since: Cell<Instant>,
}

impl Pace {
    /// Of a thread that has not begun.
    pub(super) fn new() -> Self {
        Self { shared: Arc::default(), busy_since: Cell::new(Instant::now()) }
    }

    /// For the thread itself, at its start.
    pub(super) fn begin(&self) {
        // Who may be real-time may also leave the least urgent class again.
        let may_return = set_urgency(Urgency::RealTime(1)).and_then(|()| set_urgency(Urgency::Background));
        if let Err(error) = may_return.and_then(|()| set_urgency(Urgency::Idle)) {
            log::warn!("encoding competes with the VM: {error}");
            return;
        }
        // It begins once.
        let _ = self.shared.thread.set(ThreadId::current());
    }

    /// One more job waits. Before it is queued.
    pub(super) fn add(&self) {
        let jobs = self.shared.jobs.fetch_add(1, Ordering::SeqCst) + 1;
        if jobs == 1 {
            self.busy_since.set(Instant::now());
        }
        if jobs >= TOO_MANY && !self.shared.is_hurried.load(Ordering::SeqCst) {
            self.hurry();
        }
    }

    /// Looks whether a job is late. By the one who gives it work, now and then.
    pub(super) fn look(&self) {
        if self.shared.jobs.load(Ordering::SeqCst) > 0 && self.busy_since.get().elapsed() > LATE {
            // Also where it was hurried: it may have given way again in the same moment.
            self.busy_since.set(Instant::now());
            self.hurry();
        }
    }

    fn hurry(&self) {
        let Some(thread) = self.shared.thread.get() else { return };
        self.shared.is_hurried.store(true, Ordering::SeqCst);
        if let Err(error) = set_urgency_of(*thread, Urgency::Background) {
            log::warn!("encoding still gives way to the VM: {error}");
        }
    }

    /// A job is done. In the thread itself.
    pub(super) fn done(&self) {
        let jobs = self.shared.jobs.fetch_sub(1, Ordering::SeqCst) - 1;
        if jobs == 0
            && self.shared.is_hurried.swap(false, Ordering::SeqCst)
            && let Err(error) = set_urgency(Urgency::Idle)
        {
            log::warn!("encoding competes with the VM: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;

    /// The policy of a thread of this process: 3 is SCHED_BATCH, 5 SCHED_IDLE (sched(7)).
    fn policy(thread: ThreadId) -> u32 {
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        fields.split_ascii_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_that_falls_behind_is_brought_back_and_gives_way_again_when_it_is_done() {
        let pace = Pace::new();
        let (jobs, queue) = mpsc::channel::<()>();
        let (reports, seen) = mpsc::channel();
        let own = pace.clone();
        let worker = std::thread::spawn(move || {
            own.begin();
            reports.send(ThreadId::current()).unwrap();
            for () in queue {
                own.done();
                reports.send(ThreadId::current()).unwrap();
            }
        });
        let thread = seen.recv().unwrap();
        if pace.shared.thread.get().is_none() {
            // Not allowed here: then it never gives way.
            assert_ne!(policy(thread), 5);
            return;
        }
        assert_eq!(policy(thread), 5);
        pace.add();
        assert_eq!(policy(thread), 5);
        pace.add();
        assert_eq!(policy(thread), 3);
        for expected in [3, 5] {
            jobs.send(()).unwrap();
            seen.recv().unwrap();
            assert_eq!(policy(thread), expected);
        }
        pace.add();
        pace.look();
        assert_eq!(policy(thread), 5);
        std::thread::sleep(LATE + Duration::from_millis(5));
        pace.look();
        assert_eq!(policy(thread), 3, "one job, and late");
        jobs.send(()).unwrap();
        seen.recv().unwrap();
        assert_eq!(policy(thread), 5);
        drop(jobs);
        worker.join().unwrap();
    }
}
