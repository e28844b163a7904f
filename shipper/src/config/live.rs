//! What of a changed configuration a running daemon takes over.
//!
//! Always holds: every key is either taken over or named as one that needs a restart; a new key does not compile until
//! somebody has said which. What is in force afterwards, new values and old ones together, could stand in a file.

use super::{Config, ConfigError, Limits, Snapshots, Verify, check};

/// What became of a configuration that was read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Keys whose new values hold from now on.
    pub live: Vec<&'static str>,
    /// Keys whose old values hold until the daemon is restarted.
    pub restart: Vec<&'static str>,
    /// Keys that a daemon never looks at, also after a restart.
    pub ignored: Vec<&'static str>,
}

impl Config {
    /// Takes over from `new` what can change while the daemon runs.
    ///
    /// # Errors
    /// When that does not fit what cannot change: then nothing is taken over.
    pub fn take(&mut self, new: &Self) -> Result<Taken, ConfigError> {
        let mut result = self.clone();
        let taken = result.merge(new);
        let faults = check::judge(&result);
        if !faults.is_empty() {
            let path = new.path.display().to_string();
            return Err(ConfigError::NeedsRestart { path, restart: taken.restart, faults });
        }
        *self = result;
        Ok(taken)
    }

    fn merge(&mut self, new: &Self) -> Taken {
        let mut taken = Taken::default();
        self.note(new, &mut taken);
        self.note_limits(&new.limits, &mut taken.live, &mut taken.restart);
        self.epoch = new.epoch;
        (self.roll_interval, self.resync_target) = (new.roll_interval, new.resync_target);
        self.journal.apply_delay = new.journal.apply_delay;
        self.snapshots = new.snapshots.clone();
        let Verify { every, repair, rate: _ } = new.verify;
        (self.verify.every, self.verify.repair) = (every, repair);
        taken
    }

    fn note(&self, new: &Self, Taken { live, restart, ignored }: &mut Taken) {
        let Self {
            group,
            role,
            address,
            peer,
            tls,
            tls_off_on_a_network: _,
            control_group,
            allow_kernel: _,
            state,
            epoch,
            roll_interval,
            resync_target,
            mode,
            capture,
            commit,
            ack,
            volume,
            log,
            journal,
            limits: _,
            watchdog,
            hooks,
            verify,
            snapshots,
            audit,
            path: _,
        } = new;
        // Only `ftship format` looks at it.
        ignored.extend(keys([("role", *role != self.role)]));
        let Snapshots { every, keep } = snapshots;
        let changed = [
            ("epoch", *epoch != self.epoch),
            ("roll-interval", *roll_interval != self.roll_interval),
            ("resync-target", *resync_target != self.resync_target),
            ("journal.apply-delay", journal.apply_delay != self.journal.apply_delay),
            ("snapshots.every", *every != self.snapshots.every),
            ("snapshots.keep", *keep != self.snapshots.keep),
            ("verify.every", verify.every != self.verify.every),
            ("verify.repair", verify.repair != self.verify.repair),
        ];
        live.extend(keys(changed));
        let changed = [
            ("group", *group != self.group),
            ("address", *address != self.address),
            ("peer", *peer != self.peer),
            ("tls", *tls != self.tls),
            ("control-group", *control_group != self.control_group),
            ("state", *state != self.state),
            ("mode", *mode != self.mode),
            ("capture", *capture != self.capture),
            ("commit", *commit != self.commit),
            ("ack", *ack != self.ack),
            ("volume", *volume != self.volume),
            ("log", *log != self.log),
            ("journal.device", journal.device != self.journal.device),
            ("watchdog", *watchdog != self.watchdog),
            ("hooks", *hooks != self.hooks),
            ("verify.rate", verify.rate != self.verify.rate),
            ("audit", *audit != self.audit),
        ];
        restart.extend(keys(changed));
    }

