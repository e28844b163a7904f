//! The pause: the only way in which a volume is made to stand still, for a cut, a roll, another table, or until somebody
//! decides what becomes of it.
//!
//! ```text
//! Pause::begin     every volume: the beat `Paused`, before any is touched; refused where nobody stands by
//! suspend          all at once: drained, then held back       (or `trust_counters`: nobody writes, as the kernel counts)
//! each             what the pause is for: one step for every volume before the next step for any
//! is_still         the one proof, before a result counts: all of them have stood still all the time
//! end              resume: they run   |   hold: they stay, under the lease of holding   |   shut: all I/O fails
//! drop             whatever ended it, a panic included: a table that was loaded is dropped, and they run
//! ```
//!
//! Always holds: nothing outside this folder and the rescue, which may depend on nothing of the process that stopped,
//! suspends a device; whoever stands by hears before a volume is touched, and hears that it runs only after it does;
//! signals that would end the process wait meanwhile; a device that cannot be resumed is tried again before that is given
//! up; from the first suspend to the last resume nothing here allocates.

pub(crate) mod expedite;
pub(crate) mod helper;
pub mod pool;
pub mod pulse;
pub mod signals;
pub(crate) mod standstill;
pub(crate) mod stillness;
mod table;

use std::io;
use std::time::{Duration, Instant};

use crate::fault;
use crate::ioctl::{DmControl, Urgency};
use crate::units::{DevNum, Sectors};
use expedite::Expedited;
use helper::{Helper, Task};
use pulse::{Phase, Pulse};
use signals::HeldSignals;
use standstill::Standstill;
use stillness::{Look, Stillness};
pub(crate) use table::{SHUT, SwapError, point_at, replace, resume, swap_table};

/// The volumes' writers wait for what is done in a pause: it goes before everything ordinary.
pub(crate) const PAUSE_URGENCY: Urgency = Urgency::RealTime(10);

/// The devices of a volume that a pause suspends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers {
    /// The visible device: suspended first, resumed last.
    pub(crate) top: DevNum,
    /// Its size.
    pub(crate) size: Sectors,
    /// A device below it, where that has to be suspended too.
    pub(crate) below: Option<DevNum>,
}

impl Layers {
    /// The visible device alone.
    pub(crate) fn top(top: DevNum, size: Sectors) -> Self {
        Self { top, size, below: None }
    }
}

/// A volume that can be made to stand still.
pub(crate) trait Pausable {
    /// What is suspended.
    fn layers(&self) -> Layers;

    /// A channel to device-mapper that was opened before.
    fn control(&mut self) -> &mut DmControl;

    /// Who stands by.
    fn pulse(&self) -> &dyn Pulse;

    /// The counters of the visible device, where they may take the place of a suspend.
    fn stillness(&self) -> Option<&Stillness> {
        None
    }

    /// A thread of its own, where the volume is one of a group: what takes long is done for all of them at the same time.
    fn helper(&self) -> Option<&Helper> {
        None
    }
}

impl<V: Pausable> Pausable for &mut V {
    fn layers(&self) -> Layers {
        (**self).layers()
    }

    fn control(&mut self) -> &mut DmControl {
        (**self).control()
    }

    fn pulse(&self) -> &dyn Pulse {
        (**self).pulse()
    }

    fn stillness(&self) -> Option<&Stillness> {
        (**self).stillness()
    }

    fn helper(&self) -> Option<&Helper> {
        (**self).helper()
    }
}

/// A visible device, for pauses that need nothing else of the volume.
#[derive(Debug)]
pub(crate) struct Top<P> {
    pub(crate) layers: Layers,
    pub(crate) control: DmControl,
    pub(crate) pulse: P,
}

impl<P: Pulse> Pausable for Top<P> {
    fn layers(&self) -> Layers {
        self.layers
    }

    fn control(&mut self) -> &mut DmControl {
        &mut self.control
    }

