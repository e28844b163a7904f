//! A virtio block device over vhost-user (virtio 1.2, section 5.2), one queue, one thread.
//!
//! What must hold: a request is answered only when its effect can be read back, and one that cannot be
//! understood is answered with an error, never left as if it were done; one whose answer has nowhere to go is never
//! given back, and the disk says so ([`Server::trouble`]); a flush covers
//! exactly what had been answered before the host submitted it. Requests that were in the queue
//! together are concurrent, so flushes are done before the writes beside them: the harshest order
//! that a real disk may choose too.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Backend, Listener};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringT};
use virtio_bindings::bindings::virtio_blk as blk;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{
    Address, Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use super::handshake;
use super::image::ProgramImage;
use super::overlay::{CachedDisk, SECTOR};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

const QUEUE_SIZE: usize = 256;

/// Segments per request: what a queue holds without the request's header and status.
const MOST_SEGMENTS: u32 = 254;

/// The most bytes that one request may move; more is answered with an error.
const MOST_BYTES: usize = 8 << 20;

/// The most sectors that one request may discard (1 GiB).
const MOST_DISCARDED: u32 = 1 << 21;

/// Why a disk does not answer a request, once there is one.
type Trouble = Arc<Mutex<Option<String>>>;

/// A disk on a socket, until a host has come and gone.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    trouble: Trouble,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Serves `disk` to the one host that connects to `socket` (a short path).
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(disk: Arc<Mutex<CachedDisk>>, socket: &Path) -> Result<Self> {
        if socket.exists() {
            std::fs::remove_file(socket).context("cannot remove the disk's old socket")?;
        }
        let listener = UnixListener::bind(socket).context("cannot make the disk's socket")?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))
            .context("cannot let the host use the disk's socket")?;
        let inner = socket.with_extension("inner");
        if inner.exists() {
            std::fs::remove_file(&inner).context("cannot remove the disk's old socket")?;
        }
        let server = UnixListener::bind(&inner).context("cannot make the disk's socket")?;
        // Waits in the listener's queue until the server accepts it.
        let connection = UnixStream::connect(&inner).context("cannot connect to the disk's server")?;
        let trouble = Trouble::default();
        let shared = Arc::clone(&trouble);
        let thread = thread::spawn(move || {
            let (host, _) = listener.accept().context("the disk's host did not connect")?;
            // QEMU shares all of its host's memory; there nobody asks for it.
            let image = ProgramImage::of(&host).ok();
            let relay = thread::spawn(move || handshake::relay(host, connection));
            serve(disk, image, shared, server, relay)
        });
        Ok(Server { socket: socket.to_owned(), trouble, thread: Some(thread) })
    }

    /// Why the disk does not answer one of the host's requests, if there is such a one. The host waits for it for good.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the service. When this returns, no request is being handled any more. The host must
    /// have ended before.
    ///
    /// # Errors
    /// When serving had failed.
    pub fn finish(mut self) -> Result<()> {
        // Wakes a server up to which no host has ever connected.
        drop(UnixStream::connect(&self.socket));
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => anyhow::bail!("the disk's server panicked"),
            None => Ok(()),
        }
    }
}

fn serve(
    disk: Arc<Mutex<CachedDisk>>,
    image: Option<ProgramImage>,
    trouble: Trouble,
    listener: UnixListener,
    relay: JoinHandle<()>,
) -> Result<()> {
    let memory = Memory::new(GuestMemoryMmap::new());
    let (shared, requests) = (Mutex::new(memory.clone()), Mutex::default());
    let device = Arc::new(Device { disk, image, trouble, memory: shared, requests });
    let mut daemon = VhostUserDaemon::new("lab-disk".to_owned(), device, memory)
        .map_err(|error| anyhow::anyhow!("cannot start the disk's server: {error}"))?;
    daemon
        .start(&mut Listener::from(listener))
        .map_err(|error| anyhow::anyhow!("the disk's server has no connection: {error}"))?;
    // A host that is switched off ends its connection in any way whatever.
    let _ = daemon.wait();
    relay.join().map_err(|_| anyhow::anyhow!("the relay panicked"))?;
    Ok(())
}

struct Device {
    disk: Arc<Mutex<CachedDisk>>,
    image: Option<ProgramImage>,
    trouble: Trouble,
    memory: Mutex<Memory>,
    /// Never used, but user-mode-linux gives the disk up when it closes.
    requests: Mutex<Option<Backend>>,
}

