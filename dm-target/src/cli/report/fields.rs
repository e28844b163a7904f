//! The columns of `info -c` and `splitname`.
//!
//! Always holds: names, headings and widths are dmsetup's; columns of statistics are dmstats' and not here.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
}

/// A column.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) width: usize,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
}

/// Columns that belong together.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    /// The name for all of it.
    pub(crate) all: &'static str,
    pub(crate) fields: &'static [Field],
}

const fn text(name: &'static str, heading: &'static str, width: usize, help: &'static str) -> Field {
    Field { name, heading, width, kind: Kind::Text, help }
}

const fn number(name: &'static str, heading: &'static str, width: usize, help: &'static str) -> Field {
    Field { name, heading, width, kind: Kind::Number, help }
}

const NAMES: &[Field] = &[
    text("name", "Name", 16, "the device's name"),
    text("mangled_name", "MangledName", 16, "as the kernel has it when it is mangled"),
    text("unmangled_name", "UnmangledName", 16, "as people read it"),
    text("uuid", "UUID", 32, "the device's UUID, if it has one"),
    text("mangled_uuid", "MangledUUID", 32, "as the kernel has it when it is mangled"),
    text("unmangled_uuid", "UnmangledUUID", 32, "as people read it"),
    number("read_ahead", "RAhead", 6, "read-ahead in sectors"),
];

const STATES: &[Field] = &[
    text("blkdevname", "BlkDevName", 16, "the kernel's name of the block device"),
    text("attr", "Stat", 4, "L: live table, I: inactive table, s: suspended, r or w: read-only or not"),
    text("tables_loaded", "Tables", 6, "which tables are there"),
    text("suspended", "Suspended", 9, "whether its I/O is held back"),
    text("readonly", "Read-only", 9, "whether it takes writes"),
    text("devno", "DevNo", 5, "MAJOR:MINOR"),
    number("major", "Maj", 3, "the major number"),
    number("minor", "Min", 3, "the minor number"),
    number("open", "Open", 4, "how many have it open"),
    number("segments", "Targ", 4, "lines of its live table"),
    number("events", "Event", 6, "the number of its last event"),
];

const RELATIONS: &[Field] = &[
    number("device_count", "#Devs", 5, "how many devices it uses"),
    text("devnos_used", "DevNosUsed", 16, "numbers of the devices that it uses"),
    text("blkdevs_used", "BlkDevNamesUsed", 16, "the kernel's names of the devices that it uses"),
];

const TREE: &[Field] = &[
    text("devs_used", "DevNamesUsed", 16, "names of the mapped devices that it uses"),
    number("device_ref_count", "#Refs", 5, "how many mapped devices use it"),
    text("names_using_dev", "RefNames", 16, "names of the mapped devices that use it"),
    text("devnos_using_dev", "RefDevNos", 9, "numbers of the mapped devices that use it"),
];

const PARTS: &[Field] = &[
    text("subsystem", "Subsys", 6, "what made the device"),
    text("vg_name", "VG", 4, "LVM's volume group"),
    text("lv_name", "LV", 4, "LVM's logical volume"),
    text("lv_layer", "LVLayer", 7, "LVM's layer of it"),
];

const SPECIAL: &[Field] =
    &[number("selected", "Selected", 8, "1 if --select holds for the row, else 0; all rows are shown then")];

pub(crate) const GROUPS: &[Group] = &[
    Group { title: "Names", all: "name_all", fields: NAMES },
    Group { title: "State", all: "info_all", fields: STATES },
    Group { title: "Relations", all: "deps_all", fields: RELATIONS },
    Group { title: "Relations to mapped devices", all: "", fields: TREE },
    Group { title: "Parts of a name", all: "splitname_all", fields: PARTS },
    Group { title: "Special", all: "", fields: SPECIAL },
];

/// Underscores may be left out, and case does not matter.
fn same(one: &str, other: &str) -> bool {
    let plain = |text: &str| text.replace('_', "").to_ascii_lowercase();
    plain(one) == plain(other)
}

/// The column of this name.
pub(crate) fn find(name: &str) -> Option<&'static Field> {
    GROUPS.iter().flat_map(|group| group.fields).find(|field| same(field.name, name))
}

/// The columns that a word of `-o` means: one, those of a group, or `all` of those that a report can have.
pub(crate) fn meant(word: &str, all: &[&str]) -> Option<Vec<&'static Field>> {
    if same(word, "all") {
        let groups = GROUPS.iter().filter(|group| all.contains(&group.all));
        return Some(groups.flat_map(|group| group.fields).collect());
    }
    if let Some(group) = GROUPS.iter().find(|group| !group.all.is_empty() && same(group.all, word)) {
        return Some(group.fields.iter().collect());
    }
    find(word).map(|field| vec![field])
}

/// The groups that these columns are of.
pub(crate) fn groups_of(columns: &[&'static Field]) -> Vec<&'static str> {
    let has = |group: &&Group| columns.iter().any(|column| group.fields.contains(column));
    GROUPS.iter().filter(has).map(|group| group.all).filter(|all| !all.is_empty()).collect()
}
