//! `ptrace`, as the program that is the kernel finds it.
//!
//! Each `unsafe` here is a pointer that the C library's function would get, or a call of the C library.

use std::ffi::{c_int, c_long, c_void};
use std::slice;
use std::sync::Mutex;

use raw_cpuid::CpuId;

use crate::area::Component;
use crate::tracing::{Errno, Kernel, Tracer};

/// The register set with the area (kernel: include/uapi/linux/elf.h).
const NT_X86_XSTATE: usize = 0x202;

static TRACER: Mutex<Tracer> = Mutex::new(Tracer::new());

/// The machine's own kernel.
struct Machine;

impl Kernel for Machine {
    fn read(&mut self, process: c_int, area: &mut [u8]) -> Result<usize, Errno> {
        let mut vector = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
        call(libc::PTRACE_GETREGSET, process, &mut vector)?;
        Ok(vector.iov_len)
    }

    fn write(&mut self, process: c_int, area: &[u8]) -> Result<(), Errno> {
        let mut vector = libc::iovec { iov_base: area.as_ptr().cast_mut().cast(), iov_len: area.len() };
        call(libc::PTRACE_SETREGSET, process, &mut vector)
    }

    fn components(&self, each: &mut dyn FnMut(Component)) {
        let Some(leaf) = CpuId::new().get_extended_state_info() else { return };
        // Those that only the kernel may use are in no process's area.
        for one in leaf.iter().filter(|one| one.is_in_xcr0()) {
            each(Component { number: one.subleaf, offset: one.offset() as usize, size: one.size() as usize });
        }
    }
}

/// Asks the machine's kernel for the registers that `vector` has room for, or to take those that it holds.
fn call(request: libc::c_uint, process: c_int, vector: &mut libc::iovec) -> Result<(), Errno> {
    let vector: *mut libc::iovec = vector;
    // SAFETY: `vector` points to an iovec that lives through the call and describes memory that the caller has
    // borrowed: writable for PTRACE_GETREGSET, which is the only request that writes through it.
    let result = unsafe {
        libc::syscall(libc::SYS_ptrace, c_long::from(request), c_long::from(process), NT_X86_XSTATE, vector)
    };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn errno() -> Errno {
    // SAFETY: the C library's error number of this thread; the pointer is always valid.
    unsafe { *libc::__errno_location() }
}

fn set_errno(number: Errno) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = number }
}

/// `ptrace`, instead of the C library's. That one is declared with `...`, but on x86-64 integers and pointers of such
/// a call are where this finds them.
///
/// # Safety
/// As the C library's: `data` must be what `request` takes it for.
#[unsafe(no_mangle)]
// SAFETY (the name): it takes the place of the C library's function, which is the purpose, and behaves as it does.
pub(crate) unsafe extern "C" fn ptrace(
    request: c_int,
    process: c_int,
    address: *mut c_void,
    data: *mut c_void,
) -> c_long {
    let number = request.cast_unsigned();
    if number == libc::PTRACE_SETREGSET && address.addr() == NT_X86_XSTATE && !data.is_null() {
        // SAFETY: for this request `data` is an iovec, and what it describes holds the registers.
        let given = unsafe {
            let vector = &*data.cast::<libc::iovec>();
            slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len)
        };
        return match set(process, given) {
            Ok(()) => 0,
            Err(error) => {
                set_errno(error);
                -1
            }
        };
    }
    let mut peeked: c_long = 0;
    let peeks = matches!(number, libc::PTRACE_PEEKTEXT | libc::PTRACE_PEEKDATA | libc::PTRACE_PEEKUSER);
    let data = if peeks { (&raw mut peeked).cast() } else { data };
    // SAFETY: the caller answers for address and data. A peek's result goes to `peeked`: the system call, unlike the
    // C library's function, stores it where `data` points.
    let result = unsafe {
        libc::syscall(libc::SYS_ptrace, c_long::from(request), c_long::from(process), address, data)
    };
    if peeks && result >= 0 {
        set_errno(0);
        return peeked;
    }
    result
}

fn set(process: c_int, given: &[u8]) -> Result<(), Errno> {
    // The one thread that traces never waits for itself: were this entered from a signal's handler, an error that is
    // seen is better than standing still.
    let mut tracer = TRACER.try_lock().map_err(|_| libc::EBUSY)?;
    // SAFETY: the name is a string that ends with zero; the environment is not changed after the start.
    let cut = unsafe { !libc::getenv(c"FTDM_XSTATE_CUT".as_ptr()).is_null() };
    tracer.set(&mut Machine, process, given, cut)
}
