//! What is said of a command beside its function: arity, flags, key positions, categories. Routing, refusal of writes
//! on a replica, MULTI and COMMAND all read it, and nothing else knows it.
//!
//! A [`Command`] stands beside its function and names only what cannot be computed; its family ([`family`]) adds the
//! group, and with it the ACL categories. All of this happens when the program is compiled.
//!
//! Flags and key specifications have the meaning of <https://valkey.io/topics/key-specs/> and of COMMAND.

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;
use keyward_proto::slot::Slot;
use keyward_store::keys::Keys;

use crate::CommandError;

/// A set of flags of a command.
pub type Flags = u32;

pub const ADMIN: Flags = 1 << 0;
pub const ALLOW_BUSY: Flags = 1 << 1;
pub const ALL_DBS: Flags = 1 << 2;
pub const ASKING: Flags = 1 << 3;
pub const BLOCKING: Flags = 1 << 4;
pub const DENYOOM: Flags = 1 << 5;
pub const FAST: Flags = 1 << 6;
pub const LOADING: Flags = 1 << 7;
pub const MAY_REPLICATE: Flags = 1 << 8;
pub const NOSCRIPT: Flags = 1 << 9;
pub const NO_ASYNC_LOADING: Flags = 1 << 10;
pub const NO_AUTH: Flags = 1 << 11;
pub const NO_MANDATORY_KEYS: Flags = 1 << 12;
pub const NO_MULTI: Flags = 1 << 13;
pub const PROTECTED: Flags = 1 << 14;
pub const PUBSUB: Flags = 1 << 15;
pub const READONLY: Flags = 1 << 16;
pub const SENTINEL: Flags = 1 << 17;
pub const SKIP_COMMANDLOG: Flags = 1 << 18;
pub const SKIP_MONITOR: Flags = 1 << 19;
pub const STALE: Flags = 1 << 20;
pub const TOUCHES_ARBITRARY_KEYS: Flags = 1 << 21;
pub const WRITE: Flags = 1 << 22;

// What follows is not told by COMMAND.

/// Ends or leaves a transaction, or is refused in it: it is never queued.
pub const NEVER_QUEUED: Flags = 1 << 24;
/// Its replies are messages to a subscriber, which CLIENT REPLY does not leave out.
pub const SUBSCRIPTION: Flags = 1 << 25;
/// A RESP2 client with subscriptions may call it, too.
pub const FOR_SUBSCRIBERS: Flags = 1 << 26;
/// It asks whether the node is well: it fails where writes are refused because nothing can be saved.
pub const HEALTH_CHECK: Flags = 1 << 27;

/// A set of flags of a key specification.
pub type KeyFlags = u16;

pub const RO: KeyFlags = 1 << 0;
pub const RW: KeyFlags = 1 << 1;
pub const OW: KeyFlags = 1 << 2;
pub const RM: KeyFlags = 1 << 3;
pub const ACCESS: KeyFlags = 1 << 4;
pub const UPDATE: KeyFlags = 1 << 5;
pub const INSERT: KeyFlags = 1 << 6;
pub const DELETE: KeyFlags = 1 << 7;
/// It only decides the slot: a shard channel.
pub const NOT_KEY: KeyFlags = 1 << 8;
/// Options decide what happens to the key.
pub const VARIABLE_FLAGS: KeyFlags = 1 << 9;

/// The flags of key specifications and their names, in the order in which COMMAND lists them.
pub const KEY_FLAG_NAMES: [(KeyFlags, &str); 10] = [
    (RO, "RO"),
    (RW, "RW"),
    (OW, "OW"),
    (RM, "RM"),
    (ACCESS, "access"),
    (UPDATE, "update"),
    (INSERT, "insert"),
    (DELETE, "delete"),
    (NOT_KEY, "not_key"),
    (VARIABLE_FLAGS, "variable_flags"),
];

