//! Verbs that show devices: info, table, status, measure, splitname.
//!
//! Always holds: nothing here changes a device. Of an ft device the visible one is shown as what it is, its hidden
//! layers only when they are asked for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use ftdm::ioctl::exchange::{Address, Listed, Reply, Target};
use ftdm::ioctl::{Command, flags};
use ftdm::units::DevNum;

use super::args;
use super::dm::{Dm, Done, Failed, fail, say};
use super::report::fields::Field;
use super::report::select::{Select, Wrong};
use super::report::{Form, NoReport, Row, Value};
use super::{Failure, concise, ft, help, nodes, usage, which};

const USUAL: &str = "name,major,minor,attr,open,segments,events,uuid";
const PARTS: &str = "vg_name,lv_name,lv_layer";

/// The devices that a verb shows: those that are named, or all.
pub(crate) fn shown(
    dm: &mut Dm,
    given: &args::Which,
    hidden_too: bool,
) -> Result<(Vec<Address>, bool), Failure> {
    let found = which(dm, given, usize::MAX)?;
    if !found.addresses.is_empty() {
        return Ok((found.addresses, false));
    }
    let all = visible(dm, hidden_too)?;
    Ok((all.into_iter().map(|d| Address { name: d.name, ..Address::default() }).collect(), true))
}

/// Whether a device has a target of this type. An ft device has its own.
pub(crate) fn has_target(dm: &mut Dm, device: &Listed, target: &OsStr) -> Result<bool, Failure> {
    let address = Address { name: device.name.clone(), ..Address::default() };
    let found = match ft::lines(dm, &address, flags::STATUS_TABLE)? {
        Some((_, lines)) => lines,
        None => dm.lines(&address, flags::STATUS_TABLE)?.1,
    };
    Ok(found.iter().any(|line| line.kind == target.as_bytes()))
}

/// All devices, hidden layers of ft devices only if they are asked for.
pub(crate) fn visible(dm: &mut Dm, hidden_too: bool) -> Done<Vec<Listed>> {
    let mut all = dm.list()?;
    if !hidden_too {
        all.retain(|device| !ft::is_hidden(device.number));
    }
    // A name that this mode of mangling would not have made ends it before anything is shown.
    let odd = all.iter().filter(|device| dm.unmangle_name(&device.name).is_err()).count();
    if odd == 0 { Ok(all) } else { Err(Failed) }
}

/// Whether this is the answer of a device without a name, which is none.
pub(crate) fn none_found(out: &mut dyn Write) -> Result<(), Failure> {
    Ok(writeln!(out, "No devices found")?)
}

pub(crate) fn info(dm: &mut Dm, given: &args::Info, out: &mut dyn Write) -> Result<(), Failure> {
    if given.columns.columns {
        return info_columns(dm, given, out);
    }
    let (devices, all) = shown(dm, &given.which, given.all)?;
    if all && devices.is_empty() {
        return none_found(out);
    }
    for address in &devices {
        let Some(reply) = dm.info(address)? else { return Ok(fail("Device does not exist.")?) };
        info_lines(dm, &reply, out)?;
    }
    Ok(())
}

/// The lines of `info`.
pub(crate) fn info_lines(dm: &Dm, info: &Reply, out: &mut dyn Write) -> Result<(), Failure> {
    let has = |flag| info.flags & flag != 0;
    let mut line = |label: &str, value: &[u8]| {
        out.write_all(&[format!("{label:<19}").as_bytes(), value, b"\n"].concat())
    };
    line("Name:", &dm.unmangle_name(&info.name)?)?;
    let state = if has(flags::SUSPEND) { "SUSPENDED" } else { "ACTIVE" };
    let readonly = if has(flags::READONLY) { " (READ-ONLY)" } else { "" };
    let deferred = if has(flags::DEFERRED_REMOVE) { " (DEFERRED REMOVE)" } else { "" };
    line("State:", format!("{state}{readonly}{deferred}").as_bytes())?;
    if let Some(sectors) = read_ahead(info) {
        line("Read Ahead:", sectors.to_string().as_bytes())?;
    }
    let tables = match (has(flags::ACTIVE_PRESENT), has(flags::INACTIVE_PRESENT)) {
        (true, true) => "LIVE & INACTIVE",
        (true, false) => "LIVE",
        (false, true) => "INACTIVE",
        (false, false) => "None",
    };
    line("Tables present:", tables.as_bytes())?;
    if info.open_count >= 0 {
        line("Open count:", info.open_count.to_string().as_bytes())?;
    }
    line("Event number:", info.event.to_string().as_bytes())?;
    line("Major, minor:", format!("{}, {}", info.number.major, info.number.minor).as_bytes())?;
    line("Number of targets:", info.targets.to_string().as_bytes())?;
    if !info.uuid.is_empty() {
        out.write_all(&[b"UUID: ", &dm.unmangle_uuid(&info.uuid)?[..], b"\n"].concat())?;
    }
    ft::info_lines(info, out)?;
    Ok(writeln!(out)?)
}

