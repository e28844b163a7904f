//! The heartbeat of a capture: what the thread that captures is doing to the visible device, told to
//! whoever would have to bring that device back if the thread stopped here.
//!
//! Always holds: a beat is sent before the visible device is touched and after it runs again, so that
//! what was heard last is never more harmless than what was done.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What the capturing thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The visible device points at dm-era: nothing can go wrong.
    Tracking,
    /// Writes flow, and are logged.
    Capturing,
    /// Writes are held back, or about to be, for a cut or a change of tables.
    Paused,
    /// Writes are held back until there is room for what they write.
    Held,
    /// The same, and there is reason to expect room soon: the lease of holding begins anew.
    Renewed,
    /// Writes are held back, and are never to reach the volume from here any more: whoever has to end that makes
    /// them fail, rather than bring the volume back.
    Yielding,
}

/// Where beats go.
pub trait Pulse: Debug + Send + Sync {
    /// Tells the phase, at every step that makes progress. Neither blocks nor allocates, as it is called
    /// while the volume stands still. Returns whether somebody is there to act if no beat follows.
    fn beat(&self, phase: Phase) -> bool;

    /// The same, but returns only once it was heard, so that whoever stands by does nothing any more that belongs to
    /// the phase before. Blocks: outside cuts alone.
    fn beat_heard(&self, phase: Phase) -> bool {
        self.beat(phase)
    }
}

impl<P: Pulse + ?Sized> Pulse for &P {
    fn beat(&self, phase: Phase) -> bool {
        (**self).beat(phase)
    }

    fn beat_heard(&self, phase: Phase) -> bool {
        (**self).beat_heard(phase)
    }
}

impl<P: Pulse + ?Sized> Pulse for Arc<P> {
    fn beat(&self, phase: Phase) -> bool {
        (**self).beat(phase)
    }

    fn beat_heard(&self, phase: Phase) -> bool {
        (**self).beat_heard(phase)
    }
}

#[derive(Debug)]
struct Unwatched;

impl Pulse for Unwatched {
    fn beat(&self, _phase: Phase) -> bool {
        true
    }
}

/// For programs that nobody watches: if one is killed in a pause, the volume hangs until
/// [`Stack::recover`](crate::stack::Stack::recover).
#[must_use]
pub fn unwatched() -> Arc<dyn Pulse> {
    Arc::new(Unwatched)
}

/// A phase as it is kept: the more has to be done about a silence in it, the higher.
const fn weight(phase: Phase) -> u8 {
    match phase {
        Phase::Tracking => 0,
        Phase::Capturing => 1,
        Phase::Paused => 2,
        Phase::Held | Phase::Renewed => 3,
        Phase::Yielding => 4,
    }
}

const fn phase_of(weight: u8) -> Phase {
    match weight {
        0 => Phase::Tracking,
        1 => Phase::Capturing,
        2 => Phase::Paused,
        3 => Phase::Held,
        _ => Phase::Yielding,
    }
}

/// One capture's part in a pulse that several captures share: each beat tells the phase of that one of them
/// for which most would have to be done.
#[derive(Debug)]
struct Member {
    pulse: Arc<dyn Pulse>,
    phases: Arc<[AtomicU8]>,
    own: usize,
}

impl Member {
    /// What is to be said for all, once this one is in `phase`.
    fn said(&self, phase: Phase) -> Phase {
        self.phases[self.own].store(weight(phase), Ordering::SeqCst);
        let gravest = self.phases.iter().map(|phase| phase.load(Ordering::SeqCst)).max().unwrap_or(0);
        // A lease that begins anew is said once.
        if phase == Phase::Renewed && gravest <= weight(phase) { phase } else { phase_of(gravest) }
    }
}

impl Pulse for Member {
    fn beat(&self, phase: Phase) -> bool {
        self.pulse.beat(self.said(phase))
    }

    fn beat_heard(&self, phase: Phase) -> bool {
        self.pulse.beat_heard(self.said(phase))
    }
}

/// Pulses for `count` captures that one watchdog looks after, all of which go to `pulse`. None of them captures
/// yet.
#[must_use]
pub fn shared(pulse: &Arc<dyn Pulse>, count: usize) -> Vec<Arc<dyn Pulse>> {
    let phases: Arc<[AtomicU8]> = (0..count).map(|_| AtomicU8::new(weight(Phase::Tracking))).collect();
    let member = |own| Member { pulse: Arc::clone(pulse), phases: Arc::clone(&phases), own };
    (0..count).map(|own| Arc::new(member(own)) as Arc<dyn Pulse>).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<Phase>>);

    impl Pulse for Heard {
        fn beat(&self, phase: Phase) -> bool {
            self.0.lock().unwrap().push(phase);
            true
        }
    }

    #[test]
    fn the_gravest_phase_of_all_captures_is_what_is_heard() {
        let heard = Arc::new(Heard::default());
        let all = shared(&(Arc::clone(&heard) as Arc<dyn Pulse>), 2);
        let beats = [
            (0, Phase::Paused, Phase::Paused),
            (0, Phase::Capturing, Phase::Capturing),
            (1, Phase::Renewed, Phase::Renewed),
            (0, Phase::Capturing, Phase::Held),
            (0, Phase::Paused, Phase::Held),
            (1, Phase::Paused, Phase::Paused),
            (1, Phase::Capturing, Phase::Paused),
            (0, Phase::Capturing, Phase::Capturing),
            (1, Phase::Yielding, Phase::Yielding),
            (0, Phase::Renewed, Phase::Yielding),
            (0, Phase::Capturing, Phase::Yielding),
            (1, Phase::Tracking, Phase::Capturing),
            (0, Phase::Tracking, Phase::Tracking),
        ];
        for (own, phase, said) in beats {
            assert!(all[own].beat(phase));
            assert_eq!(heard.0.lock().unwrap().pop(), Some(said), "{own} {phase:?}");
        }
    }
}
