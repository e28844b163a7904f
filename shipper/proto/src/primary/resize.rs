//! Enlarging the volumes while they are used.
//!
//! ```text
//!   Asking ──the backup says that it has room──► Layers ──below the visible devices──► Noting ──durable──► Showing
//!      │                                            │                                                        │
//!      ▼ not in time: refused                       ▼ not done: refused, nothing has changed                 ▼
//!                                                                              the role ends, and begins with the new sizes
//! ```
//!
//! The guest cannot know of what a volume grew by before the visible device shows it, and that is after the state says so,
//! durably. So, if anything stops, the volume comes up as the guest saw it last, or larger. Replication ends before, with its
//! capture, and begins again with the role: over a new greeting, in which the backup says how large its volumes are in
//! what it holds. What they lack counts as written.
//!
//! Always holds: a volume never becomes smaller; the backup has committed an epoch of the present sizes before there are
//! others; nothing is enlarged unless a backup that is connected has said that it has
//! room; while it is under way there is no connection, and the role does not change.

use std::time::Duration;

use ftdm_units::{Extent, Sector, Sectors};

use super::{CutOrder, Link, Primary, PrimaryAction};
use crate::group::GroupDescription;
use crate::ids::VolumeIndex;
use crate::message::{ByeCause, Message};
use crate::scope::Scope;

/// How long a backup has to say that it has room: it says so each second, and may have been enlarged just now.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the volumes are not enlarged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResizeRefused {
    /// No backup is there.
    #[error(
        "the backup is not connected: both sides are enlarged together. `ftship status` says why it is not"
    )]
    NotConnected,
    /// It is of an earlier version.
    #[error("the backup does not say how large its volumes could be: update ftdm there")]
    Unknown,
    /// The device is smaller than what is used of it.
    #[error(
        "its device has {found}, the pair uses {used}: a volume is not made smaller. Enlarge the device again \
         (`lvextend`), at once: its end is lost"
    )]
    Smaller {
        /// Which.
        volume: VolumeIndex,
        /// What its device has.
        found: Sectors,
        /// What is used.
        used: Sectors,
    },
    /// dm-era cannot track so much.
    #[error(
        "dm-era's metadata has room to track {room}, not {wanted}. Once: stop the VM and this daemon, `ftship setup \
         --remove`, give the metadata volume a larger size (`ftdm metadata-size` says which; `lvextend`), overwrite its \
         first 4096 bytes with zeros, `ftship setup`. The backup is then compared as a whole"
    )]
    Metadata {
        /// Which.
        volume: VolumeIndex,
        /// How much it can track.
        room: Sectors,
        /// What the volume is to have.
        wanted: Sectors,
    },
    /// The backup's volume is too small for it.
    #[error(
        "the backup can give it {room}, {wanted} are wanted: enlarge its logical volume there too (`lvextend`). If it is \
         large enough, the log of the backup's daemon says why it cannot be used"
    )]
    Backup {
        /// Which.
        volume: VolumeIndex,
        /// The backup's.
        room: Sectors,
        /// What it is to have.
        wanted: Sectors,
    },
    /// Earlier sizes are not what the backup holds.
    #[error(
        "the backup has not committed an epoch of the present sizes yet: wait until the pair is in sync, and what is \
         staged is committed"
    )]
    Unsettled,
    /// Something else changes.
    #[error("the role is about to change, or the volumes are being enlarged already")]
    UnderWay,
    /// Another side was promoted over this one.
    #[error("another side was promoted over this one: `ftship status` says what is to be done")]
    Fenced,
    /// Nothing was changed.
    #[error("the volumes stay as they were: {0}")]
    Kept(String),
    /// It is noted, and not done.
    #[error("{0}. The volumes are given their new sizes when the daemon begins again")]
    Failed(String),
}

