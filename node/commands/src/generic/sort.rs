//! SORT: the elements of a list, set or sorted set in the order of themselves, or of other keys that they name.
//!
//! Which keys a pattern reads follows from the elements, so nobody knows it before the elements are read. Unless the
//! pattern's hash tag says that they are all in the slot of the sorted key, the caller locks what the elements name
//! ([`NamedKeys`]). In cluster mode such a pattern is refused.

use std::cmp::Ordering;

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_f64;
use keyward_proto::slot::{Slot, hash_tag};

use crate::spec::{ACCESS, Begin, DENYOOM, Find, KeyFlags, KeySpec, NamedKeys, OW, RO, UPDATE, category};
use crate::store::{Effect, store_result, visit_keys};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, read, write,
};
use keyward_store::entry::{Entry, ValueRef};
use keyward_store::events::EventClass;
use keyward_store::keys::Keys;
use keyward_store::types::{Element, List};

const CATEGORIES: u32 = category::SET | category::SORTED_SET | category::LIST | category::DANGEROUS;

/// Keys whose names only the elements tell, or that stand behind a word which may come anywhere.
const fn unknown(flags: KeyFlags) -> KeySpec {
    KeySpec { flags, begin: Begin::Unknown, find: Find::Unknown }
}

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA] [STORE destination]`
pub(super) const SORT: DataCommand = write("sort", sort, -2, DENYOOM, "1.0.0")
    .key(1, RO | ACCESS)
    .key_spec(unknown(RO | ACCESS))
    .key_spec(unknown(OW | UPDATE))
    .search(sort_keys)
    .named_keys(NAMED)
    .categories(CATEGORIES);
fn sort(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let options = Options::parse(ctx, args, Storing::Allowed)?;
    run(ctx, args.at(1), &options)
}

/// `SORT_RO key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA]`
pub(super) const SORT_RO: DataCommand = read("sort_ro", sort_ro, -2, 0, "7.0.0")
    .key(1, RO | ACCESS)
    .key_spec(unknown(RO | ACCESS))
    .named_keys(NAMED)
    .categories(CATEGORIES);
fn sort_ro(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let options = Options::parse(ctx, args, Storing::Refused)?;
    run(ctx, args.at(1), &options)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storing {
    Allowed,
    Refused,
}

/// What the elements are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By<'a> {
    Themselves,
    /// A pattern without `*`: they stay in the order in which they are.
    Nothing,
    Pattern(&'a [u8]),
}

#[derive(Debug)]
struct Options<'a> {
    by: By<'a>,
    offset: i64,
    count: i64,
    get: Vec<&'a [u8]>,
    descending: bool,
    alpha: bool,
    destination: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(
        ctx: &DataContext<'_, '_>,
        args: Args<'a>,
        storing: Storing,
    ) -> Result<Options<'a>, CommandError> {
        let mut options = Options {
            by: By::Themselves,
            offset: 0,
            count: -1,
            get: Vec::new(),
            descending: false,
            alpha: false,
            destination: None,
        };
        let mut rest = Cursor::new(args, 2);
        while !rest.is_at_end() {
            options.read(ctx, args.at(1), &mut rest, storing)?;
        }
        Ok(options)
    }

    /// One option.
    fn read(
        &mut self,
        ctx: &DataContext<'_, '_>,
        key: &[u8],
        rest: &mut Cursor<'a>,
        storing: Storing,
    ) -> Result<(), CommandError> {
        if rest.word("asc") {
            self.descending = false;
        } else if rest.word("desc") {
            self.descending = true;
        } else if rest.word("alpha") {
            self.alpha = true;
        } else if let Some(mut limits) = rest.values_of("limit", 2) {
            let mut next = || parse_i64_arg(limits.next().unwrap_or_default());
            (self.offset, self.count) = (next()?, next()?);
        } else if storing == Storing::Allowed
            && let Some(destination) = rest.value_of("store")
        {
            self.destination = Some(destination);
        } else if let Some(pattern) = rest.value_of("by") {
            self.by = if pattern.contains(&b'*') { By::Pattern(pattern) } else { By::Nothing };
            refuse_other_slots(ctx, "BY", pattern, key)?;
        } else if let Some(pattern) = rest.value_of("get") {
            self.get.push(pattern);
            refuse_other_slots(ctx, "GET", pattern, key)?;
        } else {
            return Err(CommandError::Syntax);
        }
        Ok(())
    }

    /// Sets have no order of their own: what is stored must not depend on how they lie in memory.
    fn settle_order(&mut self, value: Option<ValueRef<'_>>) {
        if self.by == By::Nothing && self.destination.is_some() && matches!(value, Some(ValueRef::Set(_))) {
            (self.by, self.alpha) = (By::Themselves, true);
        }
    }

    /// Which elements of so many are wanted.
    fn range(&self, len: usize) -> std::ops::Range<usize> {
        let size = |n: i64| usize::try_from(n).ok();
        let start = size(self.offset).unwrap_or(0).min(len);
        let end = size(self.count).map_or(len, |count| start.saturating_add(count).min(len));
        start..end
    }
}

/// In cluster mode a pattern must name keys of the sorted key's slot only, and everywhere keys that the user may read.
fn refuse_other_slots(
    ctx: &DataContext<'_, '_>,
    option: &str,
    pattern: &[u8],
    key: &[u8],
) -> Result<(), CommandError> {
    let reads = match option {
        "BY" => pattern.contains(&b'*'),
        _ => pattern != b"#",
    };
    if !reads {
        return Ok(());
    }
    if !ctx.limits.cluster || is_of_slot(pattern, key) {
        return if ctx.reads_all_keys { Ok(()) } else { Err(not_allowed(option)) };
    }
    Err(CommandError::err(format!(
        "{option} option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots."
    )))
}

/// Which keys are read is not known before, so the user has to have the right to all.
#[cold]
fn not_allowed(option: &str) -> CommandError {
    CommandError::err(format!("{option} option of SORT denied due to insufficient ACL permissions."))
}

/// Whether all keys that a pattern names are in the slot of `key`: nothing that decides the slot is left open.
fn is_of_slot(pattern: &[u8], key: &[u8]) -> bool {
    let tag = hash_tag(pattern);
    let decided = if tag.len() == pattern.len() {
        pattern
    } else {
        let begin = pattern.iter().position(|byte| *byte == b'{').unwrap_or(0);
        &pattern[..begin + 1 + tag.len()]
    };
    !decided.contains(&b'*') && Slot::of(pattern) == Slot::of(key)
}

const NAMED: NamedKeys = NamedKeys { are_read: reads_other_slots, visit: visit_named };

/// Whether a request reads keys of which nothing is known before.
fn reads_other_slots(args: Args<'_>) -> bool {
    other_patterns(args).next().is_some()
}

/// The slots of the keys that the elements name.
fn visit_named(keys: &Keys<'_>, args: Args<'_>, visit: &mut dyn FnMut(Slot)) {
    let mut name = Vec::new();
    for pattern in other_patterns(args).filter_map(Pattern::parse) {
        let mut visit_one = |element: &[u8]| visit(Slot::of(pattern.key(element, &mut name)));
        match keys.stored(args.at(1)).map(Entry::value) {
            Some(ValueRef::List(list)) => list.iter().for_each(|element| visit_one(&element)),
            Some(ValueRef::Set(set)) => set.iter().for_each(|member| visit_one(&member)),
            Some(ValueRef::SortedSet(set)) => set.iter().for_each(|(member, _)| visit_one(&member)),
            _ => {}
        }
    }
}

/// The patterns of a request that may name keys of other slots.
fn other_patterns<'a>(args: Args<'a>) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Cursor::new(args, 2);
    std::iter::from_fn(move || {
        while !rest.is_at_end() {
            match rest.value_of("by").or_else(|| rest.value_of("get")) {
                Some(pattern) if pattern.contains(&b'*') && !is_of_slot(pattern, args.at(1)) => {
                    return Some(pattern);
                }
                Some(_) => {}
                None => drop(rest.take()),
            }
        }
        None
    })
}

/// The sorted key, and the last one that is to be stored: it may follow any other option.
fn sort_keys(args: Args<'_>, visit: &mut dyn FnMut(usize, KeyFlags)) {
    let (mut rest, mut destination) = (Cursor::new(args, 2), None);
    while !rest.is_at_end() {
        let skipped = rest.values_of("limit", 2).is_some()
            || rest.value_of("get").is_some()
            || rest.value_of("by").is_some();
        if skipped {
            continue;
        }
        if rest.value_of("store").is_some() {
            destination = Some(rest.position() - 1);
        } else {
            rest.take();
        }
    }
    visit_keys(destination, visit);
}

fn run(ctx: &mut DataContext<'_, '_>, key: &[u8], options: &Options<'_>) -> CommandResult {
    let mut options = Options { get: options.get.clone(), ..*options };
    let keys = &*ctx.keys;
    let value = keys.read(key).map(Entry::value);
    options.settle_order(value);
    let elements = match value {
        None => Vec::new(),
        Some(value) => elements_of(value, &options)?,
    };
    let sorted = sorted(keys, elements, &options)?;
    let rows = &sorted[options.range(sorted.len())];
    if let Some(destination) = options.destination {
        let mut list = List::new(keys.limits().list);
        cells(keys, rows, &options.get, |cell| list.push_back(cell.as_deref().unwrap_or_default()));
        let len = list.as_ref().len();
        let event = (EventClass::List, "sortstore");
        return store_result(ctx, destination, (len, list.into()), Effect::Result, event);
    }
    ctx.out.array(rows.len() * options.get.len().max(1));
    cells(keys, rows, &options.get, |cell| ctx.out.optional_bulk(cell.as_deref()));
    Ok(Outcome::Reply)
}

/// In the order in which they are; if nothing else sorts them, those of a list or sorted set backwards for DESC.
///
/// Differs from Valkey: a sorted set that is compact stays so.
fn elements_of<'k>(value: ValueRef<'k>, options: &Options<'_>) -> Result<Vec<Element<'k>>, CommandError> {
    let has_order = !matches!(value, ValueRef::Set(_));
    let mut elements: Vec<Element<'k>> = match value {
        ValueRef::List(list) => list.iter().collect(),
        ValueRef::Set(set) => set.iter().collect(),
        ValueRef::SortedSet(set) => set.iter().map(|(member, _)| member).collect(),
        _ => return Err(CommandError::WrongType),
    };
    if options.by == By::Nothing && options.descending && has_order {
        elements.reverse();
    }
    Ok(elements)
}

/// What an element is compared by.
#[derive(Debug)]
enum Weight<'k> {
    Number(f64),
    /// `None`, if its key is missing, comes first.
    Text(Option<Element<'k>>),
}

fn sorted<'k>(
    keys: &'k Keys<'_>,
    elements: Vec<Element<'k>>,
    options: &Options<'_>,
) -> Result<Vec<Element<'k>>, CommandError> {
    if options.by == By::Nothing {
        return Ok(elements);
    }
    let mut weighed = Vec::with_capacity(elements.len());
    let by = if let By::Pattern(pattern) = options.by { Some(Column::parse(pattern)) } else { None };
    let mut name = Vec::new();
    for element in elements {
        let text = by.as_ref().map_or(Some(element), |by| by.value(keys, &element, &mut name));
        weighed.push((weight(text, options)?, element));
    }
    weighed.sort_by(|a, b| {
        let order = compare(a, b, options);
        if options.descending { order.reverse() } else { order }
    });
    Ok(weighed.into_iter().map(|(_, element)| element).collect())
}

fn weight<'k>(text: Option<Element<'k>>, options: &Options<'_>) -> Result<Weight<'k>, CommandError> {
    if options.alpha {
        return Ok(Weight::Text(text));
    }
    let Some(text) = text else { return Ok(Weight::Number(0.0)) };
    let number = parse_f64(&text)
        .ok_or_else(|| CommandError::err("One or more scores can't be converted into double"))?;
    Ok(Weight::Number(number))
}

/// Equal numbers are in the order of their elements; equal texts stay as they were.
fn compare(a: &(Weight<'_>, Element<'_>), b: &(Weight<'_>, Element<'_>), options: &Options<'_>) -> Ordering {
    match (&a.0, &b.0) {
        (Weight::Number(x), Weight::Number(y)) => {
            x.partial_cmp(y).unwrap_or(Ordering::Equal).then_with(|| (*a.1).cmp(&*b.1))
        }
        (Weight::Text(x), Weight::Text(y)) if options.destination.is_some() => {
            x.as_deref().cmp(&y.as_deref())
        }
        (Weight::Text(x), Weight::Text(y)) => x.as_deref().map(collated).cmp(&y.as_deref().map(collated)),
        (Weight::Number(_), Weight::Text(_)) | (Weight::Text(_), Weight::Number(_)) => Ordering::Equal,
    }
}

/// What is compared of a text that is not stored: in the C locale, up to its first NUL.
fn collated(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A key's name with a place for an element.
#[derive(Debug)]
struct Pattern<'a> {
    prefix: &'a [u8],
    suffix: &'a [u8],
    /// Behind `->`: a field of the hash.
    field: Option<&'a [u8]>,
}

impl<'a> Pattern<'a> {
    /// `None`: it has no place for an element, and names nothing.
    fn parse(pattern: &'a [u8]) -> Option<Pattern<'a>> {
        let star = pattern.iter().position(|byte| *byte == b'*')?;
        let (prefix, rest) = (&pattern[..star], &pattern[star + 1..]);
        let arrow = rest.windows(2).position(|two| two == b"->").filter(|at| at + 2 < rest.len());
        let (suffix, field) = match arrow {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        Some(Pattern { prefix, suffix, field })
    }

    /// The key that is named for an element; `name` keeps the room for it.
    fn key<'n>(&self, element: &[u8], name: &'n mut Vec<u8>) -> &'n [u8] {
        name.clear();
        name.extend_from_slice(self.prefix);
        name.extend_from_slice(element);
        name.extend_from_slice(self.suffix);
        name
    }
}

/// What is read for each element.
#[derive(Debug)]
enum Column<'a> {
    /// `#`
    Element,
    Named(Pattern<'a>),
    Nothing,
}