/// The read-ahead of a device. Of one without a table, standard error says that it has no node.
fn read_ahead(info: &Reply) -> Option<u64> {
    if let Some(sectors) = super::dm::read_ahead(info.number) {
        return Some(sectors);
    }
    let path = nodes::path(&info.name);
    match std::fs::File::open(&path) {
        Ok(_) => super::dm::read_ahead(info.number),
        Err(e) => {
            say(format!("{}: open failed: {}", path.display(), nodes::reason(&e)));
            None
        }
    }
}

/// Prints why there is no report.
fn no_report(why: NoReport) -> Failure {
    match why {
        NoReport::Help { select } => {
            let text = help::columns();
            say(if select { text + help::selections() } else { text });
            return Failure::Helped;
        }
        NoReport::Column(line) => {
            say(help::columns());
            say(line);
        }
        NoReport::Select(Wrong { fields, operators, lines }) => {
            if fields {
                say(help::columns());
            }
            if operators {
                say(help::selections());
            }
            lines.iter().for_each(say);
        }
    }
    Failure::Wording
}

fn info_columns(dm: &mut Dm, given: &args::Info, out: &mut dyn Write) -> Result<(), Failure> {
    let select = given.which.select.as_deref().map(OsStrExt::as_bytes);
    let groups = ["name_all", "info_all", "deps_all", "splitname_all"];
    let form = Form::new(&given.columns, select, USUAL, &groups).map_err(no_report)?;
    let count = number(given.columns.count.as_deref(), "Count must be zero or greater.", 0)?;
    let interval = number(given.columns.interval.as_deref(), "Interval must be a positive integer.", 1)?;
    let rounds = count.unwrap_or(if interval.is_some() { 0 } else { 1 });
    let mut round = 0;
    loop {
        let (devices, all) = shown(dm, &given.which, given.all)?;
        if all && devices.is_empty() {
            return none_found(out);
        }
        let done = rows(dm, &devices, all, &form.needs());
        if let Some(text) = form.write(done.rows) {
            out.write_all(&text)?;
        }
        if done.failed {
            return Err(Failure::Said);
        }
        round += 1;
        if rounds != 0 && round >= rounds {
            return Ok(());
        }
        writeln!(out)?;
        out.flush()?;
        std::thread::sleep(Duration::from_secs(interval.unwrap_or(1)));
    }
}

/// A number that may not be below `least`.
fn number(word: Option<&OsStr>, wrong: &str, least: i64) -> Result<Option<u64>, Failure> {
    let Some(word) = word else { return Ok(None) };
    let value = word.to_str().and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
    match u64::try_from(value) {
        Ok(number) if value >= least => Ok(Some(number)),
        _ => Err(Failure::Misused(wrong.to_owned())),
    }
}

struct Rows {
    rows: Vec<Row>,
    failed: bool,
}