    fn pulse(&self) -> &dyn Pulse {
        &self.pulse
    }
}

/// What failed, and at which volume of the pause.
#[derive(Debug)]
pub(crate) struct Failed<E> {
    /// The volume's place.
    pub(crate) at: usize,
    /// Why.
    pub(crate) why: E,
}

impl<E> Failed<E> {
    /// The same place, for another reason.
    pub(crate) fn map<F>(self, to: impl FnOnce(E) -> F) -> Failed<F> {
        Failed { at: self.at, why: to(self.why) }
    }
}

impl From<Failed<Self>> for io::Error {
    fn from(failed: Failed<Self>) -> Self {
        failed.why
    }
}

/// Nobody would bring the volume back if this process stopped in the pause.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no watchdog stands by")]
pub struct Unguarded;

/// Why there is no proof that a volume stood still.
#[derive(Debug)]
pub(crate) enum Moved {
    /// Somebody else resumed it, or is about to.
    Resumed,
    /// It cannot be asked.
    Unasked(io::Error),
    /// The counters show a write.
    Written(&'static str),
    /// The counters cannot be relied on.
    Uncounted(io::Error),
}

/// What becomes of the volumes at the end of a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// They run; this is what whoever stands by hears.
    Resume(Phase),
    /// They stay suspended, under the lease of [`Phase::Renewed`].
    Hold,
    /// All their I/O fails. One for which that cannot be done stays suspended.
    Shut,
}

/// A pause of volumes, at least one. They run when it goes.
pub(crate) struct Pause<V: Pausable> {
    volumes: Vec<V>,
    /// What whoever stands by hears meanwhile.
    during: Phase,
    /// What they hear when the volumes run again without an [`end`](Self::end).
    otherwise: Phase,
    began: Instant,
    /// Nothing is left for the drop to do.
    over: bool,
    /// A table may be loaded that is not to become live unless the pause is ended.
    loaded: bool,
    /// A device may be suspended.
    suspended: bool,
    /// From the first suspend to the last resume.
    standstill: Option<Standstill>,
    /// As long.
    expedited: Option<Expedited>,
    /// What the counters said of each volume at the beginning, when they are to prove that nobody writes.
    looks: Vec<Look>,
    _signals: HeldSignals,
}

impl<V: Pausable> Pause<V> {
    /// Says to whoever stands by that the volumes are about to stand still. `otherwise` is what is said when the pause
    /// goes without an [`end`](Self::end).
    ///
    /// # Errors
    /// When nobody stands by for one of them; nothing was touched then.
    pub(crate) fn begin(volumes: Vec<V>, otherwise: Phase) -> Result<Self, Failed<Unguarded>> {
        let mut pause = Self::of(volumes, Phase::Paused, otherwise);
        match pause.volumes.iter().position(|volume| !volume.pulse().beat(Phase::Paused)) {
            Some(at) => {
                // Not begun: neither does it end.
                pause.over = true;
                Err(Failed { at, why: Unguarded })
            }
            None => Ok(pause),
        }
    }

    /// The same, whether anybody stands by or not: for what ends a hold or a capture. To leave those as they are would
    /// be worse. `during` is what is said meanwhile.
    pub(crate) fn begin_anyway(volumes: Vec<V>, during: Phase, otherwise: Phase) -> Self {
        let pause = Self::of(volumes, during, otherwise);
        pause.beat();
        pause
    }

    fn of(volumes: Vec<V>, during: Phase, otherwise: Phase) -> Self {
        let looks = Vec::with_capacity(volumes.len());
        let (began, signals) = (Instant::now(), HeldSignals::hold());
        let (over, loaded, suspended, standstill) = (false, false, false, None);
        Self {
            volumes,
            during,
            otherwise,
            began,
            over,
            loaded,
            suspended,
            standstill,
            expedited: None,
            looks,
            _signals: signals,
        }
    }

    /// The volumes.
    pub(crate) fn volumes(&mut self) -> &mut [V] {
        &mut self.volumes
    }

