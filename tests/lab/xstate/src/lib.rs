//! Stands between user-mode-linux and `ptrace`, on processors with a larger register area than it knows.
//!
//! User-mode-linux before 6.13 sets the floating-point registers of its processes from a buffer of 2,696 bytes. The
//! machine's kernel takes an area of its own size and no other; with AMX that has 11,008 bytes, so the very first
//! process dies with EFAULT. This library is preloaded into the program that is the kernel (which executes itself
//! again when it starts, so the library stays in its environment) and makes the short area whole. Reading needs no
//! help: the machine's kernel gives as much as fits.
//!
//! What must hold: every other request, and every area that the machine takes as it is, passes unchanged.
//! [`area`] and [`tracing`] decide, in safe code; [`interposer`] is the one place that touches pointers.
//!
//! `$FTDM_XSTATE_CUT`, if it is set, leaves out what the area has after the vector registers, so that a machine which
//! needs none of this can try it.

mod area;
#[allow(unsafe_code, reason = "it takes the place of a function of the C library, which gets pointers")]
mod interposer;
mod tracing;
