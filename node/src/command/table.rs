//! All commands, each with the number by which the program knows it, and how they are found by their names.
//!
//! The table is made when the program is compiled, from the lists of the families.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{LazyLock, OnceLock};

use keyward_commands::spec::CommandSpec;
use keyward_commands::{DataCommand, DataHandler};

use super::rename::Renames;
use crate::admin::{self, ServerCommand, ServerHandler};

/// The number of a command or subcommand: its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandId(u16);

impl CommandId {
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Who runs a command.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handler {
    Data(DataHandler),
    Server(ServerHandler),
}

/// A command or subcommand: what is known of it, and who runs it.
#[derive(Clone, Copy)]
pub struct Row {
    pub id: CommandId,
    pub(crate) handler: Handler,
    spec: CommandSpec,
    /// Where its subcommands are.
    subcommands: (u16, u16),
}

/// A row is asked for nothing as often as for what its command is.
impl Deref for Row {
    type Target = CommandSpec;

    #[inline]
    fn deref(&self) -> &CommandSpec {
        &self.spec
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.id == other.id
    }
}

impl Row {
    const fn new(spec: CommandSpec, handler: Handler) -> Row {
        Row { id: CommandId(0), handler, spec, subcommands: (0, 0) }
    }

    const fn of_data(command: &DataCommand) -> Row {
        Row::new(command.spec, Handler::Data(command.run))
    }

    const fn of_server(command: &ServerCommand) -> Row {
        Row::new(command.spec, Handler::Server(command.run))
    }

    #[inline]
    pub fn spec(&'static self) -> &'static CommandSpec {
        &self.spec
    }

    #[inline]
    pub fn has_subcommands(&self) -> bool {
        self.subcommands.0 < self.subcommands.1
    }

    pub fn subcommands(&self) -> &'static [Row] {
        &ROWS[usize::from(self.subcommands.0)..usize::from(self.subcommands.1)]
    }
}

/// How many commands and subcommands there are.
pub(crate) const LEN: usize = {
    let (mut len, mut i) = (0, 0);
    while i < keyward_commands::FAMILIES.len() {
        len += keyward_commands::FAMILIES[i].len();
        i += 1;
    }
    i = 0;
    while i < admin::FAMILIES.len() {
        len += admin::FAMILIES[i].len();
        i += 1;
    }
    len
};

/// All commands in alphabetical order, then all subcommands in that of their full names: those of a container stand
/// together.
pub static ROWS: [Row; LEN] = numbered(sorted(collected()));

const COMMANDS_LEN: usize = {
    let (rows, mut i) = (sorted(collected()), 0);
    while i < LEN && position_of(rows[i].spec.name, b'|').is_none() {
        i += 1;
    }
    i
};

/// The commands, without subcommands, in alphabetical order.
pub fn commands() -> &'static [Row] {
    &ROWS[..COMMANDS_LEN]
}

const fn collected() -> [Row; LEN] {
    let mut rows = [Row::of_data(&keyward_commands::FAMILIES[0][0]); LEN];
    let (mut len, mut i) = (0, 0);
    while i < keyward_commands::FAMILIES.len() {
        let (family, mut k) = (keyward_commands::FAMILIES[i], 0);
        while k < family.len() {
            rows[len] = Row::of_data(&family[k]);
            (len, k) = (len + 1, k + 1);
        }
        i += 1;
    }
    i = 0;
    while i < admin::FAMILIES.len() {
        let (family, mut k) = (admin::FAMILIES[i], 0);
        while k < family.len() {
            rows[len] = Row::of_server(&family[k]);
            (len, k) = (len + 1, k + 1);
        }
        i += 1;
    }
    rows
}

/// By insertion: families are nearly in order.
const fn sorted(mut rows: [Row; LEN]) -> [Row; LEN] {
    let mut i = 1;
    while i < LEN {
        let mut at = i;
        while 0 < at && is_before(rows[at].spec.name, rows[at - 1].spec.name) {
            (rows[at - 1], rows[at]) = (rows[at], rows[at - 1]);
            at -= 1;
        }
        i += 1;
    }
    rows
}

