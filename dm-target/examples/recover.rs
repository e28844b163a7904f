//! Brings a stack back to tracking after a daemon died: `recover NAME`.
#![allow(clippy::print_stdout, reason = "the result of an example is what it prints")]

use std::error::Error;

use ftdm::stack::Stack;

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).ok_or("NAME is missing")?;
    let found = Stack::open(&name.parse()?)?.recover()?;
    println!("{found:?}");
    Ok(())
}
