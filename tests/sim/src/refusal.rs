//! A primary that cannot capture: its kernel refuses, for good as it seems.
//!
//! Always holds: a refusal has the same reason each time; it ends when nothing goes wrong any more, and then
//! somebody reloads the configuration, or the next try comes soon.

use std::time::Duration;

use ftship_proto::primary::Tuning;

use crate::world::World;

/// So many refusals come soon one after the other: two, and as many that nobody was interested in any more.
const SOON: u32 = 4;
/// Each further one comes at least so long behind the last, in microseconds.
const SELDOM: u64 = 30_000_000;

/// What became of the captures that one daemon wanted to begin.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// The last one began, over the present connection.
    pub(crate) begun: bool,
    /// How many in a row did not, and when the last one did not.
    count: u32,
    last: u64,
}

impl World {
    pub(crate) fn refuses_capture(&self) -> bool {
        let from = self.scenario.refuses_from;
        !self.operator.is_calm() && from.is_some_and(|from| from <= self.now)
    }

    /// Notes a refusal: after a few of them nobody tries again soon.
    pub(crate) fn refused(&mut self) -> String {
        let now = self.now;
        if let Some(daemon) = &mut self.primary.daemon {
            let Refusals { begun, count, last } = &mut daemon.refusals;
            assert!(
                *count < SOON || now >= *last + SELDOM,
                "a capture that was refused {count} times is tried again"
            );
            (*begun, *count, *last) = (false, *count + 1, now);
        }
        "the kernel refuses".into()
    }

    /// Notes a capture that began.
    pub(crate) fn begun(&mut self) {
        if let Some(daemon) = &mut self.primary.daemon {
            daemon.refusals = Refusals { begun: true, ..Refusals::default() };
        }
    }

    /// The backup is about to be told that its content is overwritten.
    pub(crate) fn expect_capture(&self) {
        let begun = self.primary.daemon.as_ref().is_some_and(|daemon| daemon.refusals.begun);
        assert!(
            begun || self.scenario.is_still,
            "a sync in place began, and no capture was seen to begin before"
        );
    }

    /// Somebody wants a capture now, however often it was refused.
    pub(crate) fn captures_are_wanted(&mut self) {
        if let Some(daemon) = &mut self.primary.daemon {
            daemon.refusals.count = 0;
        }
    }

    /// Captures begin again; a person reloads the configuration, or the next try finds it.
    pub(crate) fn end_refusal(&mut self) {
        // Longer than a pair may take the next try is not waited for.
        let is_soon = self.primary.daemon.as_ref().is_none_or(|daemon| daemon.refusals.count <= 2);
        if self.scenario.refuses_from.is_none() || is_soon && self.random.coin() {
            return;
        }
        self.captures_are_wanted();
        let (scenario, now) = (&self.scenario, self.time());
        let tuning = Tuning {
            epoch_interval: Duration::from_micros(scenario.epoch_interval),
            window: scenario.window,
            timeout: Duration::from_micros(scenario.timeout),
            pause_budget: Duration::from_millis(10),
            pause_limit: Duration::from_millis(100),
            void_limit: 5,
            roll_interval: Duration::from_micros(scenario.roll_interval),
            resync_target: Duration::ZERO,
        };
        if let Some(daemon) = &mut self.primary.daemon {
            daemon.core.tune(now, tuning);
        }
    }
}