const fn numbered(mut rows: [Row; LEN]) -> [Row; LEN] {
    let (mut i, mut container) = (0, 0);
    while i < LEN {
        #[allow(clippy::cast_possible_truncation, reason = "there are not that many commands")]
        let number = i as u16;
        rows[i].id = CommandId(number);
        if let Some(len) = position_of(rows[i].spec.name, b'|') {
            // Containers and their subcommands have the same order.
            while !is_prefix(rows[container].spec.name, rows[i].spec.name, len) {
                container += 1;
            }
            if rows[container].subcommands.1 == 0 {
                rows[container].subcommands.0 = number;
            }
            rows[container].subcommands.1 = number + 1;
        }
        i += 1;
    }
    rows
}

/// The order of the table: commands before subcommands.
const fn is_before(a: &str, b: &str) -> bool {
    match (position_of(a, b'|').is_some(), position_of(b, b'|').is_some()) {
        (false, true) => return true,
        (true, false) => return false,
        (true, true) | (false, false) => {}
    }
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() {
        if a[i] != b[i] {
            // The name of a container ends here: `command|list` comes before `commandlog|get`.
            return a[i] == b'|' || (b[i] != b'|' && a[i] < b[i]);
        }
        i += 1;
    }
    a.len() < b.len()
}

const fn position_of(name: &str, byte: u8) -> Option<usize> {
    let (name, mut i) = (name.as_bytes(), 0);
    while i < name.len() {
        if name[i] == byte {
            return Some(i);
        }
        i += 1;
    }
    None
}

/// Whether the first `len` bytes of `name` are `container`.
const fn is_prefix(container: &str, name: &str, len: usize) -> bool {
    let (container, name) = (container.as_bytes(), name.as_bytes());
    let mut i = 0;
    while i < len && i < container.len() && container[i] == name[i] {
        i += 1;
    }
    i == len && container.len() == len
}

/// Commands by name.
struct Index {
    short: ShortNames,
    long: HashMap<&'static str, &'static Row, foldhash::fast::FixedState>,
}

/// By the names of the rows, which effects have.
static BY_ROW: LazyLock<Index> = LazyLock::new(|| Index::new(|row| Some(row.name)));

/// By the names that clients use.
static BY_CLIENT: LazyLock<Index> = LazyLock::new(|| match RENAMES.get() {
    Some(renames) => Index::new(|row| renames.name_of(row.name)),
    None => Index::new(|row| Some(row.name)),
});

/// Set once, before the first client, if there are any.
static RENAMES: OnceLock<Renames> = OnceLock::new();

/// Clients reach the commands by other names, for as long as the program runs. To be called before the first of them.
///
/// # Errors
/// There are others already.
pub fn rename(renames: Renames) -> Result<(), String> {
    RENAMES.set(renames).map_err(|_| "commands have been renamed before".to_owned())
}

/// The rows of the commands that clients can reach.
pub fn reachable() -> impl Iterator<Item = &'static Row> {
    let renames = RENAMES.get();
    commands().iter().filter(move |row| renames.is_none_or(|renames| renames.name_of(row.name).is_some()))
}

/// The name that the effects of a command have, if clients may use another.
#[inline]
pub fn name_for_effects(row: &Row) -> Option<&'static str> {
    RENAMES.get()?;
    row.name.split('|').next()
}

/// A short name, in lower case and packed into a number, and its length. Exact because these names are all letters:
/// no other byte becomes a letter by setting the bit of lower case.
type Packed = (u64, usize);

