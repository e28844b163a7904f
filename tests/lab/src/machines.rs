//! The two hosts of a run: their power switches, disks and the link between them.
//!
//! What must hold: disks outlive their hosts; a power cut first ends every process of the host,
//! then the disks' servers, and only then lets the disks lose what was not flushed, so that nothing
//! is written afterwards.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ftdm_lab_kernels::death;

use crate::agent::channel::Channel;
use crate::agent::frame::{Message, Stream};
use crate::disk::overlay::{CachedDisk, Flushes, Survivors};
use crate::disk::vhost::Server;
use crate::folder::{Folder, ShortPath};
use crate::host::root_image::RootImage;
use crate::host::{Backend, Boot, Host};
use crate::link::Link;

/// The hosts' names.
pub const HOSTS: [&str; 2] = ["primary", "backup"];

/// Their addresses on the link.
pub const ADDRESSES: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

/// Unflushed bytes that a disk's cache holds at most.
const CACHE_LIMIT: usize = 256 << 20;

const BOOT_PATIENCE: Duration = Duration::from_secs(120);
const DEATH_PATIENCE: Duration = Duration::from_secs(20);
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(2);

/// What the hosts are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// Memory of each host in MiB.
    pub memory_mib: u32,
    /// Size of each disk in bytes.
    pub disk_size: u64,
    /// Disks of each host: the first carries the volume group, the others are blank.
    pub disks: u8,
    /// Each boots from a disk of its own, behind the others, and keeps what is written to it.
    pub root: bool,
}

impl Default for Hardware {
    fn default() -> Self {
        Hardware { memory_mib: 768, disk_size: 8 << 30, disks: 1, root: false }
    }
}

/// The two hosts.
#[derive(Debug)]
pub struct Machines {
    backend: Box<dyn Backend>,
    hardware: Hardware,
    folder: Arc<Folder>,
    link: Link,
    machines: [Machine; 2],
}

#[derive(Debug)]
struct Machine {
    name: &'static str,
    sockets: ShortPath,
    disks: Vec<Arc<Mutex<CachedDisk>>>,
    running: Mutex<Option<Running>>,
    /// The same channel as in `running`, reachable while the power switch is being used.
    channel: Mutex<Option<Arc<Channel>>>,
}

#[derive(Debug)]
struct Running {
    host: Box<dyn Host>,
    servers: Vec<Server>,
    channel: Arc<Channel>,
    /// Where its own words begin in the console's file, in bytes.
    console: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The index of a host's name.
///
/// # Errors
/// When there is no such host.
pub fn host_index(name: &[u8]) -> Result<usize> {
    HOSTS.iter().position(|host| host.as_bytes() == name).ok_or_else(|| {
        anyhow!("no host `{}`; there are: {}", String::from_utf8_lossy(name), HOSTS.join(", "))
    })
}

/// The device of a host's disk, counted from 0.
fn disk_name(number: usize) -> String {
    let letter = u8::try_from(number).map_or('a', |number| char::from(b'a' + number));
    format!("/dev/vd{letter}")
}

impl Machines {
    /// Two hosts that are off, with blank disks, in `folder`; where they have root disks, these are copies of `root`.
    ///
    /// # Errors
    /// When disks or link cannot be made.
    pub fn new(
        backend: Box<dyn Backend>,
        hardware: Hardware,
        root: &RootImage,
        folder: Arc<Folder>,
    ) -> Result<Self> {
        let machine = |name: &'static str| -> Result<Machine> {
            let disk = |path: &Path| -> Result<_> {
                let image = File::options().read(true).write(true).open(path);
                let image = image.with_context(|| format!("cannot open {}", path.display()))?;
                let size = image.metadata().context("cannot tell the size of a disk image")?.len();
                Ok(Arc::new(Mutex::new(CachedDisk::new(image, size, CACHE_LIMIT))))
            };
            let mut disks = Vec::new();
            for number in 0..hardware.disks {
                let path = folder.of_host(name, &format!("disk{number}.img"));
                let image = File::create_new(&path);
                let image = image.with_context(|| format!("cannot make {}", path.display()))?;
                image.set_len(hardware.disk_size).context("cannot set the size of a disk image")?;
                disks.push(disk(&path)?);
            }
            if hardware.root {
                let path = folder.of_host(name, "root.img");
                root.copy_to(&path)?;
                disks.push(disk(&path)?);
            }
            Ok(Machine {
                name,
                sockets: ShortPath::open(&folder.of_host(name, "sockets"))?,
                disks,
                running: Mutex::new(None),
                channel: Mutex::new(None),
            })
        };
        let machines = [machine(HOSTS[0])?, machine(HOSTS[1])?];
        Ok(Machines { backend, hardware, folder, link: Link::new()?, machines })
    }