impl ResizeRefused {
    /// The volume that it is about.
    #[must_use]
    pub fn volume(&self) -> Option<VolumeIndex> {
        match self {
            Self::Smaller { volume, .. } | Self::Metadata { volume, .. } | Self::Backup { volume, .. } => {
                Some(*volume)
            }
            _ => None,
        }
    }
}

/// What a resize has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// The sizes before, in the group's order.
    pub before: Vec<Sectors>,
    /// Those from now on.
    pub after: Vec<Sectors>,
}

/// A resize that is under way.
#[derive(Debug)]
pub(super) struct Resize {
    /// Who asked.
    id: u64,
    /// The group as it is to be.
    group: GroupDescription,
    step: Step,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The backup has not said yet that it has room; until when that is waited for.
    Asking(Duration),
    /// The layers below the visible devices are being enlarged.
    Layers,
    /// The new sizes are being made durable.
    Noting,
    /// The visible devices are being enlarged.
    Showing,
}

impl Primary {
    /// An operator wants the volumes to have what their devices have. `room`: what dm-era can track of each.
    pub(super) fn resize(&mut self, now: Duration, id: u64, devices: &[Sectors], room: &[Sectors]) {
        match self.wanted(devices, room) {
            Err(refused) => self.act(PrimaryAction::ResizeDone { id, result: Err(refused) }),
            Ok(None) => {
                let sizes = self.config.group.sizes();
                let result = Ok(Resized { before: sizes.clone(), after: sizes });
                self.act(PrimaryAction::ResizeDone { id, result });
            }
            Ok(Some(group)) => {
                self.resizing = Some(Resize { id, group, step: Step::Asking(now + PATIENCE) });
                self.resize_if_room(now);
            }
        }
    }

    /// The group with the sizes that it could have; none where it has them.
    fn wanted(
        &self,
        devices: &[Sectors],
        room: &[Sectors],
    ) -> Result<Option<GroupDescription>, ResizeRefused> {
        if self.has_failed() || self.switch.is_some() || self.is_stepping_down() || self.resizing.is_some() {
            return Err(ResizeRefused::UnderWay);
        }
        if self.durable.state.fenced.is_some() {
            return Err(ResizeRefused::Fenced);
        }
        let group = &self.config.group;
        for ((volume, described), found) in group.indexed().zip(devices) {
            if *found < described.size {
                return Err(ResizeRefused::Smaller { volume, found: *found, used: described.size });
            }
        }
        let larger = group.with_sizes(devices).map_err(|error| ResizeRefused::Kept(error.to_string()))?;
        if larger == *group {
            return Ok(None);
        }
        for ((volume, described), room) in larger.indexed().zip(room) {
            if *room < described.size {
                return Err(ResizeRefused::Metadata { volume, room: *room, wanted: described.size });
            }
        }
        let Link::Up { .. } = self.peer.link else { return Err(ResizeRefused::NotConnected) };
        // So what the backup holds is one step behind at most, however late a coordinator commits.
        if self.durable.state.sizes.at(self.commits.committed).is_some() {
            return Err(ResizeRefused::Unsettled);
        }
        Ok(Some(larger))
    }

    /// Begins to enlarge once the backup has room.
    pub(super) fn resize_if_room(&mut self, now: Duration) {
        let Some(Resize { group, step: Step::Asking(deadline), .. }) = &self.resizing else { return };
        let is_late = *deadline <= now;
        let small = match &self.peer.room {
            None => Some(ResizeRefused::Unknown),
            Some(room) => {
                let small = group.indexed().zip(room).find(|((_, volume), room)| volume.size > **room);
                small.map(|((volume, described), room)| ResizeRefused::Backup {
                    volume,
                    room: *room,
                    wanted: described.size,
                })
            }
        };
        match small {
            Some(refused) if is_late => self.end_resize(Err(refused)),
            Some(_) => {}
            None => {
                let sizes = group.sizes();
                self.enter_resize(Step::Layers);
                let reason = "the volumes are being enlarged";
                self.act(PrimaryAction::Send(Message::Bye { text: reason.into(), cause: ByeCause::Other }));
                self.lose_replication(now, reason);
                self.order(CutOrder::Enlarge { sizes });
            }
        }
    }

