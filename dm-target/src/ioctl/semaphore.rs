//! The semaphores that udev's rules count down when they have dealt with an event: a *cookie* is the key of one.
//!
//! Always holds: a semaphore is found by its key, never kept over calls; nothing here waits but [`Semaphore::wait`].

use nix::errno::Errno;
use nix::libc;

/// The upper half of every key.
pub const MAGIC: u32 = 0x0d4d;

/// A semaphore of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semaphore(libc::c_int);

impl Semaphore {
    /// Makes the one of this key, with the value 1.
    ///
    /// # Errors
    /// `EEXIST` when there is one; the kernel's.
    pub fn create(key: u32) -> Result<Self, Errno> {
        let made = super::semget(key, libc::IPC_CREAT | libc::IPC_EXCL | 0o600).map(Self)?;
        made.count(1)?;
        Ok(made)
    }

    /// Finds the one of this key.
    ///
    /// # Errors
    /// `ENOENT` when there is none; the kernel's.
    pub fn find(key: u32) -> Result<Self, Errno> {
        super::semget(key, 0).map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn id(self) -> i32 {
        self.0
    }

    /// Adds to its value, without waiting.
    ///
    /// # Errors
    /// `EAGAIN` when it would be negative; the kernel's.
    pub fn count(self, count: i16) -> Result<(), Errno> {
        super::semop(self.0, count, libc::IPC_NOWAIT)
    }

    /// Its value.
    ///
    /// # Errors
    /// The kernel's.
    pub fn value(self) -> Result<i32, Errno> {
        super::semctl(self.0, libc::GETVAL)
    }

    /// Waits until its value is 0.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(self) -> Result<(), Errno> {
        loop {
            match super::semop(self.0, 0, 0) {
                Err(Errno::EINTR) => {}
                done => return done,
            }
        }
    }

    /// Removes it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(self) -> Result<(), Errno> {
        super::semctl(self.0, libc::IPC_RMID).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semaphore_counts_and_goes() {
        let key = MAGIC << 16 | 0xffff & std::process::id();
        let made = Semaphore::create(key).unwrap();
        assert_eq!(Semaphore::create(key), Err(Errno::EEXIST));
        assert_eq!(Semaphore::find(key), Ok(made));
        assert_eq!(made.value(), Ok(1));
        made.count(-1).unwrap();
        assert_eq!(made.count(-1), Err(Errno::EAGAIN));
        made.wait().unwrap();
        made.remove().unwrap();
        assert_eq!(Semaphore::find(key), Err(Errno::ENOENT));
    }
}
