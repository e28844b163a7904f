//! `ls --tree`: each device over the devices that it uses.
//!
//! Always holds: a device that nothing uses is a root; the same device may stand below several.

use std::collections::BTreeMap;
use std::io::Write;

use ftdm::ioctl::exchange::{Address, Reply};
use ftdm::ioctl::flags;
use ftdm::units::DevNum;

use super::args::List;
use super::dm::Dm;
use super::list::has_target;
use super::show::{block_name, none_found, uses, visible};
use super::{Failure, ft};

/// The lines between devices.
struct Lines {
    /// Before one that others follow, before the last, beside those that others follow, beside the last.
    branch: &'static str,
    last: &'static str,
    beside: &'static str,
}

const UTF: Lines = Lines { branch: " ├─", last: " └─", beside: " │ " };
const ASCII: Lines = Lines { branch: " |-", last: " `-", beside: " | " };
const VT100: Lines =
    Lines { branch: " \x0e\x74\x71\x0f", last: " \x0e\x6d\x71\x0f", beside: " \x0e\x78\x0f " };

/// What is shown of each device, and how.
struct Form {
    lines: Lines,
    number: bool,
    block_name: bool,
    active: bool,
    open: bool,
    writeable: bool,
    uuid: bool,
    compact: bool,
    inverted: bool,
}

impl Form {
    fn new(options: Option<&std::ffi::OsString>) -> Result<Self, Failure> {
        let mut form = Self {
            lines: if is_utf() { UTF } else { ASCII },
            number: true,
            block_name: false,
            active: false,
            open: false,
            writeable: false,
            uuid: false,
            compact: false,
            inverted: false,
        };
        let options = options.map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        for word in options.split(',').filter(|word| !word.is_empty()) {
            match word {
                "device" => form.number = true,
                "nodevice" => form.number = false,
                "blkdevname" => form.block_name = true,
                "active" => form.active = true,
                "open" => form.open = true,
                "rw" => form.writeable = true,
                "uuid" => form.uuid = true,
                "ascii" => form.lines = ASCII,
                "utf" => form.lines = UTF,
                "vt100" => form.lines = VT100,
                "compact" => form.compact = true,
                "inverted" => form.inverted = true,
                "notrunc" => {}
                other => return Err(Failure::Misused(format!("Tree options not recognised: {other}"))),
            }
        }
        Ok(form)
    }
}

fn is_utf() -> bool {
    let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// A device of the tree.
struct Node {
    info: Option<Reply>,
    name: Vec<u8>,
    below: Vec<DevNum>,
    above: Vec<DevNum>,
}

pub(crate) fn ls(dm: &mut Dm, given: &List, out: &mut dyn Write) -> Result<(), Failure> {
    let form = Form::new(given.options.as_ref())?;
    let devices = visible(dm, given.all)?;
    if devices.is_empty() {
        return none_found(out);
    }
    let mut nodes: BTreeMap<DevNum, Node> = BTreeMap::new();
    let mut order = Vec::new();
    for device in &devices {
        if let Some(target) = &given.target
            && !has_target(dm, device, target)?
        {
            continue;
        }
        let address = Address { name: device.name.clone(), ..Address::default() };
        let Some(info) = dm.info(&address)? else { continue };
        let below = match ft::uses(&info).filter(|_| !given.all) {
            Some(below) => below,
            None => uses(dm, device.number)?,
        };
        let name = dm.unmangle_name(&device.name)?;
        order.push(device.number);
        nodes.insert(device.number, Node { info: Some(info), name, below, above: Vec::new() });
    }
    let edges: Vec<(DevNum, DevNum)> =
        order.iter().flat_map(|above| nodes[above].below.iter().map(|below| (*above, *below))).collect();
    for (above, below) in edges {
        let node = nodes.entry(below).or_insert_with(|| {
            order.push(below);
            Node { info: None, name: Vec::new(), below: Vec::new(), above: Vec::new() }
        });
        node.above.push(above);
    }
    let next = |node: &Node| if form.inverted { node.above.clone() } else { node.below.clone() };
    let is_root = |node: &Node| if form.inverted { node.below.is_empty() } else { node.above.is_empty() };
    let mut text = Vec::new();
    for number in order.iter().filter(|number| is_root(&nodes[*number])) {
        write_node(&nodes, &form, *number, &next, ("", ""), &mut text);
    }
    Ok(out.write_all(&text)?)
}

/// One device and those below it. `lead`: what stands before it, and before those below.
fn write_node(
    nodes: &BTreeMap<DevNum, Node>,
    form: &Form,
    number: DevNum,
    next: &dyn Fn(&Node) -> Vec<DevNum>,
    (lead, below_lead): (&str, &str),
    text: &mut Vec<u8>,
) {
    let node = &nodes[&number];
    text.extend(lead.as_bytes());
    text.extend(&node.name);
    if form.number {
        text.extend(
            if node.name.is_empty() { format!(" ({number})") } else { format!(" ({number})") }.as_bytes(),
        );
    }
    if form.block_name
        && let Some(name) = block_name(number)
    {
        text.extend(format!(" <{name}>").as_bytes());
    }
    if let Some(info) = &node.info {
        let has = |flag| info.flags & flag != 0;
        if form.active {
            text.extend(if has(flags::SUSPEND) { &b" [SUSPENDED]"[..] } else { b" [ACTIVE]" });
        }
        if form.open {
            text.extend(if info.open_count > 0 { &b" [OPEN]"[..] } else { b" [CLOSED]" });
        }
        if form.writeable {
            text.extend(if has(flags::READONLY) { &b" [READ-ONLY]"[..] } else { b" [READ-WRITE]" });
        }
        if form.uuid && !info.uuid.is_empty() {
            text.extend([b" [", info.uuid.as_slice(), b"]"].concat());
        }
    }
    text.push(b'\n');
    let children = next(node);
    for (at, child) in children.iter().enumerate() {
        let is_last = at + 1 == children.len();
        let branch = if is_last { form.lines.last } else { form.lines.branch };
        let beside = if is_last { "   " } else { form.lines.beside };
        let leads = (format!("{below_lead}{branch}"), format!("{below_lead}{beside}"));
        write_node(nodes, form, *child, next, (&leads.0, &leads.1), text);
    }
}
