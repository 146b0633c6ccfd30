//! A set of rights: which commands, on which keys, channels and databases.

use keyward_proto::glob;
use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;
use keyward_store::DbIndex;

use super::commands::{Commands, Right};
use super::user::RuleError;
use crate::command::ascii_eq;
use crate::command::keys_of::actual_flags;
use crate::command::spec::{self, KeyFlags, Scope, category};
use crate::command::table::Row;

/// What may be done with a key.
type Access = u8;
const READ: Access = 1;
const WRITE: Access = 2;

/// Where a request runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) db: DbIndex,
    /// How many there are.
    pub(crate) databases: DbIndex,
}

/// Why a request is refused, in ascending order of how much of it was allowed; with the argument for which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Denied {
    Database(usize),
    Command,
    Key(usize),
    Channel(usize),
}

impl Denied {
    /// The argument for which it is.
    pub(crate) fn at(self) -> usize {
        match self {
            Denied::Command => 0,
            Denied::Database(at) | Denied::Key(at) | Denied::Channel(at) => at,
        }
    }
}

/// Which channels a new user may use: `acl-pubsub-default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Channels {
    All,
    #[default]
    None,
}

/// All of a kind, or those that something matches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Those<T> {
    All,
    Of(Vec<T>),
}

impl<T: PartialEq> Those<T> {
    const NONE: Those<T> = Those::Of(Vec::new());

    fn is_all(&self) -> bool {
        *self == Those::All
    }
}

/// A glob pattern. The usual ones are compared at once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: Box<[u8]>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Literal,
    /// What is before the star.
    Prefix,
    Glob,
}

impl Pattern {
    fn new(text: &[u8]) -> Pattern {
        let is_special = |byte: &u8| b"*?[\\".contains(byte);
        let kind = match text {
            text if !text.iter().any(is_special) => Kind::Literal,
            [before @ .., b'*'] if !before.iter().any(is_special) => Kind::Prefix,
            _ => Kind::Glob,
        };
        Pattern { text: text.into(), kind }
    }