    /// Since when.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Does `step` for each volume, up to the first for which it fails, with a beat after each.
    pub(crate) fn each<E>(&mut self, mut step: impl FnMut(&mut V) -> Result<(), E>) -> Result<(), Failed<E>> {
        for (at, volume) in self.volumes.iter_mut().enumerate() {
            step(volume).map_err(|why| Failed { at, why })?;
            volume.pulse().beat(self.during);
        }
        Ok(())
    }

    /// Says that the pause makes progress.
    pub(crate) fn beat(&self) {
        self.say(self.during);
    }

    /// Loads a table on each visible device, by `load`. It becomes live when the pause is ended, and is dropped when it
    /// is not.
    pub(crate) fn load<E>(&mut self, load: impl FnMut(&mut V) -> Result<(), E>) -> Result<(), Failed<E>> {
        self.loaded = true;
        self.each(load)
    }

    /// Drains every volume, and holds back what is written from then on. Does nothing to one that is held already.
    pub(crate) fn suspend(&mut self) -> Result<(), Failed<io::Error>> {
        // Before: a device that may be half way is resumed too.
        self.suspended = true;
        self.expedited = Some(Expedited::begin());
        self.standstill = Some(Standstill::begin());
        let task = |volume: &V| Task::Suspend(volume.layers().top);
        self.at_once(task, "one-suspended", |volume| {
            let Layers { top, below, .. } = volume.layers();
            volume.control().suspend(top)?;
            below.map_or(Ok(()), |below| volume.control().suspend(below))
        })
    }

    /// Has the helper of every volume do its task, all at the same time, and waits for all of them. A volume without one
    /// is done by `alone`.
    pub(crate) fn at_once(
        &mut self,
        task: impl Fn(&V) -> Task,
        point: &str,
        mut alone: impl FnMut(&mut V) -> io::Result<()>,
    ) -> Result<(), Failed<io::Error>> {
        for volume in &self.volumes {
            if let Some(helper) = volume.helper() {
                helper.begin(task(volume));
            }
        }
        let mut result = Ok(());
        for (at, volume) in self.volumes.iter_mut().enumerate() {
            // Each of them is waited for, whatever became of the others.
            let done = match volume.helper() {
                Some(helper) => helper.wait(),
                None if result.is_ok() => alone(volume),
                None => continue,
            };
            result = result.and(done.map_err(|why| Failed { at, why }));
            volume.pulse().beat(self.during);
            fault::at(point);
        }
        result
    }

    /// In place of [`suspend`](Self::suspend): somebody else keeps the writers still, and the kernel's counters are to
    /// prove it.
    pub(crate) fn trust_counters(&mut self) -> Result<(), Failed<Moved>> {
        for (at, volume) in self.volumes.iter().enumerate() {
            let look = look(volume, "a write is under way").map_err(|why| Failed { at, why })?;
            self.looks.push(look);
        }
        Ok(())
    }

    /// Proves that every volume has stood still since [`suspend`](Self::suspend), or
    /// [`trust_counters`](Self::trust_counters).
    pub(crate) fn is_still(&mut self) -> Result<(), Failed<Moved>> {
        let Self { volumes, looks, loaded, .. } = self;
        for (at, volume) in volumes.iter_mut().enumerate() {
            is_still(volume, looks.get(at), *loaded).map_err(|why| Failed { at, why })?;
        }
        Ok(())
    }

    /// Ends what an earlier pause left held.
    ///
    /// # Errors
    /// As [`end`](Self::end).
    pub(crate) fn end_hold(mut self) -> Result<Duration, Failed<io::Error>> {
        self.suspended = true;
        let runs = After::Resume(self.otherwise);
        self.end(runs)
    }