    /// Starts both hosts for the first time and makes their volume groups.
    ///
    /// # Errors
    /// When a host does not come up.
    pub fn start(&self) -> Result<()> {
        thread::scope(|scope| {
            let starting = [0, 1].map(|index| {
                scope.spawn(move || {
                    self.power_on(index)?;
                    self.make_volume_group(index)
                })
            });
            for start in starting {
                start.join().map_err(|_| anyhow!("starting a host panicked"))??;
            }
            Ok(())
        })
    }

    fn make_volume_group(&self, index: usize) -> Result<()> {
        let channel = self.channel(index).context("the host is off")?;
        let words = ["/lab/bin/make-vg.sh"].map(|word| word.as_bytes().to_vec()).to_vec();
        let session = channel.run(words).context("the host is gone")?;
        let mut said = Vec::new();
        for message in &session.messages {
            match message {
                Message::Data(stream, bytes) => {
                    let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    channel.send(session.id, Message::Taken(stream, taken));
                    if stream == Stream::Stderr {
                        said.extend(bytes);
                    }
                }
                Message::Exit(0) => return Ok(()),
                _ => break,
            }
        }
        bail!("cannot make {}'s volume group: {}", HOSTS[index], String::from_utf8_lossy(&said).trim())
    }

    /// Switches a host on and waits until it takes commands.
    ///
    /// # Errors
    /// When it is on already or does not come up.
    pub fn power_on(&self, index: usize) -> Result<()> {
        let machine = &self.machines[index];
        let mut running = lock(&machine.running);
        if let Some(was) = running.take() {
            if !was.channel.wait_ended(Duration::ZERO) {
                *running = Some(was);
                bail!("{} is on already", machine.name);
            }
            self.end(index, was, Survivors::Nothing)?;
        }
        let now = self.boot(index).with_context(|| {
            let console = self.folder.of_host(machine.name, "console.log");
            format!("cannot start {} (its console: {})", machine.name, console.display())
        })?;
        *lock(&machine.channel) = Some(Arc::clone(&now.channel));
        *running = Some(now);
        Ok(())
    }

    fn boot(&self, index: usize) -> Result<Running> {
        let machine = &self.machines[index];
        let disks: Vec<String> = (0..machine.disks.len()).map(|number| format!("disk{number}")).collect();
        let servers = machine.disks.iter().zip(&disks);
        let servers = servers
            .map(|(disk, name)| Server::start(Arc::clone(disk), &machine.sockets.join(name)))
            .collect::<Result<Vec<_>>>()?;
        let console = self.folder.of_host(machine.name, "console.log");
        let before = fs::metadata(&console).map_or(0, |file| file.len());
        let (near, far) = UnixStream::pair().context("cannot make the agent's channel")?;
        let channel = Arc::new(Channel::new(near)?);
        self.link.set_on(index, true)?;
        let host = self.backend.boot(Boot {
            name: machine.name.to_owned(),
            address: ADDRESSES[index].to_owned(),
            memory_mib: self.hardware.memory_mib,
            sockets: self.folder.of_host(machine.name, "sockets"),
            root: self.hardware.root.then(|| disk_name(machine.disks.len() - 1)),
            disks,
            programs: self.folder.programs(),
            share: self.folder.share(),
            scratch: self.folder.of_host(machine.name, "scratch"),
            console,
            network: self.link.end(index)?,
            agent: far.into(),
        })?;
        let mut running = Running { host, servers, channel, console: before };
        if let Err(error) = running.channel.wait_ready(BOOT_PATIENCE * self.backend.slowness()) {
            let why = self.explain(index, &mut running);
            self.end(index, running, Survivors::Nothing)?;
            bail!("{error}\n{why}");
        }
        Ok(running)
    }

