//! A user: whether it may come in, by which passwords, and its rights. Rules change it.

use std::borrow::Cow;
use std::sync::Arc;

use keyward_proto::resp::Args;
use sha2::{Digest, Sha256};

use super::Name;
use super::selector::{Channels, Denied, Place, Selector};
use crate::command::table::Row;

const HASH_LEN: usize = 32;
type Hash = [u8; HASH_LEN];

/// A rule, or the rules of a selector in their parentheses, whose words are joined.
pub(crate) type Rule<'a> = Cow<'a, [u8]>;

/// Why a rule is refused, in Valkey's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleError {
    Unknown,
    Syntax,
    KeysAreAll,
    ChannelsAreAll,
    NoSuchPassword,
    NoHash,
    FirstArgOfSubcommand,
    DatabaseOutOfRange,
}

impl RuleError {
    pub(crate) fn text(self) -> &'static str {
        match self {
            RuleError::Unknown => "Unknown command or category name in ACL",
            RuleError::Syntax => "Syntax error",
            RuleError::KeysAreAll => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
                 effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::ChannelsAreAll => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            RuleError::NoHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            RuleError::FirstArgOfSubcommand => "Allowing first-arg of a subcommand is not supported",
            RuleError::DatabaseOutOfRange => "The provided database ID is out of range",
        }
    }
}

/// Whether clients can be this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    On,
    Off,
}

/// How a client shows that it is this user.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// `nopass`: any password is right.
    None,
    /// By one of these passwords.
    Passwords(Vec<Hash>),
}

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    name: Name,
    /// Another for each user that there has been: who has the name of a deleted one is not the same.
    number: u64,
    entry: Entry,
    proof: Proof,
    root: Selector,
    selectors: Vec<Selector>,
}

impl User {
    /// One that may nothing yet.
    pub(super) fn new(name: Name, channels: Channels, number: u64) -> User {
        let (entry, proof) = (Entry::Off, Proof::Passwords(Vec::new()));
        User { name, number, entry, proof, root: Selector::new(channels), selectors: Vec::new() }
    }

    /// One that may everything, without a password.
    pub(super) fn unrestricted(name: Name) -> User {
        let (entry, proof, root) = (Entry::On, Proof::None, Selector::unrestricted());
        User { name, number: 0, entry, proof, root, selectors: Vec::new() }
    }

    /// May nothing at all, and nobody is it.
    pub(crate) fn nobody() -> User {
        User::new((*b"").into(), Channels::None, 0)
    }

