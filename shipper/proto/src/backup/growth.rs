//! Volumes that grow: what a backup does when its primary greets with other sizes than it knows.
//!
//! ```text
//!   the devices of this host are enlarged          else refused: the peer's volumes do not fit
//!   the state says: epochs above the highest one seen have the new sizes, those up to it the old ones
//!   (durable)  Welcome, with the sizes of what is held, where they are not the primary's
//! ```
//!
//! So what this side holds keeps its sizes until it holds a later epoch, also if something stops meanwhile, and the primary learns at
//! each greeting what a sync has to add.
//!
//! Always holds: no epoch of other sizes comes before the state says so, durably; a promote gives the volumes the sizes
//! that they had at its epoch; what is held exactly never becomes smaller.

use std::time::Duration;

use super::{Backup, BackupAction, Link};
use crate::group::{GroupDescription, LocalVolume};
use crate::ids::Epoch;
use crate::message::RefuseCode;
use crate::mutant::{self, Mutant};
use crate::scope::Scope;
use crate::state::Content;
use ftdm_units::{Extent, Sector, Sectors};

/// How far other sizes have come here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Growing {
    /// None are under way.
    #[default]
    No,
    /// The devices are being enlarged to these.
    Devices(Vec<Sectors>),
    /// The state that names them is being written.
    Noting,
}

impl Backup {
    /// Whether the volumes here are as the primary's, that greets, durably. Else it is seen to that they are.
    pub(super) fn is_as_large_as(&mut self, group: &GroupDescription) -> bool {
        match &self.growing {
            Growing::No => {}
            Growing::Noting if self.state_writes == 0 => self.growing = Growing::No,
            Growing::Noting | Growing::Devices(_) => return false,
        }
        let sizes = group.sizes();
        if self.config.shown.iter().zip(&sizes).any(|(shown, wanted)| shown < wanted) {
            self.growing = Growing::Devices(sizes.clone());
            self.act(BackupAction::Enlarge { sizes });
            return false;
        }
        if self.state.group.as_ref().is_none_or(|known| known.sizes() == sizes) {
            return true;
        }
        self.state.resize(self.highest_epoch().next(), group.clone());
        if mutant::is(Mutant::GrowthUnnoted) {
            return true;
        }
        self.growing = Growing::Noting;
        self.write_state();
        false
    }

    /// The devices show what was asked for; or why they do not.
    pub(super) fn enlarged(&mut self, now: Duration, result: Result<(), String>) {
        let Growing::Devices(sizes) = std::mem::take(&mut self.growing) else { return };
        match result {
            Ok(()) => {
                let larger = |(shown, size): (&mut Sectors, &Sectors)| *shown = (*shown).max(*size);
                self.config.shown.iter_mut().zip(&sizes).for_each(larger);
                self.greet(now);
            }
            Err(reason) if matches!(self.link, Link::Clearing { .. }) => {
                let text = format!("the volumes of this host cannot be enlarged: {reason}");
                self.refuse(RefuseCode::VolumeMismatch, text);
            }
            Err(_) => {}
        }
    }

    /// The devices of this host have other sizes now.
    pub(super) fn has_room(&mut self, volumes: Vec<LocalVolume>) {
        if volumes.len() == self.config.volumes.len() {
            self.config.volumes = volumes;
        }
    }

    /// What each volume could have on this host.
    pub(super) fn room(&self) -> Option<Vec<Sectors>> {
        let sizes: Vec<_> = self.config.volumes.iter().map(|volume| volume.size).collect();
        (!sizes.is_empty()).then_some(sizes)
    }

    /// Why a primary with volumes of these sizes cannot continue what is held here, if it cannot.
    pub(super) fn check_sizes(&self, theirs: &GroupDescription) -> Result<(), String> {
        let epoch = self.held();
        let is_exact = self.state.content == Content::Consistent && epoch > Epoch::NONE;
        let Some(held) = self.state.group_at(epoch).filter(|_| is_exact) else { return Ok(()) };
        match theirs.smaller_than(&held.sizes()) {
            Some((volume, theirs, mine)) => Err(format!(
                "{volume} has {theirs} at the peer, and {mine} in epoch {epoch}, which this backup holds: a volume does not \
                 become smaller. Give the peer's back its size, or format this backup again"
            )),
            None => Ok(()),
        }
    }

    /// The sizes of what is held, where they are not these.
    pub(super) fn other_sizes(&self, theirs: &GroupDescription) -> Option<Vec<Sectors>> {
        let held = self.state.content_sizes(self.committed)?;
        (held != theirs.sizes() && !mutant::is(Mutant::GrowthUntold)).then_some(held)
    }
}

/// What of this lies on the volumes of the group: a primary that is smaller has no use for the rest.
pub(super) fn within(scope: &Scope, group: &GroupDescription) -> Scope {
    let cut = |(volume, extent): &(_, Extent)| {
        let size = group.volume(*volume)?.size;
        let end = extent.end().0.min(size.0);
        Some((*volume, Extent::between(extent.start(), Sector(end)).filter(|cut| cut.len().0 > 0)?))
    };
    scope.iter().filter_map(cut).collect()
}