/// Found without hashing and comparing bytes: open addressing, mostly empty.
type ShortNames = Box<[Option<(Packed, &'static Row)>]>;

const SHORT_NAME_LEN: usize = 8;
const SHORT_NAMES_BITS: u32 = 10;
/// The longest name that a command can have, also as a renamed one.
pub const NAME_LEN_MAX: usize = 64;

impl Index {
    fn new(name_of: impl Fn(&'static Row) -> Option<&'static str>) -> Index {
        let named = || commands().iter().filter_map(|row| Some((name_of(row)?, row)));
        let mut short: ShortNames = vec![None; 1 << SHORT_NAMES_BITS].into();
        for (name, row) in named().filter(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase())) {
            let Some(packed) = pack(name.as_bytes()) else { continue };
            let mut at = short_name_index(packed);
            while short[at].is_some() {
                at = (at + 1) % short.len();
            }
            short[at] = Some((packed, row));
        }
        Index { short, long: named().collect() }
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<&'static Row> {
        let Some(packed) = pack(name) else { return self.find_long(name) };
        let mut at = short_name_index(packed);
        while let Some((found, row)) = self.short[at] {
            if found == packed {
                return Some(row);
            }
            at = (at + 1) % self.short.len();
        }
        self.find_long(name)
    }

    fn find_long(&self, name: &[u8]) -> Option<&'static Row> {
        let mut lower = [0u8; NAME_LEN_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.long.get(std::str::from_utf8(lower).ok()?).copied()
    }
}

#[inline]
fn pack(name: &[u8]) -> Option<Packed> {
    let word = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes) | 0x2020_2020);
    let packed = match (name, name.first_chunk::<4>(), name.last_chunk::<4>()) {
        ([_, _, _, _, ..], Some(first), Some(last)) if name.len() <= SHORT_NAME_LEN => {
            word(first) | word(last) << (8 * (name.len() - 4))
        }
        ([a, b, c], ..) => word(&[*a, *b, *c, 0]),
        ([a, b], ..) => word(&[*a, *b, 0, 0]),
        _ => return None,
    };
    Some((packed, name.len()))
}

#[inline]
fn short_name_index((packed, len): Packed) -> usize {
    ((packed.wrapping_add(len as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SHORT_NAMES_BITS))
        as usize
}

/// The row of a command, by the name that clients use, in any case.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Row> {
    BY_CLIENT.find(name)
}

/// The row of an effect, by its name in any case.
#[inline]
pub fn find_effect(name: &[u8]) -> Option<&'static Row> {
    BY_ROW.find(name)
}

/// A subcommand of a container, by its name in any case.
pub fn find_subcommand(row: &'static Row, name: &[u8]) -> Option<&'static Row> {
    let name_of = |r: &Row| r.name.split_once('|').map_or("", |(_, sub)| sub);
    row.subcommands().iter().find(|r| name_of(r).as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_numbered() {
        let names: Vec<_> = commands().iter().map(|row| row.name).collect();
        assert!(names.is_sorted() && names.contains(&"get") && names.iter().all(|name| !name.contains('|')));
        let containers = commands().iter().filter(|row| row.has_subcommands());
        let subcommands: Vec<_> = containers.flat_map(|row| row.subcommands()).collect();
        assert!(subcommands.iter().map(|row| row.name).eq(ROWS[COMMANDS_LEN..].iter().map(|row| row.name)));
        assert!(subcommands.iter().map(|row| row.name.replace('|', "\0")).is_sorted());
        assert!(ROWS.iter().enumerate().all(|(i, row)| row.id.index() == i));
    }

    #[test]
    fn names_are_found_in_any_case() {
        for row in commands() {
            assert_eq!(find(row.name.to_ascii_uppercase().as_bytes()), Some(row));
            assert_eq!(find_effect(row.name.as_bytes()), Some(row));
            for sub in row.subcommands() {
                let (_, name) = sub.name.split_once('|').unwrap();
                assert_eq!(find_subcommand(row, name.as_bytes()), Some(sub));
            }
        }
        assert_eq!(find(b"gett"), None);
    }
}
