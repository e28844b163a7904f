//! Hosts that are virtual machines with a distribution's kernel, without KVM.
//!
//! QEMU runs in a cage ([`super::cage`]) and translates the guest's code. The machine's own programs
//! are the root through 9p, read-only; only the share is exported writable. Disks are vhost-user
//! devices, for which the guest's memory is a file that is shared with their server. What must hold:
//! see [`super`].
//!
//! A host has two CPUs and the machine's time, or one CPU and a clock that counts its instructions
//! ([`Clock`]). Of the second kind is the primary of the back end `icount`. What must hold for it: a
//! write to its volume group waits for nothing outside the host.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ftdm_lab_kernels::Kernel;
use ftdm_lab_kernels::qemu::{FIRMWARE, PROGRAM, check};
use ftdm_lab_kernels::stock::Stock;

use super::cage::{self, AGENT, NETWORK};
use super::{Backend, Boot, Host, initramfs};

/// The initramfs among the hosts' programs.
const INITRAMFS: &str = "initramfs.cpio";

/// What the initramfs loads; the rest comes from the 9p root.
const MODULES: [&str; 3] = ["virtio_pci", "9pnet_virtio", "9p"];

/// Words for every host's kernel. From 6.12 on it panics at the start when a busy machine keeps the timer's interrupt
/// waiting, unless it is asked not to check.
const KERNEL_LINE: [&str; 3] = ["console=ttyS0", "mitigations=off", "no_timer_check"];

/// Entries of a disk's queue: what the disk's server supports at most.
const QUEUE: u32 = 256;

/// The host whose clock counts instructions in the back end `icount`.
const MEASURED_HOST: &str = "primary";

/// How time passes in a host, and what goes with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// As in the machine: two CPUs, and the disks that the lab serves.
    Machine,
    /// A nanosecond for each instruction; a halted CPU skips to its next timer. One CPU, and a disk in the
    /// host's own memory.
    Instructions,
}

impl Clock {
    /// QEMU's options.
    fn options(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Clock::Machine => &[("-accel", "tcg,thread=multi,tb-size=256"), ("-cpu", "max"), ("-smp", "2")],
            // QEMU counts a string instruction by its iterations: with erms and fsrm the kernel would copy byte by
            // byte, at eight times the price.
            Clock::Instructions => &[
                ("-accel", "tcg,thread=single,tb-size=256"),
                ("-icount", "shift=0,sleep=off"),
                ("-cpu", "max,-erms,-fsrm"),
                ("-smp", "1"),
            ],
        }
    }

    /// Words for the kernel.
    fn kernel_words(self) -> &'static [&'static str] {
        match self {
            // On a busy machine the kernel may take the time stamp counter's speed for a tenth of what it is and
            // let time pass ten times as fast, so that counter is not to be trusted.
            Clock::Machine => &["tsc=unstable"],
            Clock::Instructions => &["tsc=reliable", "noautogroup", "LAB_CLOCK=instructions"],
        }
    }
}

/// The back ends `qemu` and `icount`.
#[derive(Debug)]
pub struct Qemu {
    kernel: Stock,
    /// The clock of [`MEASURED_HOST`].
    clock: Clock,
}

impl Qemu {
    /// Hosts with `kernel`, which is kept in the folder `cache`.
    #[must_use]
    pub fn new(kernel: Kernel, cache: &Path) -> Self {
        Qemu { kernel: Stock::new(kernel, cache), clock: Clock::Machine }
    }

    /// The same, with a primary whose clock counts its instructions.
    #[must_use]
    pub fn counting_instructions(kernel: Kernel, cache: &Path) -> Self {
        Qemu { clock: Clock::Instructions, ..Qemu::new(kernel, cache) }
    }
}

impl Backend for Qemu {
    fn prepare(&self, say: &dyn Fn(&str)) -> Result<()> {
        check()?;
        self.kernel.provide(say).context("cannot provide the hosts' kernel")
    }

    fn install(&self, programs: &Path) -> Result<()> {
        let modules = self.kernel.modules(&MODULES)?;
        let archive = initramfs::build(&self.kernel.busybox(), &modules)?;
        fs::write(programs.join(INITRAMFS), archive).context("cannot write the initramfs")
    }

    fn kernel(&self) -> Result<String> {
        Ok(format!("Debian's Linux {} on QEMU", self.kernel.release()?))
    }

    fn slowness(&self) -> u32 {
        4
    }

    fn boot(&self, boot: Boot) -> Result<Box<dyn Host>> {
        let clock = if boot.name == MEASURED_HOST { self.clock } else { Clock::Machine };
        let command = command(&boot, clock);
        cage::start(boot, command, Some(self.kernel.folder()))
    }
}

/// QEMU with its command line.
fn command(boot: &Boot, clock: Clock) -> Vec<String> {
    let memory = format!("{}M", boot.memory_mib);
    let mut kernel_line = KERNEL_LINE.map(str::to_owned).to_vec();
    kernel_line.extend(clock.kernel_words().iter().map(|&word| word.to_owned()));
    kernel_line.extend(boot.kernel_words("qemu"));
    let kernel_line = kernel_line.join(" ");
    let initramfs = format!("/lab/bin/{INITRAMFS}");
    let memory_object = format!("memory-backend-memfd,id=memory,size={memory},share=on");
    let agent = format!("socket,id=agent,fd={AGENT}");
    let link = format!("dgram,id=link,local.type=fd,local.str={NETWORK}");
    let interface = format!("virtio-net-pci,netdev=link,romfile=,mac={}", boot.mac());
    let options = [
        ("-machine", "q35,memory-backend=memory"),
        ("-m", &memory),
        ("-object", &memory_object),
        ("-display", "none"),
        ("-bios", FIRMWARE),
        ("-kernel", "/lab/kernel/vmlinuz"),
        ("-initrd", &initramfs),
        ("-append", &kernel_line),
        ("-chardev", "stdio,id=console,signal=off"),
        ("-serial", "chardev:console"),
        ("-virtfs", "local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap"),
        ("-virtfs", "local,path=/share,mount_tag=share,security_model=none,multidevs=remap"),
        ("-device", "virtio-serial-pci"),
        ("-chardev", &agent),
        ("-device", "virtserialport,chardev=agent,name=agent"),
        ("-netdev", &link),
        ("-device", &interface),
        ("-device", "virtio-rng-pci"),
    ];
    let mut line = [PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned).to_vec();
    let options = clock.options().iter().copied().chain(options);
    line.extend(options.flat_map(|(option, value)| [option.to_owned(), value.to_owned()]));
    for disk in &boot.disks {
        line.push("-chardev".to_owned());
        line.push(format!("socket,id={disk},path=/lab/sockets/{disk}"));
        line.push("-device".to_owned());
        line.push(format!("vhost-user-blk-pci,chardev={disk},num-queues=1,queue-size={QUEUE}"));
    }
    line
}