    /// Why a host ended by itself, or waits for its disk for good; `None` when it does neither, or its switch is being
    /// used.
    #[must_use]
    pub fn death(&self, index: usize) -> Option<String> {
        let mut running = self.machines[index].running.try_lock().ok()?;
        let running = running.as_mut()?;
        if let Some(trouble) = running.servers.iter().find_map(Server::trouble) {
            return Some(format!("a disk has stopped: {trouble}"));
        }
        running.channel.wait_ended(Duration::ZERO).then(|| self.explain(index, running))
    }

    fn explain(&self, index: usize, running: &mut Running) -> String {
        let code = running.host.wait_end(LAST_WORDS_PATIENCE);
        let console = fs::read(self.folder.of_host(HOSTS[index], "console.log")).unwrap_or_default();
        let from = usize::try_from(running.console).unwrap_or(0).min(console.len());
        let kernel = self.backend.kernel().unwrap_or_else(|_| "unknown".to_owned());
        death::explain(&String::from_utf8_lossy(&console[from..]), &kernel, code)
    }

    /// Cuts a host's power.
    ///
    /// # Errors
    /// When it is off already, or cannot be ended.
    pub fn power_off(&self, index: usize, survivors: Survivors) -> Result<()> {
        let machine = &self.machines[index];
        let running = lock(&machine.running).take();
        let running = running.with_context(|| format!("{} is off already", machine.name))?;
        *lock(&machine.channel) = None;
        self.end(index, running, survivors)
    }

    fn end(&self, index: usize, mut running: Running, survivors: Survivors) -> Result<()> {
        let machine = &self.machines[index];
        running.host.kill()?;
        if !running.channel.wait_ended(DEATH_PATIENCE) {
            bail!("{} is still there {} s after it was killed", machine.name, DEATH_PATIENCE.as_secs());
        }
        self.link.set_on(index, false)?;
        for server in running.servers {
            server.finish()?;
        }
        for disk in &machine.disks {
            lock(disk).cut_power(survivors).context("cannot write to a disk image")?;
        }
        self.write_stats(index);
        Ok(())
    }

    /// Cuts the power of every host that is on.
    pub fn stop(&self) {
        for index in 0..HOSTS.len() {
            // Fails when the host is off already, which is what is wanted.
            let _ = self.power_off(index, Survivors::Nothing);
        }
    }

    /// The channel to a host's agent; `None` when the host is off.
    #[must_use]
    pub fn channel(&self, index: usize) -> Option<Arc<Channel>> {
        lock(&self.machines[index].channel).clone()
    }

    /// Pulls the link's cable, or plugs it in.
    ///
    /// # Errors
    /// As [`Link::set_up`].
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.link.set_up(up)
    }

    /// What becomes of the flushes of a host's disk from now on.
    ///
    /// # Errors
    /// When it has no such disk.
    pub fn set_flushes(&self, index: usize, disk: usize, flushes: Flushes) -> Result<()> {
        let machine = &self.machines[index];
        let found = machine.disks.get(disk);
        let found = found.with_context(|| format!("{} has no disk {disk}", machine.name))?;
        lock(found).set_flushes(flushes);
        Ok(())
    }

    /// What a host's disks have done, one line per disk.
    #[must_use]
    pub fn stats(&self, index: usize) -> String {
        let mut text = String::new();
        for (number, disk) in self.machines[index].disks.iter().enumerate() {
            let c = lock(disk).counters();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "disk={number} reads={} read-bytes={} writes={} written-bytes={} flushes={} failed-flushes={} discards={} \
                 written-through-bytes={} lost-sectors={} survived-sectors={}",
                c.reads,
                c.read_bytes,
                c.writes,
                c.written_bytes,
                c.flushes,
                c.failed_flushes,
                c.discards,
                c.written_through_bytes,
                c.lost_sectors,
                c.survived_sectors
            );
        }
        text
    }

    fn write_stats(&self, index: usize) {
        let path = self.folder.of_host(HOSTS[index], "disks.stats");
        // The figures are also there for the asking; a run does not fail over this file.
        let _ = fs::write(path, self.stats(index));
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.stop();
    }
}
