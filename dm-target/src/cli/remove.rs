//! `remove`, `remove_all` and `wipe_table`.
//!
//! Always holds: of an ft device all layers are removed or none; one that a daemon serves is not.

use std::thread::sleep;
use std::time::Duration;

use ftdm::ioctl::exchange::{Address, Request, Target};
use ftdm::ioctl::{Command, flags};
use nix::errno::Errno;

use super::args;
use super::change::{all_nodes, changed};
use super::create::USUAL_OWNER;
use super::dm::{Dm, Done, Failed, ReadAhead, refusal, say};
use super::{Failure, ft, usage};

/// How often and how far apart a removal is tried while the device is open.
const TRIES: u32 = 25;
const TRY_AGAIN: Duration = Duration::from_millis(200);

pub(crate) fn remove(dm: &mut Dm, given: &args::Remove) -> Result<(), Failure> {
    if given.force && dm.udev.cookie != 0 {
        say("WARNING: Use of cookie and --force is not compatible.");
    }
    for address in changed(dm, &given.which)? {
        if !super::show::selects(dm, &given.which, &address)? {
            continue;
        }
        if ft::remove(dm, &address, given)? {
            continue;
        }
        if given.force {
            let _ = fails_from_now(dm, &address, flags::NOFLUSH | flags::SKIP_LOCKFS);
        }
        let how = if given.deferred { flags::DEFERRED_REMOVE } else { 0 };
        if given.retry { remove_again_and_again(dm, &address, how)? } else { dm.remove(&address, how)? }
    }
    Ok(())
}

fn remove_again_and_again(dm: &mut Dm, address: &Address, how: u32) -> Done {
    for _ in 1..TRIES {
        let busy = dm.info(address)?.is_some_and(|info| info.open_count > 0);
        if !busy {
            break;
        }
        say(refusal("remove", address, Errno::EBUSY));
        sleep(TRY_AGAIN);
    }
    dm.remove(address, how)
}

/// Gives a device a table that fails all I/O, as long as the one it has.
fn fails_from_now(dm: &mut Dm, address: &Address, how: u32) -> Done {
    let len = match dm.lines(address, flags::STATUS_TABLE) {
        Ok((_, lines)) => lines.last().map_or(0, |line| line.start + line.len),
        Err(Failed) => 0,
    };
    let table = [Target { start: 0, len, kind: b"error".to_vec(), parameters: Vec::new() }];
    dm.load(address, &table, false)?;
    let request = Request { address: address.clone(), flags: how | flags::SUSPEND, ..Request::default() };
    dm.exchange(Command::Suspend, &request)?;
    dm.resume(address, how, Some(USUAL_OWNER), ReadAhead::Auto).map(drop)
}

pub(crate) fn wipe(dm: &mut Dm, given: &args::Suspend) -> Result<(), Failure> {
    let noflush = if given.noflush { flags::NOFLUSH } else { 0 };
    let how = noflush | if given.nolockfs { flags::SKIP_LOCKFS } else { 0 };
    for address in changed(dm, &given.which)? {
        if !super::show::selects(dm, &given.which, &address)? {
            continue;
        }
        ft::refuse(dm, &address, "wipe the table of")?;
        fails_from_now(dm, &address, how)?;
    }
    Ok(())
}

pub(crate) fn remove_all(dm: &mut Dm, given: &args::RemoveAll) -> Result<(), Failure> {
    if !given.words.is_empty() {
        return Err(usage("Incorrect number of arguments."));
    }
    ft::refuse_all(dm)?;
    if given.force {
        for address in super::change::all(dm)? {
            let _ = fails_from_now(dm, &address, flags::NOFLUSH | flags::SKIP_LOCKFS);
        }
    }
    let flags = if given.deferred { flags::DEFERRED_REMOVE } else { 0 };
    dm.exchange(Command::RemoveAll, &Request { flags, ..Request::default() })?;
    if given.force {
        let left = dm.list()?.len();
        if left > 0 {
            say(format!("Unable to remove {left} device(s)."));
        }
    }
    all_nodes(dm)
}
