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
use super::show::{block_name, has_target, none_found, uses, visible};
use super::{Failure, ft};

/// The lines between devices.
struct Lines {
    /// Before one that others follow, before the last, beside those that others follow.
    branch: &'static str,
    last: &'static str,
    beside: &'static str,
}

/// The same, where a device stands beside the one that uses it: an only one, the first of several.
struct Beside {
    only: &'static str,
    first: &'static str,
}

const UTF: Lines = Lines { branch: " ├─", last: " └─", beside: " │ " };
const UTF_BESIDE: Beside = Beside { only: "───", first: "─┬─" };
const ASCII_BESIDE: Beside = Beside { only: "---", first: "-+-" };
const ASCII: Lines = Lines { branch: " |-", last: " `-", beside: " | " };
const VT100: Lines =
    Lines { branch: " \x1b(0\x0ftq\x1b(B", last: " \x1b(0\x0fmq\x1b(B", beside: " \x1b(0\x0fx\x1b(B " };

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
                other => return Err(Failure::Misused(format!("Tree options not recognised: {other}."))),
            }
        }
        Ok(form)
    }

    fn connector(&self) -> Beside {
        if self.lines.last == ASCII.last { ASCII_BESIDE } else { UTF_BESIDE }
    }

    /// What is shown of a mapped device beside its names.
    fn shown(&self, info: &Reply) -> Vec<Vec<u8>> {
        let has = |flag| info.flags & flag != 0;
        let mut shown = Vec::new();
        if self.active {
            shown.push(if has(flags::SUSPEND) { b"SUSPENDED".to_vec() } else { b"ACTIVE".to_vec() });
        }
        if self.writeable {
            shown.push(if has(flags::READONLY) { b"RO".to_vec() } else { b"RW".to_vec() });
        }
        if self.open {
            shown.push(info.open_count.to_string().into_bytes());
        }
        if self.uuid {
            shown.push(info.uuid.clone());
        }
        shown
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
    if form.block_name
        && let Some(name) = block_name(number)
    {
        text.extend(format!(" <{name}>").as_bytes());
    }
    if form.number {
        text.extend(format!(" ({number})").as_bytes());
    }
    if let Some(info) = &node.info {
        let shown = form.shown(info);
        if !shown.is_empty() {
            text.extend([b" [", shown.join(&b", "[..]).as_slice(), b"]"].concat());
        }
    }
    let mut children = next(node);
    // Of a device that is not device-mapper's nothing else is known.
    children.retain(|child| form.number || form.block_name || nodes[child].info.is_some());
    let compact = form.compact && !form.inverted && !children.is_empty();
    if !compact {
        text.push(b'\n');
    }
    let line = text.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let column = String::from_utf8_lossy(line).chars().count();
    for (at, child) in children.iter().enumerate() {
        let is_last = at + 1 == children.len();
        let branch = if is_last { form.lines.last } else { form.lines.branch };
        let beside = if is_last { "   " } else { form.lines.beside };
        let mut leads = (format!("{below_lead}{branch}"), format!("{below_lead}{beside}"));
        if compact {
            let room = " ".repeat(column);
            let connector = if children.len() == 1 { form.connector().only } else { form.connector().first };
            leads = (format!("{below_lead}{room}{branch}"), format!("{below_lead}{beside}"));
            if at == 0 {
                leads.0 = connector.to_owned();
            }
        }
        write_node(nodes, form, *child, next, (&leads.0, &leads.1), text);
    }
}
