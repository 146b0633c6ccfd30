//! Which clients CLIENT LIST and CLIENT KILL mean: all given conditions must hold.

use std::time::Duration;

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;
use keyward_proto::time::Monotonic;

use super::listing::flags_of;
use crate::command::{CommandError, Cursor, ascii_eq};
use crate::io::clients::Client;
use crate::server::Server;

/// Whether the client that asks counts, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Me {
    Counts,
    Skipped,
}

/// What is asked of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sense {
    Holds,
    HoldsNot,
}

/// Letters that Valkey knows in the field `flags`.
const KNOWN_FLAGS: &[u8] = b"OSMPxbtRBdcuAUreTIiEN";

/// `TYPE`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientType {
    Normal,
    Replica,
    Pubsub,
    Primary,
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    Ids(Vec<u64>),
    Type(ClientType),
    User(Vec<u8>),
    Address(Vec<u8>),
    LocalAddress(Vec<u8>),
    Ip(Vec<u8>),
    Name(Vec<u8>),
    Flags(Vec<u8>),
    LibName(Vec<u8>),
    LibVersion(Vec<u8>),
    Db(u16),
    Capa(Vec<u8>),
    /// Seconds.
    MaxAge(i64),
    /// Seconds.
    Idle(i64),
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Filter {
    conditions: Vec<(Sense, Condition)>,
    me: Me,
}

impl Filter {
    /// `CLIENT KILL ip:port`, which may be the client itself.
    pub(super) fn by_address(address: &[u8]) -> Self {
        Filter { conditions: vec![(Sense::Holds, Condition::Address(address.to_vec()))], me: Me::Counts }
    }

    /// The arguments behind `CLIENT LIST` or `CLIENT KILL`.
    pub(super) fn parse(server: &Server, args: Args<'_>, me: Me) -> Result<Self, CommandError> {
        let mut filter = Filter { conditions: Vec::new(), me };
        let mut rest = Cursor::new(args, 2);
        while let Some(word) = rest.take() {
            let value = rest.take().ok_or(CommandError::Syntax)?;
            if ascii_eq(word, "SKIPME") {
                filter.me = match value {
                    v if ascii_eq(v, "YES") => Me::Skipped,
                    v if ascii_eq(v, "NO") => Me::Counts,
                    _ => return Err(CommandError::Syntax),
                };
                continue;
            }
            let upper = word.to_ascii_uppercase();
            let (name, sense) = match upper.strip_prefix(b"NOT-") {
                Some(name) => (name, Sense::HoldsNot),
                None => (&upper[..], Sense::Holds),
            };
            let condition = if name == b"ID" {
                let mut ids = vec![parse_id(value)?];
                while let Some(id) = rest.take_if(|word| parse_i64(word).is_some()) {
                    ids.push(parse_id(id)?);
                }
                Condition::Ids(ids)
            } else {
                Condition::parse(server, name, value)?
            };
            if sense == Sense::HoldsNot && matches!(condition, Condition::MaxAge(_) | Condition::Idle(_)) {
                return Err(CommandError::Syntax);
            }
            filter.add(sense, condition);
        }
        Ok(filter)
    }

    /// The last condition of a kind counts; IDs add up.
    fn add(&mut self, sense: Sense, condition: Condition) {
        let kind = std::mem::discriminant(&condition);
        let same = self.conditions.iter_mut().find(|(s, c)| *s == sense && std::mem::discriminant(c) == kind);
        match (same, condition) {
            (Some((_, Condition::Ids(ids))), Condition::Ids(more)) => ids.extend(more),
            (Some((_, existing)), condition) => *existing = condition,
            (None, condition) => self.conditions.push((sense, condition)),
        }
    }

    pub(super) fn selects(&self, client: &Client, me: u64, now: Monotonic) -> bool {
        !(self.me == Me::Skipped && client.id == me)
            && self.conditions.iter().all(|(sense, c)| c.holds(client, now) == (*sense == Sense::Holds))
    }
}