/// A set of ACL categories.
pub type Categories = u32;

/// ACL categories, in the order in which COMMAND lists them.
pub mod category {
    use super::Categories;

    pub const KEYSPACE: Categories = 1 << 0;
    pub const READ: Categories = 1 << 1;
    pub const WRITE: Categories = 1 << 2;
    pub const SET: Categories = 1 << 3;
    pub const SORTED_SET: Categories = 1 << 4;
    pub const LIST: Categories = 1 << 5;
    pub const HASH: Categories = 1 << 6;
    pub const STRING: Categories = 1 << 7;
    pub const BITMAP: Categories = 1 << 8;
    pub const HYPERLOGLOG: Categories = 1 << 9;
    pub const GEO: Categories = 1 << 10;
    pub const STREAM: Categories = 1 << 11;
    pub const PUBSUB: Categories = 1 << 12;
    pub const ADMIN: Categories = 1 << 13;
    pub const FAST: Categories = 1 << 14;
    pub const SLOW: Categories = 1 << 15;
    pub const BLOCKING: Categories = 1 << 16;
    pub const DANGEROUS: Categories = 1 << 17;
    pub const CONNECTION: Categories = 1 << 18;
    pub const TRANSACTION: Categories = 1 << 19;
    pub const SCRIPTING: Categories = 1 << 20;

    /// Their names, from the lowest bit on.
    pub const NAMES: [&str; 21] = [
        "keyspace",
        "read",
        "write",
        "set",
        "sortedset",
        "list",
        "hash",
        "string",
        "bitmap",
        "hyperloglog",
        "geo",
        "stream",
        "pubsub",
        "admin",
        "fast",
        "slow",
        "blocking",
        "dangerous",
        "connection",
        "transaction",
        "scripting",
    ];
}

/// The chapter of the documentation to which a command belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Bitmap,
    Cluster,
    Connection,
    Generic,
    Geo,
    Hash,
    HyperLogLog,
    List,
    Pubsub,
    Scripting,
    Server,
    Set,
    SortedSet,
    Stream,
    String,
    Transactions,
}

impl Group {
    pub const fn name(self) -> &'static str {
        match self {
            Group::Bitmap => "bitmap",
            Group::Cluster => "cluster",
            Group::Connection => "connection",
            Group::Generic => "generic",
            Group::Geo => "geo",
            Group::Hash => "hash",
            Group::HyperLogLog => "hyperloglog",
            Group::List => "list",
            Group::Pubsub => "pubsub",
            Group::Scripting => "scripting",
            Group::Server => "server",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Stream => "stream",
            Group::String => "string",
            Group::Transactions => "transactions",
        }
    }

    /// The category of all commands of this group that name no other.
    const fn categories(self) -> Categories {
        match self {
            Group::Bitmap => category::BITMAP,
            Group::Connection => category::CONNECTION,
            Group::Generic => category::KEYSPACE,
            Group::Geo => category::GEO,
            Group::Hash => category::HASH,
            Group::HyperLogLog => category::HYPERLOGLOG,
            Group::List => category::LIST,
            Group::Scripting => category::SCRIPTING,
            Group::Set => category::SET,
            Group::SortedSet => category::SORTED_SET,
            Group::Stream => category::STREAM,
            Group::String => category::STRING,
            Group::Transactions => category::TRANSACTION,
            Group::Cluster | Group::Pubsub | Group::Server => 0,
        }
    }
}

/// What a command touches beside its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nothing in the keyspace.
    None,
    /// The keys that its key specifications name.
    Keys,
    /// It walks over the keyspace, a slot at a time.
    Walk,
    /// The whole keyspace at once: the world is stopped.
    World,
    /// The commands of a transaction (EXEC).
    Transaction,
    /// What a script calls, its declared keys among it (EVAL).
    Script,
}

/// Where the search for keys begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    Index(u8),
    /// Behind this word, looked for from this position (from the end if negative).
    Keyword(&'static [u8], i8),
    Unknown,
}