    fn enter_resize(&mut self, step: Step) {
        if let Some(resize) = &mut self.resizing {
            resize.step = step;
        }
    }

    pub(super) fn resize_timeout(&mut self, now: Duration) {
        if self.resize_due().is_some_and(|at| at <= now) {
            self.resize_if_room(now);
        }
    }

    pub(super) fn resize_due(&self) -> Option<Duration> {
        match self.resizing {
            Some(Resize { step: Step::Asking(deadline), .. }) => Some(deadline),
            _ => None,
        }
    }

    /// The connection has ended: a backup that is not there has no room.
    pub(super) fn resize_unanswered(&mut self) {
        if self.resize_due().is_some() {
            self.end_resize(Err(ResizeRefused::NotConnected));
        }
    }

    /// The layers below have the new sizes: from now on that is durable before anybody sees it.
    pub(super) fn enlarged(&mut self, now: Duration, result: Result<(), String>) {
        let Some(Resize { group, step: Step::Layers, .. }) = &self.resizing else { return };
        if let Err(reason) = result {
            self.end_resize(Err(ResizeRefused::Kept(reason)));
            return self.connect_at_once(now);
        }
        let (group, first) = (group.clone(), self.cuts.next_epoch);
        let state = &mut self.durable.state;
        state.group.get_or_insert_with(|| self.config.group.clone());
        state.resize(first, group);
        self.enter_resize(Step::Noting);
        self.write_state();
    }

    /// A version of the state is durable: perhaps the one that names the new sizes.
    pub(super) fn resize_noted(&mut self) {
        if let Some(Resize { group, step: Step::Noting, .. }) = &self.resizing
            && self.is_state_durable()
        {
            let sizes = group.sizes();
            self.enter_resize(Step::Showing);
            self.order(CutOrder::Show { sizes });
        }
    }

    /// The visible devices show them, or will once the daemon begins again.
    pub(super) fn resize_shown(&mut self, result: Result<(), String>) {
        let Some(Resize { group, step: Step::Showing, .. }) = &self.resizing else { return };
        let done = Resized { before: self.config.group.sizes(), after: group.sizes() };
        self.end_resize(result.map(|()| done).map_err(ResizeRefused::Failed));
        self.act(PrimaryAction::RoleEnded);
        self.is_resized = true;
    }

    /// The state cannot be written.
    pub(super) fn resize_failed(&mut self, reason: &str) {
        self.end_resize(Err(ResizeRefused::Failed(reason.to_owned())));
    }

    fn end_resize(&mut self, result: Result<Resized, ResizeRefused>) {
        if let Some(Resize { id, .. }) = self.resizing.take() {
            self.act(PrimaryAction::ResizeDone { id, result });
        }
    }

    /// Whether the volumes are being enlarged, or were: there is no connection then, and the role does not change.
    pub(super) fn is_resizing(&self) -> bool {
        self.is_resized
            || self.resizing.as_ref().is_some_and(|resize| !matches!(resize.step, Step::Asking(_)))
    }

    /// What the volumes have and those of the backup, in what it holds, have not: a sync has to cover it.
    pub(super) fn extension(&self) -> Scope {
        let Link::Up { welcome, .. } = &self.peer.link else { return Scope::new() };
        let theirs = welcome.sizes.as_deref().unwrap_or_default();
        let lacks = |((index, volume), size): ((VolumeIndex, &crate::group::VolumeDescription), &Sectors)| {
            let start = size.0 - size.0 % volume.block().0;
            Some((index, Extent::between(Sector(start), Sector(volume.size.0))?))
        };
        self.config.group.indexed().zip(theirs).filter_map(lacks).collect()
    }
}
