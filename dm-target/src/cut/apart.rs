//! A deliberate fault: the volumes of a group are cut one after the other, each at an instant of its own. For the
//! proof that the scenario of groups would notice it.
//!
//! Always holds: without the feature `faults` nothing of this is in the program; with it, it happens only when
//! `FTDM_BREAK` asks for `cut-apart`.

use std::time::Duration;

use super::{CutError, CutOutcome, CutRequest, CutStats, together};
use crate::capture::Capture;
use crate::stack::era_device::EraReader;

/// How far apart the instants are at least: many writes of a busy guest.
const APART: Duration = Duration::from_millis(50);
/// Attempts for a volume, when others have been cut already.
const TRIES: u32 = 20;

/// Cuts each of `captures` by itself.
pub(super) fn cut(captures: &mut [Capture], mut request: CutRequest<'_>) -> Result<CutOutcome, CutError> {
    let mut epochs = Vec::with_capacity(captures.len());
    let mut cost = CutStats::default();
    for (at, capture) in captures.iter_mut().enumerate() {
        if at > 0 {
            std::thread::sleep(APART);
        }
        let tries = if at == 0 { 1 } else { TRIES };
        let mut outcome = cut_one(at, capture, &mut request)?;
        for _ in 1..tries {
            if let CutOutcome::Taken { .. } = outcome {
                break;
            }
            outcome = cut_one(at, capture, &mut request)?;
        }
        match outcome {
            CutOutcome::Idle => return Ok(CutOutcome::Idle),
            CutOutcome::Taken { logs, stats } => {
                epochs.extend(logs);
                cost = stats;
            }
            void @ CutOutcome::Void { .. } => return Ok(void),
        }
    }
    Ok(CutOutcome::Taken { logs: epochs, stats: cost })
}

fn cut_one(at: usize, capture: &mut Capture, request: &mut CutRequest<'_>) -> Result<CutOutcome, CutError> {
    let CutRequest { mode, epoch, budget, rotate_above, hold, .. } = *request;
    let mut look = |_: usize, era: &EraReader| {
        if let Some(in_pause) = &mut request.in_pause {
            in_pause(at, era);
        }
    };
    let in_pause = Some(&mut look as _);
    together(
        std::slice::from_mut(capture),
        CutRequest { mode, epoch, budget, rotate_above, roll: false, may_rest: false, hold, in_pause },
    )
}