/// Which arguments from there on are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// `last` is relative to the first key, or to the end if negative; with `limit` 2 and more, `last` -1 means
    /// that only this fraction of the remaining arguments are keys.
    Range {
        last: i8,
        step: u8,
        limit: u8,
    },
    /// The argument `number` counts the keys, which start at `first` (both relative to the beginning).
    KeyNum {
        number: u8,
        first: u8,
        step: u8,
    },
    Unknown,
}

/// Some of a command's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    pub flags: KeyFlags,
    pub begin: Begin,
    pub find: Find,
}

/// Visits the position of each key of a request, with what happens to it.
pub type KeySearch = fn(Args<'_>, &mut dyn FnMut(usize, KeyFlags));

/// Most key specifications that a command has.
const KEY_SPECS_MAX: usize = 3;

/// What is known of a command or subcommand.
#[derive(Clone, Copy)]
pub struct CommandSpec {
    /// In lower case; a subcommand with its container: `client|kill`.
    pub name: &'static str,
    /// Number of arguments with the name; at least the absolute value if negative.
    pub arity: i32,
    pub flags: Flags,
    pub categories: Categories,
    pub group: Group,
    pub since: &'static str,
    pub tips: &'static [&'static str],
    pub scope: Scope,
    is_brief: bool,
    keys: [KeySpec; KEY_SPECS_MAX],
    keys_len: u8,
    /// The only key's position; zero: there is none, or it has to be searched.
    single_key: u8,
    /// Finds the keys where the specifications cannot.
    search: Option<KeySearch>,
    named_keys: Option<NamedKeys>,
}

/// Keys that a request reads and that only the values of its own keys name.
#[derive(Debug, Clone, Copy)]
pub struct NamedKeys {
    /// Whether a request reads such keys.
    pub are_read: fn(Args<'_>) -> bool,
    /// Visits their slots; the request's own keys are locked. What it visits may change until all are.
    pub visit: fn(&Keys<'_>, Args<'_>, &mut dyn FnMut(Slot)),
}

impl std::fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl CommandSpec {
    #[inline]
    pub const fn has(&self, flags: Flags) -> bool {
        self.flags & flags != 0
    }

    /// Whether it is quick whatever it works on, so that its time need not be looked at by itself.
    #[inline]
    pub const fn is_brief(&self) -> bool {
        self.is_brief
    }

    #[inline]
    pub fn accepts(&self, len: usize) -> bool {
        let len = i32::try_from(len).unwrap_or(i32::MAX);
        if 0 <= self.arity { len == self.arity } else { -self.arity <= len }
    }

    #[inline]
    pub fn keys(&self) -> &[KeySpec] {
        &self.keys[..usize::from(self.keys_len)]
    }

    /// The first key, for the commands whose only key is at a fixed position: no search is needed.
    #[inline]
    pub fn single_key(&self) -> Option<usize> {
        (self.single_key != 0).then_some(usize::from(self.single_key))
    }

    /// The keys that this request reads and that only the values of its own keys name, if it does.
    pub fn named_keys(&self, args: Args<'_>) -> Option<NamedKeys> {
        self.named_keys.filter(|named| (named.are_read)(args))
    }

    /// Whether its requests may read such keys.
    #[inline]
    pub const fn has_named_keys(&self) -> bool {
        self.named_keys.is_some()
    }

