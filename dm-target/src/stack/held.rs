//! Holding a volume's writes back while nothing captures them, until somebody decides what becomes of them.
//!
//! Always holds: they go on when this goes, whatever the reason, unless the volume was shut; whoever holds has
//! somebody stand by who does the same if the process cannot ([`crate::pause::pulse`]).

use std::sync::Arc;

use super::{Stack, StackError, io_step};
use crate::name::StackName;
use crate::pause::pulse::{Phase, Pulse};
use crate::pause::{After, Pause, Top};

/// The volumes of a group, whose I/O waits.
pub struct Held {
    stacks: Vec<Stack>,
    pause: Pause<Top<Arc<dyn Pulse>>>,
}

impl Held {
    /// Drains the visible devices and holds back all further I/O, of all volumes or of none. `pulse` hears of it first, and
    /// is to hear of it for as long as this lives.
    ///
    /// # Errors
    /// The kernel's, or that nobody stands by; the volumes run then.
    pub fn hold(stacks: &[Stack], pulse: &Arc<dyn Pulse>) -> Result<Self, StackError> {
        let volumes = stacks.iter().map(|stack| stack.visible(Arc::clone(pulse)));
        let pause = Pause::begin(volumes.collect::<Result<_, _>>()?, Phase::Tracking);
        let mut pause = pause.map_err(|failed| StackError::Step {
            step: "hold writes back".to_owned(),
            reason: failed.why.to_string(),
        })?;
        let suspended = pause.suspend();
        suspended.map_err(|failed| io_step(format!("suspend {}", stacks[failed.at].name))(failed.why))?;
        Ok(Self { stacks: stacks.to_vec(), pause })
    }

    /// Whether nobody let them go on meanwhile; also not where that cannot be known.
    pub fn is_held(&mut self) -> bool {
        self.pause.is_still().is_ok()
    }

    /// Makes what waits fail, and all I/O from here on.
    ///
    /// # Errors
    /// The first volume's for which that failed: it waits still then.
    pub fn shut(self) -> Result<(), (StackName, StackError)> {
        let Self { stacks, pause } = self;
        let named = |at: usize, error| (stacks[at].name.clone(), error);
        let shut = pause.end(After::Shut);
        shut.map_err(|failed| named(failed.at, io_step("shut it")(failed.why)))?;
        Ok(())
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("stacks", &self.stacks).finish_non_exhaustive()
    }
}