impl Condition {
    fn parse(server: &Server, name: &[u8], value: &[u8]) -> Result<Self, CommandError> {
        let owned = value.to_vec();
        Ok(match name {
            b"TYPE" => {
                let unknown = || CommandError::quoting("Unknown client type '", value, "'");
                Condition::Type(ClientType::parse(value).ok_or_else(unknown)?)
            }
            b"USER" if server.settings().users.get(value).is_some() => Condition::User(owned),
            b"USER" => return Err(CommandError::quoting("No such user '", value, "'")),
            b"ADDR" => Condition::Address(owned),
            b"LADDR" => Condition::LocalAddress(owned),
            b"IP" => Condition::Ip(owned),
            b"NAME" => Condition::Name(owned),
            b"LIB-NAME" => Condition::LibName(owned),
            b"LIB-VER" => Condition::LibVersion(owned),
            b"FLAGS" => Condition::Flags(known_letters(value, KNOWN_FLAGS, "flags")?),
            b"CAPA" => Condition::Capa(known_letters(value, b"r", "capa")?),
            b"DB" => {
                let databases = server.settings().databases();
                let db = integer(value, "DB")?;
                let range =
                    || CommandError::err(format!("DB number should be between 0 and {}", databases - 1));
                Condition::Db(u16::try_from(db).ok().filter(|db| *db < databases).ok_or_else(range)?)
            }
            b"MAXAGE" => Condition::MaxAge(positive(value, "maxage")?),
            b"IDLE" => Condition::Idle(positive(value, "idle")?),
            _ => return Err(CommandError::Syntax),
        })
    }

    fn holds(&self, client: &Client, now: Monotonic) -> bool {
        let d = client.description.lock();
        let seconds = |age: Duration| i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        match self {
            Condition::Ids(ids) => ids.contains(&client.id),
            Condition::Type(kind) => {
                let pubsub = d.channels + d.patterns + d.sharded > 0;
                *kind == if pubsub { ClientType::Pubsub } else { ClientType::Normal }
            }
            Condition::User(user) => *d.user == **user,
            Condition::Address(address) => client.address.as_bytes() == address,
            Condition::LocalAddress(address) => client.local_address.as_bytes() == address,
            Condition::Ip(ip) => {
                let host = client.address.rsplit_once(':').map_or("", |(host, _)| host);
                host.trim_matches(['[', ']']).as_bytes() == ip
            }
            Condition::Name(name) => !name.is_empty() && *d.name == **name,
            Condition::Flags(flags) => {
                let own = flags_of(&d, client);
                flags.iter().all(|f| own.as_bytes().contains(f))
            }
            Condition::LibName(name) => *d.lib_name == **name,
            Condition::LibVersion(version) => *d.lib_version == **version,
            Condition::Db(db) => d.db == *db,
            Condition::Capa(letters) => letters.is_empty() || d.capa_redirect,
            Condition::MaxAge(age) => *age <= seconds(client.age(now)),
            Condition::Idle(idle) => *idle <= seconds(client.idle(now)),
        }
    }
}

impl ClientType {
    fn parse(word: &[u8]) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_slice() {
            b"normal" => ClientType::Normal,
            b"slave" | b"replica" => ClientType::Replica,
            b"pubsub" => ClientType::Pubsub,
            b"master" | b"primary" => ClientType::Primary,
            _ => return None,
        })
    }
}

fn known_letters(value: &[u8], known: &[u8], what: &str) -> Result<Vec<u8>, CommandError> {
    if value.iter().all(|letter| known.contains(letter)) {
        return Ok(value.to_vec());
    }
    Err(CommandError::quoting(format!("Unknown {what} found in the provided filter: "), value, ""))
}

fn parse_id(word: &[u8]) -> Result<u64, CommandError> {
    match parse_i64(word) {
        None => Err(CommandError::Syntax),
        Some(1..) => Ok(parse_i64(word).unwrap_or_default().unsigned_abs()),
        Some(_) => Err(CommandError::err("client-id should be greater than 0")),
    }
}

fn integer(value: &[u8], what: &str) -> Result<i64, CommandError> {
    parse_i64(value).ok_or_else(|| CommandError::err(format!("{what} is not an integer or out of range")))
}

fn positive(value: &[u8], what: &str) -> Result<i64, CommandError> {
    match integer(value, what)? {
        n @ 1.. => Ok(n),
        _ => Err(CommandError::err(format!("{what} should be greater than 0"))),
    }
}