    /// Calls `visit` with the position of each key and the flags of its specification.
    ///
    /// # Errors
    /// `ERR Invalid arguments specified for command` if the arguments contradict the specification.
    pub fn visit_keys(
        &self,
        args: Args<'_>,
        visit: &mut dyn FnMut(usize, KeyFlags),
    ) -> Result<(), CommandError> {
        if let Some(search) = self.search {
            search(args, visit);
            return Ok(());
        }
        for spec in self.keys() {
            let Some(range) = spec.positions(args)? else { continue };
            for at in range {
                visit(at, spec.flags);
            }
        }
        Ok(())
    }
}

/// A command: what is known of it, and its function, whose type is the caller's business.
///
/// A command stands beside its function: [`Command::new`] says what every command has to say, the methods what only
/// some have.
#[derive(Debug, Clone, Copy)]
pub struct Command<F> {
    pub spec: CommandSpec,
    pub run: F,
    /// Instead of its family's.
    group: Option<Group>,
    /// Instead of its group's.
    categories: Option<Categories>,
}

impl<F: Copy> Command<F> {
    pub const fn new(
        name: &'static str,
        run: F,
        arity: i32,
        flags: Flags,
        since: &'static str,
    ) -> Command<F> {
        let no_key = KeySpec { flags: 0, begin: Begin::Unknown, find: Find::Unknown };
        let spec = CommandSpec {
            name,
            arity,
            flags,
            categories: 0,
            group: Group::Generic,
            since,
            tips: &[],
            scope: Scope::None,
            is_brief: false,
            keys: [no_key; KEY_SPECS_MAX],
            keys_len: 0,
            single_key: 0,
            search: None,
            named_keys: None,
        };
        Command { spec, run, group: None, categories: None }
    }

    /// The argument `at` is a key.
    pub const fn key(self, at: u8, flags: KeyFlags) -> Self {
        self.keys(at, 0, 1, flags)
    }

    /// Each `step`th argument from `first` on is a key, up to `last`: relative to `first`, or to the end if negative.
    pub const fn keys(self, first: u8, last: i8, step: u8, flags: KeyFlags) -> Self {
        let (begin, find) = (Begin::Index(first), Find::Range { last, step, limit: 0 });
        self.key_spec(KeySpec { flags, begin, find })
    }

    /// The argument `number` says how many keys follow it, each `step` behind the one before.
    pub const fn counted_keys(self, number: u8, step: u8, flags: KeyFlags) -> Self {
        let (begin, find) = (Begin::Index(number), Find::KeyNum { number: 0, first: 1, step });
        self.key_spec(KeySpec { flags, begin, find })
    }

    pub const fn key_spec(mut self, key: KeySpec) -> Self {
        let spec = &mut self.spec;
        spec.keys[spec.keys_len as usize] = key;
        spec.keys_len += 1;
        spec.scope = Scope::Keys;
        spec.single_key = match key {
            KeySpec { begin: Begin::Index(at), find: Find::Range { last: 0, .. }, .. }
                if spec.keys_len == 1 =>
            {
                at
            }
            _ => 0,
        };
        self
    }

    /// Its keys are found by this function, whatever its specifications say.
    pub const fn search(mut self, search: KeySearch) -> Self {
        self.spec.search = Some(search);
        self
    }

    /// All slots are locked for the requests of which this holds.
    pub const fn named_keys(mut self, named: NamedKeys) -> Self {
        self.spec.named_keys = Some(named);
        self
    }

    pub const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.spec.tips = tips;
        self
    }

    /// What it touches if that does not follow from its keys.
    pub const fn scope(mut self, scope: Scope) -> Self {
        self.spec.scope = scope;
        self
    }

    /// ACL categories instead of that of its group; those that follow from its flags are added.
    pub const fn categories(mut self, categories: Categories) -> Self {
        self.categories = Some(categories);
        self
    }

    /// A group of its own.
    pub const fn group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    const fn complete(mut self, group: Group) -> Self {
        let group = match self.group {
            Some(own) => own,
            None => group,
        };
        let categories = match self.categories {
            Some(own) => own,
            None => group.categories(),
        };
        self.spec.group = group;
        self.spec.categories = categories | implied_categories(self.spec.flags);
        let is_quick = self.spec.flags & FAST != 0 || is_one_of(self.spec.name, &QUICK);
        self.spec.is_brief = is_quick && matches!(self.spec.scope, Scope::None | Scope::Keys);
        // What a script reads is a matter of its commands.
        if categories & category::SCRIPTING != 0 {
            self.spec.categories &= !category::READ;
        }
        self
    }
}

