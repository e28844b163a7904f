//! A scenario: a shell script, what its header asks for, and one run of it.
//!
//! What must hold: a scenario passes only when its script ends with 0 in time; when the run is over,
//! so are the script's processes and both hosts.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ftdm_lab_kernels::{Kernel, registers};

use crate::control::Control;
use crate::folder::Folder;
use crate::host::root_image::RootImage;
use crate::host::{self, Kind};
use crate::machines::{HOSTS, Hardware, Machines};

/// What every scenario script can call.
const PRELUDE: &str = include_str!("../prelude.sh");

/// Programs and scripts that the hosts need, apart from the agent.
const GUEST_FILES: [(&str, &str); 2] =
    [("init.sh", include_str!("../guest/init.sh")), ("make-vg.sh", include_str!("../guest/make-vg.sh"))];

/// The programs under test and those that test them: on the hosts' path, when they exist.
pub const PROGRAMS: [&str; 3] = ["ftdm", "ftship", "ftdm-workload"];

/// How long a scenario may take when nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// A script and what its header lines ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// The script's absolute path.
    pub script: PathBuf,
    /// Its file name without `.sh`.
    pub name: String,
    /// What the first comment line after the `#!` says.
    pub summary: String,
    /// What the hosts are made of.
    pub hardware: Hardware,
    /// How long it may take on the quickest back end, the hosts' start included.
    pub timeout: Duration,
    /// The back ends that it runs on, the preferred one first; never empty.
    pub backends: Vec<Kind>,
}

/// What is the same for all the scenarios of one call.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where the runs' folders are.
    pub root: PathBuf,
    /// Where `lab` and `lab-agent` are.
    pub lab_programs: PathBuf,
    /// Where `ftdm` and `ftship` are.
    pub programs: PathBuf,
    /// The repository.
    pub repository: PathBuf,
    /// Where back ends keep what they fetch.
    pub cache: PathBuf,
    /// The back end, instead of what each scenario prefers.
    pub backend: Option<Kind>,
    /// The hosts' kernel.
    pub kernel: Kernel,
    /// `$LAB_SEED`.
    pub seed: u64,
    /// Overrides every scenario's own time-out.
    pub timeout: Option<Duration>,
    /// Overrides every scenario's own disk size.
    pub disk_size: Option<u64>,
    /// Keep the disk images of scenarios that pass.
    pub keep: bool,
    /// Set when everything has to end.
    pub interrupted: Arc<AtomicBool>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The script ended with 0.
    Passed,
    /// It did not; the reason in a few words.
    Failed(String),
    /// The person at the keyboard ended it.
    Interrupted,
}