impl Device {
    fn disk(&self) -> MutexGuard<'_, CachedDisk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_RING_F_EVENT_IDX)
            | (1 << blk::VIRTIO_BLK_F_FLUSH)
            | (1 << blk::VIRTIO_BLK_F_SEG_MAX)
            | (1 << blk::VIRTIO_BLK_F_BLK_SIZE)
            | (1 << blk::VIRTIO_BLK_F_DISCARD)
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        // User-mode-linux has an interrupt for its queue only with a channel for our requests, even
        // though there are none.
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // struct virtio_blk_config: capacity u64 at 0, seg_max u32 at 12, blk_size u32 at 20,
        // max_discard_sectors u32 at 36, max_discard_seg u32 at 40, discard_sector_alignment u32 at 44.
        let mut config = [0; 60];
        config[0..8].copy_from_slice(&(self.disk().size() / SECTOR as u64).to_le_bytes());
        config[12..16].copy_from_slice(&MOST_SEGMENTS.to_le_bytes());
        config[20..24].copy_from_slice(&512_u32.to_le_bytes());
        config[36..40].copy_from_slice(&MOST_DISCARDED.to_le_bytes());
        config[40..44].copy_from_slice(&1_u32.to_le_bytes());
        config[44..48].copy_from_slice(&8_u32.to_le_bytes());
        let mut part = vec![0; usize::try_from(size).unwrap_or(0).min(256)];
        for (at, byte) in part.iter_mut().enumerate() {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(at);
            *byte = config.get(from).copied().unwrap_or(0);
        }
        part
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = memory;
        Ok(())
    }

    fn set_backend_req_fd(&self, requests: Backend) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) = Some(requests);
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    fn handle_event(&self, event: u16, _: EventSet, vrings: &[VringRwLock], _: usize) -> io::Result<()> {
        let Some(vring) = vrings.get(usize::from(event)) else { return Ok(()) };
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        loop {
            let mut ring = vring.get_mut();
            if !ring.get_queue().ready() {
                return Ok(());
            }
            ring.disable_notification().map_err(io::Error::other)?;
            let chains: Vec<Chain> =
                ring.get_queue_mut().iter(memory.memory()).map_err(io::Error::other)?.collect();
            if !chains.is_empty() {
                for (head, length) in self.handle(chains) {
                    ring.add_used(head, length).map_err(io::Error::other)?;
                }
                if ring.needs_notification().map_err(io::Error::other)? {
                    ring.signal_used_queue()?;
                }
            }
            if !ring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }
}

/// Length of a request's header in bytes.
const HEADER: usize = 16;

/// A request's header: `struct virtio_blk_outhdr`.
struct Header {
    kind: u32,
    sector: u64,
}

impl Device {
    /// Handles requests that were in the queue together; says which are done, and how many bytes
    /// were written into the host's memory for each.
    fn handle(&self, chains: Vec<Chain>) -> Vec<(u16, u32)> {
        let mut disk = self.disk();
        let mut done = Vec::with_capacity(chains.len());
        let image = self.image.as_ref();
        let (flushes, others): (Vec<_>, Vec<_>) =
            chains.into_iter().map(|chain| (header(&chain, image), chain)).partition(|(header, _)| {
                header.as_ref().is_ok_and(|header| header.kind == blk::VIRTIO_BLK_T_FLUSH)
            });
        for (header, chain) in flushes.into_iter().chain(others) {
            match answer(&mut disk, header, &chain, image) {
                Ok(length) => done.push((chain.head_index(), length)),
                Err(error) => {
                    let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
                    trouble.get_or_insert(format!("a request cannot be answered: {error}"));
                }
            }
        }
        done
    }
}

/// The request's first `most` bytes, header and data, wherever the host has them.
fn sent(chain: &Chain, image: Option<&ProgramImage>, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in chain.clone().readable() {
        let from = bytes.len();
        let length = usize::try_from(part.len()).unwrap_or(usize::MAX).min(most - from);
        bytes.resize(from + length, 0);
        let target = &mut bytes[from..];
        if let Err(error) = chain.memory().read_slice(target, part.addr()) {
            image.ok_or_else(|| io::Error::other(error))?.read(part.addr().0, target)?;
        }
    }
    Ok(bytes)
}