/// Commands without the flag `FAST` that are quick all the same: what they drop is freed later.
const QUICK: [&str; 2] = ["set", "del"];

const fn is_one_of(name: &str, names: &[&str]) -> bool {
    let mut i = 0;
    while i < names.len() {
        let (name, other) = (name.as_bytes(), names[i].as_bytes());
        let mut at = 0;
        while at < name.len() && at < other.len() && name[at] == other[at] {
            at += 1;
        }
        if at == name.len() && at == other.len() {
            return true;
        }
        i += 1;
    }
    false
}

/// The categories that follow from the flags.
const fn implied_categories(flags: Flags) -> Categories {
    const IMPLIED: [(Flags, Categories); 5] = [
        (WRITE, category::WRITE),
        (READONLY, category::READ),
        (ADMIN, category::ADMIN | category::DANGEROUS),
        (PUBSUB, category::PUBSUB),
        (BLOCKING, category::BLOCKING),
    ];
    let mut categories = if flags & FAST != 0 { category::FAST } else { category::SLOW };
    let mut i = 0;
    while i < IMPLIED.len() {
        if flags & IMPLIED[i].0 != 0 {
            categories |= IMPLIED[i].1;
        }
        i += 1;
    }
    categories
}

/// The commands of a family: they get its group, and the categories that follow from it and from their flags.
pub const fn family<F: Copy, const N: usize>(group: Group, mut commands: [Command<F>; N]) -> [Command<F>; N] {
    let mut i = 0;
    while i < N {
        commands[i] = commands[i].complete(group);
        i += 1;
    }
    commands
}

impl KeySpec {
    /// Which arguments are keys; `None` if the word before them is missing.
    fn positions(
        &self,
        args: Args<'_>,
    ) -> Result<Option<std::iter::StepBy<std::ops::Range<usize>>>, CommandError> {
        let invalid = || CommandError::err("Invalid arguments specified for command");
        let len = args.len();
        let begin = match self.begin {
            Begin::Index(at) if usize::from(at) < len => usize::from(at),
            Begin::Index(_) => return Err(invalid()),
            Begin::Keyword(word, from) => match behind(word, from, args) {
                Some(at) if at < len => at,
                Some(_) | None => return Ok(None),
            },
            Begin::Unknown => return Ok(None),
        };
        let (keys, step) = match self.find {
            Find::Range { last, step, limit } => {
                let distance = usize::from(last.unsigned_abs());
                let end = match last {
                    0.. => (begin + distance + 1).min(len),
                    -1 if 2 <= limit => begin + (len - begin) / usize::from(limit),
                    _ => (len + 1).saturating_sub(distance),
                };
                (begin..end.max(begin), step)
            }
            Find::KeyNum { number, first, step } => {
                let count = args.get(begin + usize::from(number)).and_then(parse_i64);
                let count = count.and_then(|n| usize::try_from(n).ok()).ok_or_else(invalid)?;
                let first = begin + usize::from(first);
                let end = count.checked_mul(usize::from(step)).and_then(|n| n.checked_add(first));
                (first..end.filter(|end| *end <= len).ok_or_else(invalid)?, step)
            }
            Find::Unknown => return Ok(None),
        };
        Ok(Some(keys.step_by(usize::from(step).max(1))))
    }
}

