//! Hosts that are virtual machines with a distribution's kernel and two CPUs, without KVM.
//!
//! QEMU runs in a cage ([`super::cage`]) and translates the guest's code. The machine's own programs
//! are the root through 9p, read-only; only the share is exported writable. Disks are vhost-user
//! devices, for which the guest's memory is a file that is shared with their server. What must hold:
//! see [`super`].

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

/// Words for the kernel. From 6.12 on it panics at the start when a busy machine keeps the timer's interrupt waiting,
/// unless it is asked not to check. On a busy machine it may take the time stamp counter's speed for a tenth of
/// what it is and let time pass ten times as fast, so that counter is not to be trusted.
const KERNEL_LINE: [&str; 4] = ["console=ttyS0", "mitigations=off", "tsc=unstable", "no_timer_check"];

/// Entries of a disk's queue: what the disk's server supports at most.
const QUEUE: u32 = 256;

/// The back end `qemu`.
#[derive(Debug)]
pub struct Qemu {
    kernel: Stock,
}

impl Qemu {
    /// Hosts with `kernel`, which is kept in the folder `cache`.
    #[must_use]
    pub fn new(kernel: Kernel, cache: &Path) -> Self {
        Qemu { kernel: Stock::new(kernel, cache) }
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
        let command = command(&boot);
        cage::start(boot, command, Some(self.kernel.folder()))
    }
}

/// QEMU with its command line.
fn command(boot: &Boot) -> Vec<String> {
    let memory = format!("{}M", boot.memory_mib);
    let mut kernel_line = KERNEL_LINE.map(str::to_owned).to_vec();
    kernel_line.extend(boot.kernel_words("qemu"));
    let kernel_line = kernel_line.join(" ");
    let initramfs = format!("/lab/bin/{INITRAMFS}");
    let memory_object = format!("memory-backend-memfd,id=memory,size={memory},share=on");
    let agent = format!("socket,id=agent,fd={AGENT}");
    let link = format!("dgram,id=link,local.type=fd,local.str={NETWORK}");
    let interface = format!("virtio-net-pci,netdev=link,romfile=,mac={}", boot.mac());
    let options = [
        ("-accel", "tcg,thread=multi,tb-size=256"),
        ("-machine", "q35,memory-backend=memory"),
        ("-cpu", "max"),
        ("-smp", "2"),
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
    line.extend(options.into_iter().flat_map(|(option, value)| [option.to_owned(), value.to_owned()]));
    for disk in &boot.disks {
        line.push("-chardev".to_owned());
        line.push(format!("socket,id={disk},path=/lab/sockets/{disk}"));
        line.push("-device".to_owned());
        line.push(format!("vhost-user-blk-pci,chardev={disk},num-queues=1,queue-size={QUEUE}"));
    }
    line
}