/// A size in bytes from a number with an optional suffix K, M, G or T (powers of 1024).
///
/// # Errors
/// When it is none.
pub fn parse_size(text: &str) -> Result<u64> {
    let (digits, shift) = match text.chars().last() {
        Some('K' | 'k') => (&text[..text.len() - 1], 10),
        Some('M' | 'm') => (&text[..text.len() - 1], 20),
        Some('G' | 'g') => (&text[..text.len() - 1], 30),
        Some('T' | 't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .with_context(|| format!("`{text}` is not a size"))
}

impl Scenario {
    /// A scenario without a script.
    #[must_use]
    pub fn blank(name: &str) -> Self {
        Scenario {
            script: PathBuf::new(),
            name: name.to_owned(),
            summary: String::new(),
            hardware: Hardware::default(),
            timeout: DEFAULT_TIMEOUT,
            backends: Kind::FOR_ANY_SCENARIO.to_vec(),
        }
    }

    /// The back end that it runs on: `wanted`, or else the one it prefers; `None` when it does not
    /// run on the wanted one.
    #[must_use]
    pub fn backend(&self, wanted: Option<Kind>) -> Option<Kind> {
        match wanted {
            Some(kind) => self.backends.contains(&kind).then_some(kind),
            None => self.backends.first().copied(),
        }
    }

    /// Reads a script's header.
    ///
    /// # Errors
    /// When the file cannot be read or its header asks for something unknown.
    pub fn load(path: &Path) -> Result<Self> {
        let script = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        let text = fs::read_to_string(&script).with_context(|| format!("cannot read {}", path.display()))?;
        let name = script.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let mut scenario = Scenario { script, ..Scenario::blank(&name) };
        scenario.read_header(&text).with_context(|| format!("{}", path.display()))?;
        Ok(scenario)
    }

    /// Says which back ends it runs on.
    #[must_use]
    pub fn runs_on(&self) -> String {
        format!("{} runs only on {}", self.name, host::names(&self.backends))
    }

    fn read_header(&mut self, text: &str) -> Result<()> {
        for line in text.lines().take_while(|line| line.starts_with('#') || line.is_empty()) {
            let Some(settings) = line.strip_prefix("# lab:") else {
                if self.summary.is_empty() && !line.starts_with("#!") {
                    self.summary = line.trim_start_matches('#').trim().to_owned();
                }
                continue;
            };
            for setting in settings.split_whitespace() {
                let (key, value) = setting.split_once('=').with_context(|| format!("`{setting}`: no `=`"))?;
                self.set(key, value).with_context(|| format!("header line `{line}`"))?;
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "timeout" => {
                self.timeout = Duration::from_secs(value.parse().context("not a number of seconds")?);
            }
            "disk-size" => self.hardware.disk_size = check_disk_size(parse_size(value)?)?,
            "memory" => {
                self.hardware.memory_mib = u32::try_from(parse_size(value)? >> 20)
                    .ok()
                    .filter(|mib| (128..=65536).contains(mib))
                    .context("a host has 128M to 64G of memory")?;
            }
            "disks" => {
                self.hardware.disks =
                    value.parse().ok().filter(|count| (1..=8).contains(count)).context("1 to 8 disks")?;
            }
            "root" if value == "debian" => self.hardware.root = true,
            "backends" => self.backends = value.split(',').map(str::parse).collect::<Result<_>>()?,
            _ => bail!(
                "unknown setting `{key}`; there are: timeout, disk-size, memory, disks, root=debian, backends"
            ),
        }
        Ok(())
    }
}

/// Disks consist of whole 4 KiB pages.
///
/// # Errors
/// When the size is none of a disk.
pub fn check_disk_size(size: u64) -> Result<u64> {
    if (64 << 20..=16 << 40).contains(&size) && size.is_multiple_of(4096) {
        Ok(size)
    } else {
        bail!("a disk has 64M to 16T, in multiples of 4K")
    }
}

/// A lab that is up: its folder, its hosts and its control socket.
#[derive(Debug)]
pub struct Lab {
    /// Where its files are.
    pub folder: Arc<Folder>,
    /// Its hosts, and what can be asked of it.
    pub control: Arc<Control>,
    /// What runs them.
    kind: Kind,
    /// The scenario's time-out on this back end.
    timeout: Duration,
    /// By how much other time-outs are multiplied.
    slowness: u32,
}

impl Lab {
    /// Boots two hosts for `scenario`.
    ///
    /// # Errors
    /// When a host does not come up, or the scenario does not run on the back end that is wanted.
    pub fn start(scenario: &Scenario, setting: &Setting) -> Result<Self> {
        let kind = scenario.backend(setting.backend).with_context(|| scenario.runs_on())?;
        let backend = kind.backend(setting.kernel, &setting.cache);
        let slowness = backend.slowness();
        let folder = Arc::new(Folder::create(&setting.root, &scenario.name)?);
        install_programs(&folder, setting)?;
        backend.install(&folder.programs())?;
        let mut hardware = scenario.hardware;
        hardware.disk_size = setting.disk_size.unwrap_or(hardware.disk_size);
        let root = RootImage::new(&setting.cache);
        let machines = Machines::new(backend, hardware, &root, Arc::clone(&folder))?;
        machines.start()?;
        let control = Control::start(machines, Arc::clone(&folder))?;
        let timeout = setting.timeout.unwrap_or(scenario.timeout * slowness);
        Ok(Lab { control, folder, kind, timeout, slowness })
    }

    /// Runs a script against the hosts until the scenario's time, counted from `begun`, is over;
    /// lines it prints go to the log and to `each_line`.
    ///
    /// # Errors
    /// When the script cannot be started.
    pub fn script(
        &self,
        script: &Path,
        setting: &Setting,
        begun: Instant,
        each_line: impl Fn(&str) + Send + 'static,
    ) -> Result<Outcome> {
        let (output, writer) = io::pipe().context("cannot make the script's output")?;
        let mut log = File::options().create(true).append(true).open(self.folder.log())?;
        // In its own process namespace, so that nothing it starts outlives it. Bash reads what it sources whole, but
        // a script piece by piece: one that is edited meanwhile would end early, and pass.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"])
            .args(["--mount-proc", "sh", "-c", "bash -c '. \"$1\"' scenario \"$1\"; exit $?", "scenario"])
            .arg(script)
            .current_dir(self.folder.path())
            .env("BASH_ENV", self.folder.programs().join("prelude.sh"))
            .env("LAB", self.folder.programs().join("lab"))
            .env("LAB_DIR", self.folder.path())
            .env("LAB_SEED", setting.seed.to_string())
            .env("LAB_REPOSITORY", &setting.repository)
            .env("LAB_BACKEND", self.kind.to_string())
            .env("LAB_KERNEL", setting.kernel.to_string())
            .env("LAB_SLOWNESS", self.slowness.to_string())
            .env("SHARE", self.folder.share())
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .context("cannot start the script")?;
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { return };
                let line = String::from_utf8_lossy(&line);
                // The log is a convenience; a full file system shows elsewhere.
                let _ = writeln!(log, "{line}");
                each_line(&line);
            }
        });
        let outcome = loop {
            if let Some(status) = child.try_wait()? {
                break script_outcome(status);
            }
            if setting.interrupted.load(Ordering::Relaxed) {
                break Outcome::Interrupted;
            }
            if begun.elapsed() > self.timeout {
                break Outcome::Failed("took too long".to_owned());
            }
            thread::sleep(Duration::from_millis(10));
        };
        if !matches!(child.try_wait(), Ok(Some(_))) {
            child.kill().context("cannot end the script")?;
            child.wait().context("cannot wait for the script's end")?;
        }
        // All writers of its output are gone with the namespace.
        let _ = reader.join();
        Ok(outcome)
    }

    /// Cuts the hosts' power.
    pub fn stop(&self) {
        self.control.machines().stop();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
    }
}