fn rows(dm: &mut Dm, devices: &[Address], all: bool, needs: &[&'static Field]) -> Rows {
    let mut found = Rows { rows: Vec::new(), failed: false };
    for address in devices {
        match dm.info(address) {
            Ok(Some(info)) => match row(dm, &info, needs) {
                Ok(row) => found.rows.push(row),
                Err(Failed) => found.failed = true,
            },
            // Gone since it was listed.
            Ok(None) if all => {}
            Ok(None) => {
                say("Device does not exist.");
                found.failed = true;
                return found;
            }
            Err(Failed) => found.failed = true,
        }
    }
    found
}

/// The cells of one device that are needed.
fn row(dm: &mut Dm, info: &Reply, needs: &[&'static Field]) -> Done<Row> {
    let mut row = Row::new();
    for field in needs {
        if field.name != "selected" && !row.contains_key(field.name) {
            row.insert(field.name, cell(dm, info, field.name)?);
        }
    }
    Ok(row)
}

fn cell(dm: &mut Dm, info: &Reply, name: &str) -> Done<Value> {
    let text = |text: &str| Value::Text(text.as_bytes().to_vec());
    let joined = |items: Vec<Vec<u8>>| Value::Text(items.join(&b','));
    let count = |items: usize| Value::Number(u64::try_from(items).unwrap_or(u64::MAX));
    let has = |flag| info.flags & flag != 0;
    let (live, inactive) = (has(flags::ACTIVE_PRESENT), has(flags::INACTIVE_PRESENT));
    Ok(match name {
        "name" => Value::Text(dm.unmangle_name(&info.name)?),
        "mangled_name" => Value::Text(mangled(&info.name)),
        "unmangled_name" => Value::Text(plain(&info.name)),
        "uuid" => Value::Text(dm.unmangle_uuid(&info.uuid)?),
        "mangled_uuid" => Value::Text(mangled(&info.uuid)),
        "unmangled_uuid" => Value::Text(plain(&info.uuid)),
        "read_ahead" => Value::Number(read_ahead(info).unwrap_or(0)),
        "blkdevname" => match block_name(info.number) {
            Some(name) => Value::Text(name.into_bytes()),
            None => {
                say(format!("Could not resolve block device name for {}.", info.number));
                return fail("_do_report_object: report function failed for field blkdevname");
            }
        },
        "attr" => {
            let letter = |set: bool, yes: char, no: char| if set { yes } else { no };
            let letters = [
                letter(live, 'L', '-'),
                letter(inactive, 'I', '-'),
                letter(has(flags::SUSPEND), 's', '-'),
                letter(has(flags::READONLY), 'r', 'w'),
            ];
            text(&letters.iter().collect::<String>())
        }
        "tables_loaded" => text(match (live, inactive) {
            (true, true) => "Both",
            (true, false) => "Live",
            (false, true) => "Inactive",
            (false, false) => "None",
        }),
        "suspended" => text(if has(flags::SUSPEND) { "Suspended" } else { "Active" }),
        "readonly" => text(if has(flags::READONLY) { "Read-only" } else { "Writeable" }),
        "devno" => text(&info.number.to_string()),
        "major" => Value::Number(info.number.major.into()),
        "minor" => Value::Number(info.number.minor.into()),
        "open" => Value::Number(u64::try_from(info.open_count).unwrap_or(0)),
        "segments" => Value::Number(info.targets.into()),
        "events" => Value::Number(info.event.into()),
        "device_count" => count(uses(dm, info.number)?.len()),
        "devnos_used" => joined(uses(dm, info.number)?.iter().map(|n| n.to_string().into_bytes()).collect()),
        "blkdevs_used" => joined(
            uses(dm, info.number)?.iter().filter_map(|n| block_name(*n)).map(String::into_bytes).collect(),
        ),
        "devs_used" => {
            let names = names(dm)?;
            joined(uses(dm, info.number)?.iter().filter_map(|n| names.get(n).cloned()).collect())
        }
        "device_ref_count" => count(used_by(dm, info.number)?.len()),
        "names_using_dev" => joined(used_by(dm, info.number)?.into_iter().map(|(name, _)| name).collect()),
        "devnos_using_dev" => {
            joined(used_by(dm, info.number)?.iter().map(|(_, n)| n.to_string().into_bytes()).collect())
        }
        part => {
            let lvm = info.uuid.starts_with(b"LVM-");
            let parts = if lvm { split_name(&plain(&info.name)) } else { Default::default() };
            match part {
                "subsystem" => Value::Text(subsystem(&info.uuid)),
                "vg_name" => Value::Text(parts[0].clone()),
                "lv_name" => Value::Text(parts[1].clone()),
                _ => Value::Text(parts[2].clone()),
            }
        }
    })
}

fn mangled(text: &[u8]) -> Vec<u8> {
    use ftdm::mangle::{Mangling, mangled};
    mangled(text, Mangling::Auto).map_or_else(|_| text.to_vec(), std::borrow::Cow::into_owned)
}

fn plain(text: &[u8]) -> Vec<u8> {
    ftdm::mangle::unmangled(text, ftdm::mangle::Mangling::Auto).into_owned()
}

/// What made a device: what its UUID begins with.
fn subsystem(uuid: &[u8]) -> Vec<u8> {
    let end = uuid.iter().position(|b| *b == b'-');
    end.map_or_else(Vec::new, |end| uuid[..end].to_vec())
}

/// The kernel's name of a block device.
pub(crate) fn block_name(number: DevNum) -> Option<String> {
    let leads = std::fs::read_link(format!("/sys/dev/block/{number}")).ok()?;
    Some(leads.file_name()?.to_string_lossy().into_owned())
}

/// The names of all mapped devices, for people.
pub(crate) fn names(dm: &mut Dm) -> Done<BTreeMap<DevNum, Vec<u8>>> {
    let mut names = BTreeMap::new();
    for device in dm.list()? {
        names.insert(device.number, dm.unmangle_name(&device.name)?);
    }
    Ok(names)
}

/// What a device uses.
pub(crate) fn uses(dm: &mut Dm, number: DevNum) -> Done<Vec<DevNum>> {
    let address = Address { number: Some(number), ..Address::default() };
    let request = ftdm::ioctl::exchange::Request { address, ..Default::default() };
    Ok(dm.exchange(Command::TableDeps, &request)?.uses())
}

/// The mapped devices that use a device.
fn used_by(dm: &mut Dm, number: DevNum) -> Done<Vec<(Vec<u8>, DevNum)>> {
    let mut using = Vec::new();
    for device in dm.list()? {
        if uses(dm, device.number)?.contains(&number) {
            using.push((dm.unmangle_name(&device.name)?, device.number));
        }
    }
    Ok(using)
}

/// The rows for which `--select` holds, of devices that are not shown in columns.
pub(crate) fn selects(dm: &mut Dm, given: &args::Which, address: &Address) -> Result<bool, Failure> {
    let Some(select) = given.select.as_deref().map(OsStrExt::as_bytes) else { return Ok(true) };
    if matches!(select, b"help" | b"?") {
        return Err(no_report(NoReport::Help { select: true }));
    }
    let select = Select::parse(select).map_err(|wrong| no_report(NoReport::Select(wrong)))?;
    let (Some(select), Some(info)) = (select, dm.info(address)?) else { return Ok(true) };
    let mut needs = Vec::new();
    select.fields(&mut needs);
    let mut row = row(dm, &info, &needs)?;
    row.insert("selected", Value::Number(1));
    Ok(select.holds(&row))
}

pub(crate) fn table(dm: &mut Dm, given: &args::Table, out: &mut dyn Write) -> Result<(), Failure> {
    let (devices, all) = shown(dm, &given.lines.which, given.lines.all)?;
    if all && devices.is_empty() {
        return none_found(out);
    }
    let mut written = Vec::new();
    for address in &devices {
        if !selects(dm, &given.lines.which, address)? {
            continue;
        }
        let (reply, mut lines) = lines(dm, address, &given.lines, flags::STATUS_TABLE)?;
        if !given.showkeys {
            lines.iter_mut().for_each(hide_keys);
        }
        if given.concise {
            let readonly = reply.flags & flags::READONLY != 0;
            if !lines.is_empty() || given.lines.target.is_none() {
                let (name, uuid) = (dm.unmangle_name(&reply.name)?, dm.unmangle_uuid(&reply.uuid)?);
                written.push(concise::written(&name, &uuid, reply.number.minor, readonly, &lines));
            }
        } else {
            write_lines(dm, &reply, &lines, (all || devices.len() > 1, given.lines.target.is_some()), out)?;
        }
    }
    if given.concise && !written.is_empty() {
        out.write_all(&[written.join(&b';'), b"\n".to_vec()].concat())?;
    }
    Ok(())
}

pub(crate) fn status(dm: &mut Dm, given: &args::Lines, out: &mut dyn Write) -> Result<(), Failure> {
    let (devices, all) = shown(dm, &given.which, given.all)?;
    if all && devices.is_empty() {
        return none_found(out);
    }
    let how = if given.noflush { flags::NOFLUSH } else { 0 };
    for address in &devices {
        if !selects(dm, &given.which, address)? {
            continue;
        }
        if dm.info(address)?.is_none() {
            return Ok(fail("Device does not exist.")?);
        }
        let (reply, lines) = lines(dm, address, given, how)?;
        write_lines(dm, &reply, &lines, (all || devices.len() > 1, given.target.is_some()), out)?;
    }
    Ok(())
}

pub(crate) fn measure(_: &mut Dm, _: &args::Which, _: &mut dyn Write) -> Result<(), Failure> {
    Ok(fail("ftdm measures nothing: see dmsetup measure")?)
}

/// The lines of a table or status, those of the wanted target.
fn lines(
    dm: &mut Dm,
    address: &Address,
    given: &args::Lines,
    how: u32,
) -> Result<(Reply, Vec<Target>), Failure> {
    let how = if given.inactive { how | flags::QUERY_INACTIVE_TABLE } else { how };
    let (reply, mut lines) = match ft::lines(dm, address, how)? {
        Some(found) => found,
        None => dm.lines(address, how)?,
    };
    if let Some(target) = &given.target {
        lines.retain(|line| line.kind == target.as_bytes());
    }
    Ok((reply, lines))
}

fn write_lines(
    dm: &Dm,
    reply: &Reply,
    lines: &[Target],
    (several, of_target): (bool, bool),
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let with_name = several && dm.verbose == 0;
    if dm.verbose > 0 && !(of_target && lines.is_empty()) {
        info_lines(dm, reply, out)?;
    }
    let name = if with_name { [&dm.unmangle_name(&reply.name)?[..], b": "].concat() } else { Vec::new() };
    if lines.is_empty() && !of_target {
        out.write_all(&[&name[..], b"\n"].concat())?;
    }
    for line in lines {
        let numbers = format!("{} {} ", line.start, line.len);
        out.write_all(&[&name[..], numbers.as_bytes(), &line.kind, b" ", &line.parameters, b"\n"].concat())?;
    }
    if dm.verbose > 0 && several {
        writeln!(out)?;
    }
    Ok(())
}

/// Keys of encrypted devices are shown as zeroes, unless they are references to keys of the kernel.
fn hide_keys(line: &mut Target) {
    if line.kind != b"crypt" {
        return;
    }
    let mut words: Vec<Vec<u8>> = line.parameters.split(|b| *b == b' ').map(<[u8]>::to_vec).collect();
    if let Some(key) = words.get_mut(1)
        && !key.starts_with(b":")
        && key.as_slice() != b"-"
    {
        key.fill(b'0');
    }
    line.parameters = words.join(&b' ');
}

pub(crate) fn splitname(given: &args::Splitname, out: &mut dyn Write) -> Result<(), Failure> {
    let (name, subsystem) = match &given.words[..] {
        [name] => (name, "LVM".to_owned()),
        [name, subsystem] => (name, subsystem.to_string_lossy().into_owned()),
        _ => return Err(usage("Incorrect number of arguments.")),
    };
    let select = given.select.as_deref().map(OsStrExt::as_bytes);
    let form = Form::new(&given.columns, select, PARTS, &["splitname_all"]).map_err(no_report)?;
    let parts = if subsystem == "LVM" { split_name(name.as_bytes()) } else { Default::default() };
    let [vg, lv, layer] = parts.map(Value::Text);
    let row = Row::from_iter([
        ("subsystem", Value::Text(subsystem.into_bytes())),
        ("vg_name", vg),
        ("lv_name", lv),
        ("lv_layer", layer),
    ]);
    if let Some(field) =
        form.needs().iter().find(|field| field.name != "selected" && !row.contains_key(field.name))
    {
        return Ok(fail(format!("_do_report_object: no data assigned to field {}", field.name))?);
    }
    if let Some(text) = form.write(vec![row]) {
        out.write_all(&text)?;
    }
    Ok(())
}

/// LVM's volume group, logical volume and layer: parts are joined by a hyphen, and hyphens within them are doubled.
fn split_name(name: &[u8]) -> [Vec<u8>; 3] {
    let mut parts: [Vec<u8>; 3] = Default::default();
    let (mut part, mut at) = (0, 0);
    while at < name.len() {
        let hyphens = name[at..].iter().take_while(|b| **b == b'-').count();
        if hyphens == 0 {
            parts[part].push(name[at]);
            at += 1;
            continue;
        }
        parts[part].extend(vec![b'-'; hyphens / 2]);
        at += hyphens;
        if hyphens % 2 == 1 {
            if at == name.len() {
                parts[part].push(b'-');
            } else if part == 2 {
                break;
            } else {
                part += 1;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lvm_are_split_as_lvm_joins_them() {
        for (name, expected) in [
            ("vg-lv", ["vg", "lv", ""]),
            ("vg--x-lv--y-real", ["vg-x", "lv-y", "real"]),
            ("vg", ["vg", "", ""]),
            ("a-b-c-d", ["a", "b", "c"]),
            ("vg-", ["vg-", "", ""]),
            ("-lv", ["", "lv", ""]),
            ("a---b", ["a-", "b", ""]),
            ("a----b", ["a--b", "", ""]),
            ("a-b---c", ["a", "b-", "c"]),
        ] {
            assert_eq!(split_name(name.as_bytes()), expected.map(|part| part.as_bytes().to_vec()), "{name}");
        }
    }

    #[test]
    fn keys_are_hidden_unless_they_are_references() {
        let mut line = Target {
            start: 0,
            len: 8,
            kind: b"crypt".to_vec(),
            parameters: b"aes-xts 00ff 0 1:0 0".to_vec(),
        };
        hide_keys(&mut line);
        assert_eq!(line.parameters, b"aes-xts 0000 0 1:0 0");
        line.parameters = b"aes-xts :64:logon:x 0 1:0 0".to_vec();
        hide_keys(&mut line);
        assert_eq!(line.parameters, b"aes-xts :64:logon:x 0 1:0 0");
    }
}