fn header(chain: &Chain, image: Option<&ProgramImage>) -> io::Result<Header> {
    let bytes: [u8; HEADER] = sent(chain, image, HEADER)?
        .try_into()
        .map_err(|_| io::Error::other("a request without a whole header"))?;
    let [a, b, c, d, _, _, _, _, sector @ ..] = bytes;
    Ok(Header { kind: u32::from_le_bytes([a, b, c, d]), sector: u64::from_le_bytes(sector) })
}

/// How many bytes the host has room for, its status included.
fn room(chain: &Chain) -> usize {
    chain
        .clone()
        .writable()
        .fold(0, |sum, part| sum.saturating_add(usize::try_from(part.len()).unwrap_or(usize::MAX)))
}

/// Puts bytes into the request's room, from its byte `at` on, wherever the host has it.
fn put(chain: &Chain, image: Option<&ProgramImage>, mut at: usize, mut bytes: &[u8]) -> io::Result<()> {
    for part in chain.clone().writable() {
        let length = usize::try_from(part.len()).unwrap_or(usize::MAX);
        let skipped = at.min(length);
        at -= skipped;
        let (now, later) = bytes.split_at((length - skipped).min(bytes.len()));
        bytes = later;
        let Some(address) = part.addr().checked_add(skipped as u64).filter(|_| !now.is_empty()) else {
            continue;
        };
        if let Err(error) = chain.memory().write_slice(now, address) {
            image.ok_or_else(|| io::Error::other(error))?.write(address.0, now)?;
        }
    }
    if bytes.is_empty() { Ok(()) } else { Err(io::Error::other("a request without room for its answer")) }
}

/// Performs a request and writes its status; says how many bytes were written into the host's memory.
///
/// # Errors
/// When the host would not hear of it.
fn answer(
    disk: &mut CachedDisk,
    header: io::Result<Header>,
    chain: &Chain,
    image: Option<&ProgramImage>,
) -> io::Result<u32> {
    let room = room(chain);
    let for_status = room.checked_sub(1).ok_or_else(|| io::Error::other("it has no room for its status"))?;
    let result = header.and_then(|header| {
        let sent = sent(chain, image, HEADER + MOST_BYTES + 1)?;
        let found = perform(disk, &header, sent.get(HEADER..).unwrap_or_default(), for_status)?;
        found.map(|found| put(chain, image, 0, &found).map(|()| found.len())).transpose()
    });
    let code = match &result {
        Ok(Some(_)) => blk::VIRTIO_BLK_S_OK,
        Ok(None) => blk::VIRTIO_BLK_S_UNSUPP,
        Err(_) => blk::VIRTIO_BLK_S_IOERR,
    };
    put(chain, image, for_status, &[u8::try_from(code).unwrap_or(u8::MAX)])?;
    Ok(result.ok().flatten().and_then(|written| u32::try_from(written + 1).ok()).unwrap_or(1))
}

/// Performs a request, for whose answer there is so much room; `None` when the device does not know its kind.
fn perform(disk: &mut CachedDisk, header: &Header, data: &[u8], room: usize) -> io::Result<Option<Vec<u8>>> {
    let offset = header.sector.saturating_mul(SECTOR as u64);
    if data.len().max(room) > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request is too long"));
    }
    match header.kind {
        blk::VIRTIO_BLK_T_IN => {
            let mut buffer = vec![0; room];
            disk.read(offset, &mut buffer)?;
            return Ok(Some(buffer));
        }
        blk::VIRTIO_BLK_T_OUT => disk.write(offset, data)?,
        blk::VIRTIO_BLK_T_FLUSH => disk.flush()?,
        blk::VIRTIO_BLK_T_DISCARD => {
            // struct virtio_blk_discard_write_zeroes: sector u64, num_sectors u32, flags u32.
            let segment: [u8; 16] = data
                .get(..16)
                .and_then(|segment| segment.try_into().ok())
                .ok_or_else(|| io::Error::other("a discard without a whole segment"))?;
            let [sector @ .., a, b, c, d, _, _, _, _] = segment;
            let sectors = u32::from_le_bytes([a, b, c, d]).min(MOST_DISCARDED);
            let offset = u64::from_le_bytes(sector).saturating_mul(SECTOR as u64);
            disk.discard(offset, u64::from(sectors) * SECTOR as u64)?;
        }
        blk::VIRTIO_BLK_T_GET_ID => {
            let mut name = b"lab-disk".to_vec();
            name.resize(room.min(20), 0);
            return Ok(Some(name));
        }
        _ => return Ok(None),
    }
    Ok(Some(Vec::new()))
}