fn script_outcome(status: ExitStatus) -> Outcome {
    match status.code() {
        Some(0) => Outcome::Passed,
        Some(code) => Outcome::Failed(format!("exit code {code}")),
        None => Outcome::Failed(format!("{status}")),
    }
}

/// Copies everything a run needs, so that a build meanwhile does not disturb it.
fn install_programs(folder: &Folder, setting: &Setting) -> Result<()> {
    let programs = folder.programs();
    let copy = |from: &Path, name: &str| -> Result<()> {
        let source = from.join(name);
        fs::copy(&source, programs.join(name))
            .with_context(|| format!("cannot copy {}", source.display()))?;
        Ok(())
    };
    copy(&setting.lab_programs, "lab")?;
    copy(&setting.lab_programs, "lab-agent")?;
    copy(&setting.lab_programs, registers::LIBRARY)?;
    for name in PROGRAMS {
        if setting.programs.join(name).exists() {
            copy(&setting.programs, name)?;
        }
    }
    for (name, text) in GUEST_FILES.into_iter().chain([("prelude.sh", PRELUDE)]) {
        let path = programs.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, executable).context("cannot make a script executable")?;
    }
    Ok(())
}

/// What became of a run.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// Its files.
    pub folder: Arc<Folder>,
    /// The hosts that ended by themselves and were not switched on again, each with its name and why.
    pub deaths: Vec<(&'static str, String)>,
}

/// One run of one scenario, from blank disks to the end of both hosts.
///
/// # Errors
/// When the lab itself fails, as opposed to the script.
pub fn run(scenario: &Scenario, setting: &Setting, each_line: impl Fn(&str) + Send + 'static) -> Result<Ran> {
    let begun = Instant::now();
    let lab = Lab::start(scenario, setting)?;
    let outcome = lab.script(&scenario.script, setting, begun, each_line)?;
    let machines = lab.control.machines();
    let deaths = HOSTS.into_iter().enumerate();
    let deaths = deaths.filter_map(|(index, name)| Some((name, machines.death(index)?))).collect();
    lab.stop();
    if outcome == Outcome::Passed && !setting.keep {
        lab.folder.remove_images();
    }
    Ok(Ran { outcome, folder: Arc::clone(&lab.folder), deaths })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(text: &str) -> Result<Scenario> {
        let mut scenario = Scenario::blank("");
        scenario.read_header(text).map(|()| scenario)
    }

    #[test]
    fn a_header_sets_what_it_names() {
        let text = "#!/bin/bash\n# What it shows.\n# lab: timeout=600 memory=1G\n# lab: disk-size=64G disks=2 root=debian\n";
        let scenario = with_header(text).unwrap();
        assert_eq!(scenario.summary, "What it shows.");
        assert_eq!(scenario.timeout, Duration::from_secs(600));
        let expected = Hardware { memory_mib: 1024, disk_size: 64 << 30, disks: 2, root: true };
        assert_eq!(scenario.hardware, expected);
    }

    #[test]
    fn the_flag_chooses_among_the_scenario_s_back_ends() {
        let any = Scenario::blank("");
        assert_eq!((any.backend(None), any.backend(Some(Kind::Qemu))), (Some(Kind::Uml), Some(Kind::Qemu)));
        let one = with_header("# lab: backends=qemu\n").unwrap();
        assert_eq!((one.backend(None), one.backend(Some(Kind::Uml))), (Some(Kind::Qemu), None));
        let both = with_header("# lab: backends=qemu,uml\n").unwrap();
        assert_eq!((both.backend(None), both.backend(Some(Kind::Uml))), (Some(Kind::Qemu), Some(Kind::Uml)));
    }

    #[test]
    fn a_back_end_whose_volume_group_does_not_outlive_a_power_cut_is_only_for_those_that_name_it() {
        assert_eq!(Scenario::blank("").backend(Some(Kind::Icount)), None);
        let named = with_header("# lab: backends=uml,icount\n").unwrap();
        assert_eq!(
            (named.backend(None), named.backend(Some(Kind::Icount))),
            (Some(Kind::Uml), Some(Kind::Icount))
        );
    }

    #[test]
    fn settings_after_the_first_command_do_not_count() {
        assert_eq!(with_header("true\n# lab: nonsense=1\n").unwrap().hardware, Hardware::default());
    }

    #[test]
    fn a_wrong_header_is_an_error() {
        for line in [
            "timeout=soon",
            "memory=1M",
            "disk-size=5",
            "colour=red",
            "timeout",
            "disks=0",
            "backends=",
            "backends=uml,xen",
        ] {
            assert!(with_header(&format!("# lab: {line}\n")).is_err(), "{line}");
        }
    }
}