/// What stands behind a word that is looked for forwards from a position, or backwards from one counted from the end.
fn behind(word: &[u8], from: i8, args: Args<'_>) -> Option<usize> {
    let is_word = |at: &usize| args.at(*at).eq_ignore_ascii_case(word);
    let distance = usize::from(from.unsigned_abs());
    let found = if 0 <= from {
        (distance..args.len()).find(is_word)
    } else {
        (1..(args.len() + 1).saturating_sub(distance)).rev().find(is_word)
    };
    Some(found? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Command<()> = Command::new("c", (), -2, 0, "1.0.0").key(1, RO);

    /// The positions of the keys of a request; `None` if it is refused.
    fn keys_of(command: Command<()>, request: &str) -> Option<Vec<usize>> {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let mut found = Vec::new();
        let visited = command.spec.visit_keys(Args::from_slices(&words), &mut |at, _| found.push(at));
        visited.ok().map(|()| found)
    }

    fn searched(begin: Begin, find: Find) -> Command<()> {
        Command::new("c", (), -2, 0, "1.0.0").key_spec(KeySpec { flags: RO, begin, find })
    }

    #[test]
    fn keys_are_found_by_position_and_count() {
        let plain = Command::new("c", (), -2, 0, "1.0.0");
        for (command, request, keys) in [
            (FIRST, "c k v", Some(vec![1])),
            (FIRST, "c", None),
            (FIRST.keys(2, -1, 1, RO), "c a b c", Some(vec![1, 2, 3])),
            (plain.keys(1, -1, 2, OW), "c a 1 b 2", Some(vec![1, 3])),
            (plain.keys(1, -2, 1, RW), "c a b 0", Some(vec![1, 2])),
            (plain.counted_keys(1, 1, RO), "c 2 a b x", Some(vec![2, 3])),
            (plain.counted_keys(1, 2, OW), "c 2 a 1 b 2 NX", Some(vec![2, 4])),
            (plain.counted_keys(1, 1, RO), "c 3 a b", None),
            (plain.counted_keys(1, 1, RO), "c 9223372036854775807 a b", None),
            (plain.counted_keys(1, 1, RO), "c x a b", None),
        ] {
            assert_eq!(keys_of(command, request), keys, "{request}");
        }
    }

    #[test]
    fn keys_are_found_behind_a_word() {
        let streams = searched(Begin::Keyword(b"STREAMS", 1), Find::Range { last: -1, step: 1, limit: 2 });
        assert_eq!(keys_of(streams, "c COUNT 2 streams a b 0 0"), Some(vec![4, 5]));
        assert_eq!(keys_of(streams, "c COUNT 2"), Some(vec![]));
        assert_eq!(keys_of(streams, "c STREAMS"), Some(vec![]));
        let last = searched(Begin::Keyword(b"KEYS", -2), Find::Range { last: -1, step: 1, limit: 0 });
        assert_eq!(keys_of(last, "c KEYS keys a b"), Some(vec![3, 4]));
        assert_eq!(keys_of(searched(Begin::Unknown, Find::Unknown), "c a"), Some(vec![]));
    }

    #[test]
    fn what_follows_from_group_flags_and_keys_is_added() {
        let mut named = FIRST;
        named.spec.flags = WRITE | FAST;
        let [first, own, without_keys] = family(
            Group::Set,
            [
                named,
                named.categories(category::DANGEROUS).group(Group::Server),
                Command::new("d", (), 1, ADMIN, "1.0.0"),
            ],
        );
        assert_eq!(first.spec.categories, category::SET | category::WRITE | category::FAST);
        assert_eq!((first.spec.group, first.spec.scope), (Group::Set, Scope::Keys));
        assert_eq!(own.spec.categories, category::DANGEROUS | category::WRITE | category::FAST);
        assert_eq!(own.spec.group, Group::Server);
        let admin = category::SET | category::ADMIN | category::DANGEROUS | category::SLOW;
        assert_eq!((without_keys.spec.categories, without_keys.spec.scope), (admin, Scope::None));
        assert_eq!((first.spec.single_key(), without_keys.spec.single_key()), (Some(1), None));
        assert_eq!(FIRST.key(2, RW).spec.single_key(), None, "there is another");
    }
}