    fn note_limits(&mut self, new: &Limits, live: &mut Vec<&'static str>, restart: &mut Vec<&'static str>) {
        let old = &mut self.limits;
        let &Limits {
            pause_budget,
            pause_limit,
            era_pause,
            window,
            timeout,
            log_watermark,
            void_cuts,
            overrun,
            throttle_lease,
            switch_hold,
            on_fence,
            fence_lease,
        } = new;
        let changed = [
            ("limits.pause-budget", pause_budget != old.pause_budget),
            ("limits.pause-limit", pause_limit != old.pause_limit),
            ("limits.window", window != old.window),
            ("limits.timeout", timeout != old.timeout),
            ("limits.void-cuts", void_cuts != old.void_cuts),
        ];
        live.extend(keys(changed));
        // The first is part of how the core was built; the thread that holds writes back has the rest.
        let changed = [
            ("limits.era-pause", era_pause != old.era_pause),
            ("limits.log-watermark", log_watermark != old.log_watermark),
            ("limits.overrun", overrun != old.overrun),
            ("limits.throttle-lease", throttle_lease != old.throttle_lease),
            ("limits.switch-hold", switch_hold != old.switch_hold),
            ("limits.on-fence", on_fence != old.on_fence),
            ("limits.fence-lease", fence_lease != old.fence_lease),
        ];
        restart.extend(keys(changed));
        (old.pause_budget, old.pause_limit, old.window) = (pause_budget, pause_limit, window);
        (old.timeout, old.void_cuts) = (timeout, void_cuts);
    }
}

/// The keys that changed.
fn keys<const N: usize>(changed: [(&'static str, bool); N]) -> impl Iterator<Item = &'static str> {
    changed.into_iter().filter_map(|(key, is_changed)| is_changed.then_some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "group = 'vm1'\nrole = 'primary'\naddress = '10.9.0.1:7'\npeer = '10.9.0.2:7'\nstate = '/s'\n\
        epoch = '50ms'\n[[volume]]\nname = 'v'\ndevice = '/d'\n[journal]\ndevice = '/j'\n[limits]\nwindow = 8\n";

    fn config(text: &str) -> Config {
        Config::parse("t.toml", text).unwrap()
    }

    #[test]
    fn what_can_change_live_does_and_the_rest_stays_and_is_named() {
        let mut running = config(TEXT);
        assert_eq!(running.take(&config(TEXT)).unwrap(), Taken::default());
        let new = TEXT.replace("50ms", "1s").replace("window = 8", "window = 4\noverrun = 'throttle'");
        let new = new.replace("10.9.0.2", "10.9.0.3").replace("role = 'primary'", "role = 'backup'");
        let taken = running.take(&config(&new)).unwrap();
        assert_eq!(taken.live, ["epoch", "limits.window"]);
        assert_eq!(taken.restart, ["peer", "limits.overrun"]);
        assert_eq!((running.epoch.as_secs(), running.limits.window), (1, 4));
        assert_eq!(running.peer, config(TEXT).peer);
        assert_eq!(running.limits.overrun, config(TEXT).limits.overrun);
        // Asked once more: what waits for a restart is named again, what holds is not.
        let taken = running.take(&config(&new)).unwrap();
        assert_eq!((taken.live, taken.restart), (Vec::new(), vec!["peer", "limits.overrun"]));
    }

    #[test]
    fn what_no_file_may_say_together_is_not_put_into_force() {
        let limits = |pause, watchdog| {
            let limits = format!("[limits]\npause-limit = '{pause}'");
            TEXT.replace("[limits]", &limits)
                + &format!("[watchdog]\npause-timeout = '{watchdog}'\ntimeout = '5s'\n")
        };
        for (old, new, restart, fault) in [
            (
                limits("100ms", "500ms"),
                limits("500ms", "3s"),
                "watchdog",
                "`watchdog.pause-timeout`: \"500ms\" is not",
            ),
            (
                TEXT.to_owned(),
                format!("mode = 'interval'\n{}", TEXT.replace("50ms", "7days")),
                "mode",
                "`epoch`: \"7days\" is not",
            ),
        ] {
            let mut running = config(&old);
            let error = running.take(&config(&new)).unwrap_err().to_string();
            assert!(error.contains(&format!("({restart})")) && error.contains(fault), "{error}");
            assert_eq!(format!("{running:?}"), format!("{:?}", config(&old)), "nothing of it is in force");
        }
    }
}