    /// Ends the pause; how long it lasted. Every volume is done, also when one of them fails.
    ///
    /// # Errors
    /// The first volume's for which `after` could not be done.
    pub(crate) fn end(mut self, after: After) -> Result<Duration, Failed<io::Error>> {
        // Whatever comes, the drop does not try it once more.
        self.over = true;
        let (ended, phase) = match after {
            After::Resume(phase) => (self.run(), phase),
            After::Hold => (Ok(()), Phase::Renewed),
            After::Shut => (self.every(table::shut), Phase::Tracking),
        };
        let lasted = self.began.elapsed();
        if ended.is_ok() {
            self.say(phase);
        }
        if after == After::Shut {
            fault::at("shut-told");
        }
        ended.map(|()| lasted)
    }

    fn run(&mut self) -> Result<(), Failed<io::Error>> {
        if self.suspended { self.every(run) } else { Ok(()) }
    }

    /// Does `step` for each volume, also where it fails for one.
    fn every(&mut self, step: impl Fn(&mut V) -> io::Result<()>) -> Result<(), Failed<io::Error>> {
        let mut result = Ok(());
        for (at, volume) in self.volumes.iter_mut().enumerate() {
            result = result.and(step(volume).map_err(|why| Failed { at, why }));
        }
        result
    }

    fn say(&self, phase: Phase) {
        for volume in &self.volumes {
            volume.pulse().beat(phase);
        }
    }

    fn complain(&self, what: &str, result: Result<(), Failed<io::Error>>) {
        if let Err(Failed { at, why }) = result {
            log::error!("{what} {}: {why}", self.volumes[at].layers().top);
        }
    }
}

impl<V: Pausable> Drop for Pause<V> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if self.loaded {
            let cleared = self.every(|volume| {
                let top = volume.layers().top;
                volume.control().clear(top)
            });
            self.complain("dropping the table of", cleared);
        }
        let resumed = self.run();
        if resumed.is_ok() {
            self.say(self.otherwise);
        }
        self.complain("resuming", resumed);
    }
}

/// Lets a volume run: what is below it first.
fn run<V: Pausable>(volume: &mut V) -> io::Result<()> {
    let Layers { top, below, .. } = volume.layers();
    let below = below.map_or(Ok(()), |below| resume(volume.control(), below));
    resume(volume.control(), top).and(below)
}

fn look<V: Pausable>(volume: &V, otherwise: &'static str) -> Result<Look, Moved> {
    let counters = volume.stillness().ok_or_else(|| Moved::Uncounted(io::ErrorKind::Unsupported.into()))?;
    match counters.look() {
        Ok(look) if look.in_flight == 0 => Ok(look),
        Ok(_) => Err(Moved::Written(otherwise)),
        Err(e) => Err(Moved::Uncounted(e)),
    }
}

fn is_still<V: Pausable>(volume: &mut V, before: Option<&Look>, loaded: bool) -> Result<(), Moved> {
    let Some(before) = before else {
        let top = volume.layers().top;
        let state = volume.control().state(top).map_err(Moved::Unasked)?;
        // Whoever brings the volume back loads a table first.
        let is_still = state.suspended && (loaded || !state.inactive);
        return if is_still { Ok(()) } else { Err(Moved::Resumed) };
    };
    let now = look(volume, "a write began meanwhile")?;
    if now == *before { Ok(()) } else { Err(Moved::Written("it was written to meanwhile")) }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn nothing_else_suspends_a_device() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&folder, &mut files);
        let (mut pauses, mut wrong) = (0, Vec::new());
        for file in files {
            let place = file.strip_prefix(&folder).unwrap();
            if place.starts_with("pause") || place.ends_with("stack/rescue.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            pauses += text.matches("Pause::begin").count();
            let suspends = |line: &&str| line.replace("pause.suspend()", "").contains(".suspend(");
            wrong.extend(text.lines().filter(suspends).map(|line| format!("{}: {line}", place.display())));
        }
        assert!(pauses > 5, "{pauses} pauses");
        assert!(wrong.is_empty(), "only a pause suspends: {wrong:#?}");
    }
}