    pub(super) fn with_number(&self, number: u64) -> User {
        User { number, ..self.clone() }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn is_on(&self) -> bool {
        self.entry == Entry::On
    }

    pub(crate) fn has_no_password(&self) -> bool {
        self.proof == Proof::None
    }

    /// Whether whoever connects may be this user without saying anything.
    pub(super) fn is_open(&self) -> bool {
        self.is_on() && self.has_no_password()
    }

    pub(crate) fn is_unrestricted(&self) -> bool {
        self.root.is_unrestricted()
    }

    /// Whether a client that knows this password may be the user.
    pub(crate) fn admits(&self, password: &[u8]) -> bool {
        let is_right = match &self.proof {
            Proof::None => true,
            // What is compared are hashes, so the time tells nothing about the passwords.
            Proof::Passwords(hashes) => hashes.contains(&hash_of(password)),
        };
        self.is_on() && is_right
    }

    /// `nopass` if it is empty.
    pub(super) fn set_only_password(&mut self, password: &[u8]) {
        self.proof = match password {
            b"" => Proof::None,
            password => Proof::Passwords(vec![hash_of(password)]),
        };
    }

    /// Whether a request is allowed: by one of its sets of rights. Otherwise the reason that was the
    /// closest.
    #[inline]
    pub(crate) fn check(&self, row: &Row, args: Args<'_>, place: Place) -> Result<(), Denied> {
        match self.root.check(row, args, place) {
            Ok(()) => Ok(()),
            Err(denied) if self.selectors.is_empty() => Err(denied),
            Err(denied) => self.check_selectors(row, args, place, denied),
        }
    }

    fn check_selectors(
        &self,
        row: &Row,
        args: Args<'_>,
        place: Place,
        mut closest: Denied,
    ) -> Result<(), Denied> {
        for selector in &self.selectors {
            match selector.check(row, args, place) {
                Ok(()) => return Ok(()),
                Err(denied) => closest = closest.max(denied),
            }
        }
        Err(closest)
    }

    fn all_selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Whether a request may read any key beside those that it names.
    pub(crate) fn reads_all_keys(&self, row: &Row, args: Args<'_>, place: Place) -> bool {
        self.all_selectors().any(|s| s.reads_all_keys() && s.check(row, args, place).is_ok())
    }

    pub(crate) fn allows_channel(&self, channel: &[u8]) -> bool {
        self.all_selectors().any(|selector| selector.allows_channel(channel))
    }

    pub(crate) fn allows_pattern(&self, pattern: &[u8]) -> bool {
        self.all_selectors().any(|selector| selector.allows_pattern(pattern))
    }

    /// Applies rules in their order; `channels`: what `reset` leaves.
    pub(super) fn apply_all<'r>(
        &mut self,
        rules: &'r [Rule<'r>],
        channels: Channels,
    ) -> Result<(), (&'r Rule<'r>, RuleError)> {
        rules.iter().try_for_each(|rule| self.apply(rule, channels).map_err(|why| (rule, why)))
    }

    fn apply(&mut self, rule: &[u8], channels: Channels) -> Result<(), RuleError> {
        match (rule.to_ascii_lowercase().as_slice(), rule) {
            (b"" | b"sanitize-payload" | b"skip-sanitize-payload", _) => {}
            (b"on", _) => self.entry = Entry::On,
            (b"off", _) => self.entry = Entry::Off,
            (b"nopass", _) => self.proof = Proof::None,
            (b"resetpass", _) => self.proof = Proof::Passwords(Vec::new()),
            (b"clearselectors", _) => self.selectors.clear(),
            (b"reset", _) => *self = User::new(Arc::clone(&self.name), channels, self.number),
            (_, [b'>', password @ ..]) => self.add_password(hash_of(password)),
            (_, [b'#', hash @ ..]) => self.add_password(parse_hash(hash)?),
            (_, [b'<', password @ ..]) => self.remove_password(hash_of(password))?,
            (_, [b'!', hash @ ..]) => self.remove_password(parse_hash(hash)?)?,
            (_, [b'(', inner @ .., b')']) => {
                let mut selector = Selector::new(channels);
                let words = inner.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
                words.into_iter().try_for_each(|word| selector.apply(word))?;
                self.selectors.push(selector);
            }
            _ => self.root.apply(rule)?,
        }
        Ok(())
    }

    fn add_password(&mut self, hash: Hash) {
        match &mut self.proof {
            Proof::None => self.proof = Proof::Passwords(vec![hash]),
            Proof::Passwords(hashes) if hashes.contains(&hash) => {}
            Proof::Passwords(hashes) => hashes.push(hash),
        }
    }

    fn remove_password(&mut self, hash: Hash) -> Result<(), RuleError> {
        let Proof::Passwords(hashes) = &mut self.proof else { return Err(RuleError::NoSuchPassword) };
        let at = hashes.iter().position(|known| *known == hash).ok_or(RuleError::NoSuchPassword)?;
        hashes.remove(at);
        Ok(())
    }

    /// `on`, `nopass`
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_on() { "on" } else { "off" }];
        flags.extend(self.has_no_password().then_some("nopass"));
        flags
    }

    /// The hashes of its passwords, in hexadecimal digits.
    pub(crate) fn passwords(&self) -> Vec<String> {
        let Proof::Passwords(hashes) = &self.proof else { return Vec::new() };
        hashes.iter().map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect()).collect()
    }

    /// Its sets of rights, the first of which has no parentheses.
    pub(crate) fn rights(&self) -> impl Iterator<Item = Rights> {
        self.all_selectors().map(|selector| Rights {
            commands: selector.describe_commands(),
            keys: selector.describe_keys(),
            channels: selector.describe_channels(),
            databases: selector.describe_databases(),
        })
    }

    /// All of it, as rules that make the same user.
    pub(crate) fn describe(&self) -> Vec<u8> {
        let mut parts: Vec<Vec<u8>> = self.flags().iter().map(|flag| flag.as_bytes().to_vec()).collect();
        parts.extend(self.passwords().iter().map(|hash| format!("#{hash}").into_bytes()));
        parts.push(self.root.describe());
        parts.extend(self.selectors.iter().map(|s| [b"(", &*s.describe(), b")"].concat()));
        parts.join(&b' ')
    }
}

/// What ACL GETUSER shows of a set of rights.
#[derive(Debug)]
pub(crate) struct Rights {
    pub(crate) commands: Vec<u8>,
    pub(crate) keys: Vec<u8>,
    pub(crate) channels: Vec<u8>,
    pub(crate) databases: String,
}

fn hash_of(password: &[u8]) -> Hash {
    Sha256::digest(password).into()
}

/// 64 digits in lower case.
fn parse_hash(text: &[u8]) -> Result<Hash, RuleError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut hash = [0; HASH_LEN];
    if text.len() != 2 * HASH_LEN {
        return Err(RuleError::NoHash);
    }
    for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or(RuleError::NoHash)?;
        *byte = high << 4 | low;
    }
    Ok(hash)
}

/// Joins the words of selectors, which end with the one that ends with a parenthesis.
///
/// # Errors
/// The word with which a selector begins that does not end.
pub(crate) fn rules_of<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Rule<'a>>, &'a [u8]> {
    let mut rules: Vec<Rule<'a>> = Vec::new();
    let mut open: Option<(&'a [u8], Vec<u8>)> = None;
    for word in words {
        match open.take() {
            None if word.starts_with(b"(") && !word.ends_with(b")") => open = Some((word, word.to_vec())),
            None => rules.push(Cow::Borrowed(word)),
            Some((first, mut joined)) => {
                joined.push(b' ');
                joined.extend_from_slice(word);
                if word.ends_with(b")") {
                    rules.push(Cow::Owned(joined));
                } else {
                    open = Some((first, joined));
                }
            }
        }
    }
    match open {
        Some((first, _)) => Err(first),
        None => Ok(rules),
    }
}