impl<'a> Column<'a> {
    fn parse(pattern: &'a [u8]) -> Column<'a> {
        if pattern == b"#" {
            Column::Element
        } else {
            Pattern::parse(pattern).map_or(Column::Nothing, Column::Named)
        }
    }

    /// A string, or a field of a hash.
    fn value<'k>(
        &self,
        keys: &'k Keys<'_>,
        element: &Element<'k>,
        name: &mut Vec<u8>,
    ) -> Option<Element<'k>> {
        let pattern = match self {
            Column::Element => return Some(*element),
            Column::Nothing => return None,
            Column::Named(pattern) => pattern,
        };
        match (keys.read(pattern.key(element, name)).map(Entry::value)?, pattern.field) {
            (ValueRef::String(text), None) => Some(text.into()),
            (ValueRef::Hash(hash), Some(field)) => keys.seen(hash).get(field),
            _ => None,
        }
    }
}

/// The cells of the result: each element, or what each GET makes of it.
fn cells<'k>(
    keys: &'k Keys<'_>,
    rows: &[Element<'k>],
    get: &[&[u8]],
    mut visit: impl FnMut(Option<Element<'k>>),
) {
    let columns: Vec<Column<'_>> = get.iter().map(|pattern| Column::parse(pattern)).collect();
    let mut name = Vec::new();
    for element in rows {
        if columns.is_empty() {
            visit(Some(*element));
        }
        columns.iter().for_each(|column| visit(column.value(keys, element, &mut name)));
    }
}
