//! An operator gives up what this backup holds, because the other side's history is to count: a primary whose disks were put
//! back to an earlier time, or one that went its own way.
//!
//! Always holds: only what a greeting of that side has shown to be a split brain is given up; that is durable before anybody
//! is told so; the volumes stay as they are until a sync in place overwrites them, whole.

use super::{Backup, BackupAction, Link, Phase};
use crate::state::{Content, Role};

/// Why what a backup holds is not given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveUpRefused {
    /// Nobody greets that has another history.
    #[error(
        "there is no split brain, as far as this backup knows: no primary with another history has greeted it since its \
         daemon started"
    )]
    NoSplit,
    /// The daemon has latched a failure.
    #[error("the daemon has failed: {0}")]
    Failed(String),
}

impl Backup {
    /// Somebody wants the other side's history to count.
    pub(super) fn give_up(&mut self) {
        let is_known = self.is_disputed && matches!(self.link, Link::Down | Link::Greeting { .. });
        if !is_known || self.phase != Phase::Consistent || self.state.role != Role::Backup {
            return self.act(BackupAction::GivenUp(Err(GiveUpRefused::NoSplit)));
        }
        self.state.content = Content::Outdated { fork: None };
        self.state.lost = None;
        self.enter(Phase::Outdated);
        self.is_giving_up = true;
        self.write_state();
        self.forget_commits();
    }

    /// A version of the state is durable, and no other is on its way.
    pub(super) fn given_up(&mut self) {
        if std::mem::take(&mut self.is_giving_up) {
            self.is_disputed = false;
            self.act(BackupAction::GivenUp(Ok(())));
        }
    }
}