    #[inline]
    fn matches(&self, text: &[u8]) -> bool {
        match self.kind {
            Kind::Literal => *self.text == *text,
            Kind::Prefix => text.starts_with(&self.text[..self.text.len() - 1]) && !text.is_empty(),
            Kind::Glob => glob::matches(&self.text, text),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyPattern {
    pattern: Pattern,
    access: Access,
}

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    commands: Commands,
    keys: Those<KeyPattern>,
    channels: Those<Pattern>,
    /// In ascending order.
    databases: Those<i64>,
}

impl Selector {
    /// Nothing but these channels.
    pub(super) fn new(channels: Channels) -> Selector {
        let channels = match channels {
            Channels::All => Those::All,
            Channels::None => Those::NONE,
        };
        Selector { commands: Commands::NONE, keys: Those::NONE, channels, databases: Those::All }
    }

    pub(super) fn unrestricted() -> Selector {
        Selector { commands: Commands::ALL, keys: Those::All, channels: Those::All, databases: Those::All }
    }

    pub(super) fn is_unrestricted(&self) -> bool {
        self.commands.is_all() && self.keys.is_all() && self.channels.is_all() && self.databases.is_all()
    }

    /// Whether a request is allowed.
    #[inline]
    pub(super) fn check(&self, row: &Row, args: Args<'_>, place: Place) -> Result<(), Denied> {
        if let Those::Of(databases) = &self.databases {
            check_databases(databases, row, args, place)?;
        }
        if !row.has(spec::NO_AUTH) && !self.commands.allow(row, args) {
            return Err(Denied::Command);
        }
        if let Those::Of(patterns) = &self.keys {
            check_keys(patterns, row, args)?;
        }
        match &self.channels {
            Those::Of(patterns) if row.has(spec::PUBSUB) => check_channels(patterns, row, args),
            Those::Of(_) | Those::All => Ok(()),
        }
    }

    /// Whether all keys may be read.
    pub(super) fn reads_all_keys(&self) -> bool {
        match &self.keys {
            Those::All => true,
            Those::Of(patterns) => patterns.iter().any(|p| *p.pattern.text == *b"*" && p.access & READ != 0),
        }
    }

    pub(super) fn allows_channel(&self, channel: &[u8]) -> bool {
        match &self.channels {
            Those::All => true,
            Those::Of(patterns) => patterns.iter().any(|pattern| pattern.matches(channel)),
        }
    }

    /// A pattern is allowed as it stands only.
    pub(super) fn allows_pattern(&self, wanted: &[u8]) -> bool {
        match &self.channels {
            Those::All => true,
            Those::Of(patterns) => patterns.iter().any(|pattern| *pattern.text == *wanted),
        }
    }

    pub(super) fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        let lower = rule.to_ascii_lowercase();
        match (lower.as_slice(), rule) {
            (b"allkeys" | b"~*", _) => self.keys = Those::All,
            (b"resetkeys", _) => self.keys = Those::NONE,
            (b"allchannels" | b"&*", _) => self.channels = Those::All,
            (b"resetchannels", _) => self.channels = Those::NONE,
            (b"allcommands", _) => self.commands = Commands::ALL,
            (b"nocommands", _) => self.commands = Commands::NONE,
            (b"alldbs", _) => self.databases = Those::All,
            (b"resetdbs", _) => self.databases = Those::NONE,
            ([b'd', b'b', b'=', list @ ..], _) => self.databases = Those::Of(databases(list)?),
            (_, [b'~', pattern @ ..]) => self.add_key(pattern, READ | WRITE)?,
            (_, [b'%', rest @ ..]) => self.add_key_with_access(rest)?,
            (_, [b'&', pattern @ ..]) => self.add_channel(pattern)?,
            ([b'+', command @ ..], _) => self.commands.apply(Right::Given, command)?,
            ([b'-', command @ ..], _) => self.commands.apply(Right::Taken, command)?,
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    /// `R~pattern`
    fn add_key_with_access(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        if self.keys.is_all() {
            return Err(RuleError::KeysAreAll);
        }
        let mut access = 0;
        let mut len = 0;
        for byte in rest {
            let bit = match byte.to_ascii_uppercase() {
                b'R' => READ,
                b'W' => WRITE,
                b'~' if access != 0 => break,
                _ => return Err(RuleError::Syntax),
            };
            if access & bit != 0 {
                return Err(RuleError::Syntax);
            }
            access |= bit;
            len += 1;
        }
        if access == 0 {
            return Err(RuleError::Syntax);
        }
        self.add_key(rest.get(len + 1..).unwrap_or_default(), access)
    }

    fn add_key(&mut self, pattern: &[u8], access: Access) -> Result<(), RuleError> {
        let Those::Of(patterns) = &mut self.keys else { return Err(RuleError::KeysAreAll) };
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        match patterns.iter_mut().find(|p| *p.pattern.text == *pattern) {
            Some(same) => same.access |= access,
            None => patterns.push(KeyPattern { pattern: Pattern::new(pattern), access }),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        let Those::Of(patterns) = &mut self.channels else { return Err(RuleError::ChannelsAreAll) };
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        if !patterns.iter().any(|p| *p.text == *pattern) {
            patterns.push(Pattern::new(pattern));
        }
        Ok(())
    }

    pub(super) fn describe_commands(&self) -> Vec<u8> {
        self.commands.describe()
    }

    /// `~a %R~b`
    pub(super) fn describe_keys(&self) -> Vec<u8> {
        let Those::Of(patterns) = &self.keys else { return b"~*".to_vec() };
        let described = patterns.iter().map(|p| {
            let prefix: &[u8] = match p.access {
                READ => b"%R~",
                WRITE => b"%W~",
                _ => b"~",
            };
            [prefix, &p.pattern.text].concat()
        });
        described.collect::<Vec<_>>().join(&b' ')
    }

    /// `&a &b`
    pub(super) fn describe_channels(&self) -> Vec<u8> {
        let Those::Of(patterns) = &self.channels else { return b"&*".to_vec() };
        patterns.iter().map(|p| [b"&", &*p.text].concat()).collect::<Vec<_>>().join(&b' ')
    }

    /// `alldbs`, `db=1,2`, or nothing for none.
    pub(super) fn describe_databases(&self) -> String {
        match &self.databases {
            Those::All => "alldbs".into(),
            Those::Of(databases) if databases.is_empty() => String::new(),
            Those::Of(databases) => {
                let numbers: Vec<String> = databases.iter().map(i64::to_string).collect();
                format!("db={}", numbers.join(","))
            }
        }
    }

    /// All of it, as rules.
    pub(super) fn describe(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        parts.push(self.describe_keys());
        if !self.channels.is_all() {
            parts.push(b"resetchannels".to_vec());
        }
        parts.push(self.describe_channels());
        if let Those::Of(databases) = &self.databases {
            let none = databases.is_empty();
            parts.push(if none { b"resetdbs".to_vec() } else { self.describe_databases().into_bytes() });
        }
        parts.push(self.describe_commands());
        parts.retain(|part| !part.is_empty());
        parts.join(&b' ')
    }
}

/// No name, pattern or channel has these.
pub(super) fn has_blanks(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0))
}

/// `1,2`
fn databases(list: &[u8]) -> Result<Vec<i64>, RuleError> {
    let mut found = Vec::new();
    for word in list.split(|byte| *byte == b',') {
        let word = word.trim_ascii_start();
        let digits = word.strip_prefix(b"+").or(word.strip_prefix(b"-")).unwrap_or(word);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(RuleError::Syntax);
        }
        let number = std::str::from_utf8(word).ok().and_then(|word| word.parse::<i64>().ok());
        let in_range = number.filter(|number| (0..=i64::from(i32::MAX)).contains(number));
        found.push(in_range.ok_or(RuleError::DatabaseOutOfRange)?);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[inline(never)]
fn check_databases(databases: &[i64], row: &Row, args: Args<'_>, place: Place) -> Result<(), Denied> {
    let allowed = |db: DbIndex| databases.binary_search(&i64::from(db)).is_ok();
    if row.has(spec::ALL_DBS) {
        return Err(Denied::Database(0));
    }
    if let Some((at, _)) = named_databases(row, args, place).into_iter().find(|(_, db)| !allowed(*db)) {
        return Err(Denied::Database(at));
    }
    if uses_database(row, args) && !allowed(place.db) {
        return Err(Denied::Database(0));
    }
    Ok(())
}

/// Whether a command shows or changes something of the database in which it runs.
fn uses_database(row: &Row, args: Args<'_>) -> bool {
    let is_elsewhere = matches!(row.name, "select" | "swapdb");
    let has_no_conditions = row.scope == Scope::Transaction && args.len() == 1;
    if is_elsewhere || has_no_conditions {
        return false;
    }
    row.has(spec::READONLY | spec::WRITE)
        || row.categories & category::KEYSPACE != 0
        || row.keys().iter().any(|key| key.flags & spec::NOT_KEY == 0)
}

/// Arguments that name databases, if all of them do: what does not the command itself refuses.
fn named_databases(row: &Row, args: Args<'_>, place: Place) -> Vec<(usize, DbIndex)> {
    let positions = match row.name {
        "select" => vec![1],
        "move" => vec![2],
        "swapdb" => vec![1, 2],
        "copy" => databases_of_copy(args),
        _ => Vec::new(),
    };
    let named = positions.into_iter().map(|at| {
        let number = args.get(at).and_then(parse_i64).and_then(|number| DbIndex::try_from(number).ok());
        number.filter(|db| *db < place.databases).map(|db| (at, db))
    });
    named.collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Behind each DB, as long as the options make sense.
fn databases_of_copy(args: Args<'_>) -> Vec<usize> {
    let (mut found, mut at) = (Vec::new(), 3);
    while let Some(word) = args.get(at) {
        if ascii_eq(word, "DB") && at + 1 < args.len() {
            found.push(at + 1);
            at += 2;
        } else if ascii_eq(word, "REPLACE") {
            at += 1;
        } else {
            return Vec::new();
        }
    }
    found
}

/// What a key specification needs.
#[inline]
fn needed(flags: KeyFlags) -> Access {
    let read = if flags & spec::ACCESS != 0 { READ } else { 0 };
    let write = if flags & (spec::INSERT | spec::DELETE | spec::UPDATE) != 0 { WRITE } else { 0 };
    read | write
}

fn check_keys(patterns: &[KeyPattern], row: &Row, args: Args<'_>) -> Result<(), Denied> {
    let allowed = |key: &[u8], flags: KeyFlags| {
        let needed = needed(actual_flags(flags, args));
        patterns.iter().any(|p| p.access & needed == needed && p.pattern.matches(key))
    };
    if let (Some(at), [only]) = (row.single_key(), row.keys())
        && only.flags & spec::NOT_KEY == 0
    {
        let denied = args.get(at).is_some_and(|key| !allowed(key, only.flags));
        return if denied { Err(Denied::Key(at)) } else { Ok(()) };
    }
    let mut denied = None;
    let visited = row.visit_keys(args, &mut |at, flags| {
        if denied.is_none() && flags & spec::NOT_KEY == 0 && !allowed(args.at(at), flags) {
            denied = Some(at);
        }
    });
    // Arguments that contradict the specification: the command itself says so.
    match (visited, denied) {
        (Ok(()), Some(at)) => Err(Denied::Key(at)),
        (Ok(()), None) | (Err(_), _) => Ok(()),
    }
}

fn check_channels(patterns: &[Pattern], row: &Row, args: Args<'_>) -> Result<(), Denied> {
    let last = match row.name {
        "publish" | "spublish" => 1,
        "subscribe" | "psubscribe" | "ssubscribe" => args.len() - 1,
        _ => 0,
    };
    let is_pattern = row.name == "psubscribe";
    let allowed = |wanted: &[u8]| {
        patterns.iter().any(|p| if is_pattern { *p.text == *wanted } else { p.matches(wanted) })
    };
    match (1..=last).find(|at| !allowed(args.at(*at))) {
        Some(at) => Err(Denied::Channel(at)),
        None => Ok(()),
    }
}
