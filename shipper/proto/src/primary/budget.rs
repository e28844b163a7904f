//! How long the pause of the next cut may last.
//!
//! Always holds: at least the configured budget, and at most the limit; each void cut doubles it, and only many cuts
//! in a row that succeed halve it again. Where the volumes always take longer than the budget to stand still, they would
//! otherwise be suspended for nothing before each cut.

use std::time::Duration;

/// Cuts in a row that have to succeed before a shorter pause is tried again.
const CALM: u32 = 64;

/// What became of the last cuts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    doublings: u32,
    /// Cuts that succeeded since the last one that was void.
    calm: u32,
}

impl Budget {
    /// The next cut's, between the configured one and the limit.
    pub(super) fn next(self, configured: Duration, limit: Duration) -> Duration {
        let factor = 2u32.saturating_pow(self.doublings);
        configured.saturating_mul(factor).min(limit).max(configured)
    }

    pub(super) fn void(&mut self, configured: Duration, limit: Duration) {
        self.calm = 0;
        if self.next(configured, limit) < limit {
            self.doublings += 1;
        }
    }

    pub(super) fn taken(&mut self) {
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.doublings = self.doublings.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_void_cut_doubles_it_and_it_stays_so_until_many_cuts_succeeded() {
        let (configured, limit) = (Duration::from_millis(10), Duration::from_millis(100));
        let mut budget = Budget::default();
        let next = |budget: Budget| budget.next(configured, limit).as_millis();
        let doubled = [(); 6].map(|()| {
            budget.void(configured, limit);
            next(budget)
        });
        assert_eq!(doubled, [20, 40, 80, 100, 100, 100]);
        let mut halved = Vec::new();
        for _ in 0..5 * CALM {
            budget.taken();
            halved.push(next(budget));
        }
        halved.dedup();
        assert_eq!(
            halved,
            [100, 80, 40, 20, 10],
            "as many steps down as up, not one for each void cut at the limit"
        );
        // One that is void begins the count again.
        budget.void(configured, limit);
        (1..CALM).for_each(|_| budget.taken());
        budget.void(configured, limit);
        budget.taken();
        assert_eq!(next(budget), 40);
    }

    #[test]
    fn a_limit_below_the_budget_changes_nothing() {
        let (configured, limit) = (Duration::from_millis(10), Duration::from_millis(5));
        let mut budget = Budget::default();
        budget.void(configured, limit);
        assert_eq!(budget.next(configured, limit), configured);
    }
}
