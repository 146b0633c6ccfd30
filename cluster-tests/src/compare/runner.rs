//! Runs one sequence on both servers in lockstep and says where they first differ. Who chooses how: [`super::pair`].
//!
//! Each action goes to both before either reply is read, so that the servers work at the same time and under
//! nearly the same clock. After the last action the whole keyspaces are compared: a wrong write that no reply
//! shows is found there.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::processes::wait_until;
use crate::resp_client::{Connection, Frame, NoReply, REPLY_DEADLINE, Reply};

use super::equality::{Equality, normal_pushes};
use super::generator::{Action, Client, Step, name};
use super::words::Args;

/// How long the second server may take for what the first one has done already.
const LAG_DEADLINE: Duration = Duration::from_secs(1);

const SCAN_CALLS_MAX: usize = 10_000;

/// The databases that the words of a sequence can reach.
const DATABASES: [&str; 4] = ["0", "1", "2", "15"];

/// The first point where the servers differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The step's place in the sequence; its length when the keyspaces differ afterwards.
    pub step: usize,
    /// The command's name, to tell differences apart.
    pub command: String,
    /// The command or what else was compared.
    pub what: String,
    pub ours: String,
    pub theirs: String,
}

/// One server with the connections of one sequence.
#[derive(Debug)]
pub(super) struct Side {
    control: Connection,
    clients: Vec<Connection>,
    second_id: String,
    /// One per client.
    transactions: Vec<Transaction>,
    /// Whether compact sets may have the order of the hash tables that they were made from.
    derives_sets: bool,
}

impl Side {
    fn open(addr: &str, resp: u8, reset: &[Args]) -> Result<Self, NoReply> {
        let connect = || Connection::connect(addr).map_err(|_| NoReply::Closed);
        let mut control = connect()?;
        for command in reset {
            control.call(command)?;
        }
        let emptied = control.call(&["FLUSHALL"])?;
        if emptied.is_error() {
            return Err(NoReply::Garbage(emptied.to_string()));
        }
        let mut clients = Vec::new();
        for client in Client::ALL {
            let mut connection = connect()?;
            if client == Client::Subscriber {
                connection = connection.as_subscriber();
            }
            if resp == 3 {
                connection.call(&["HELLO", "3"])?;
            }
            clients.push(connection);
        }
        let second_id = clients[Client::Second.index()].call(&["CLIENT", "ID"])?.string();
        Ok(Self {
            control,
            clients,
            second_id,
            transactions: vec![Transaction::default(); Client::ALL.len()],
            derives_sets: true,
        })
    }

    pub(super) fn client(&mut self, client: Client) -> &mut Connection {
        &mut self.clients[client.index()]
    }

    /// Waits until the second client waits for a key or has its reply.
    fn await_blocked(&mut self) {
        wait_until(LAG_DEADLINE, || {
            let listed = self.control.call(&["CLIENT", "LIST", "ID", &self.second_id]);
            let blocked = listed.is_ok_and(|reply| {
                let line = reply.string();
                let flags = line.split(' ').find_map(|field| field.strip_prefix("flags="));
                flags.is_some_and(|flags| flags.contains('b'))
            });
            blocked || self.clients[Client::Second.index()].has_reply(Duration::from_millis(1))
        });
    }

    /// The replies to what a client has sent before the barrier, and all that was pushed until then. At least
    /// `expected_pushes` are waited for: another thread of the server may still be about to write them.
    pub(super) fn until_barrier(
        &mut self,
        client: Client,
        expected_pushes: usize,
    ) -> (Vec<Reply>, Vec<Frame>) {
        let connection = self.client(client);
        let mut replies = Vec::new();
        loop {
            match connection.reply() {
                Ok(frame) if is_barrier(&frame) => break,
                Ok(frame) => replies.push(Ok(frame)),
                Err(error) => {
                    replies.push(Err(error));
                    break;
                }
            }
        }
        if connection.pushes.len() < expected_pushes {
            connection.set_deadline(LAG_DEADLINE).expect("an open socket takes a timeout");
            if let Err(error) = connection.read_pushes(expected_pushes) {
                replies.push(Err(error));
            }
            connection.set_deadline(REPLY_DEADLINE).expect("an open socket takes a timeout");
        }
        (replies, connection.pushes.drain(..).collect())
    }

    /// Follows the cursor: the first reply, and all that came with it and after.
    fn scan(&mut self, args: &Args, first: Reply) -> (Reply, BTreeSet<Vec<Vec<u8>>>) {
        let cursor_at = if name(args) == "SCAN" { 1 } else { 2 };
        let without_values = args.iter().any(|arg| arg == b"NOVALUES" || arg == b"NOSCORES");
        let width = if matches!(name(args).as_str(), "HSCAN" | "ZSCAN") && !without_values { 2 } else { 1 };
        let mut found = BTreeSet::new();
        let mut reply = first.clone();
        let mut args = args.clone();
        for _ in 0..SCAN_CALLS_MAX {
            let Ok(frame) = &reply else { return (reply, found) };
            let [cursor, elements] = frame.items.as_slice() else { return (reply, found) };
            for element in elements.items.chunks(width) {
                found.insert(element.iter().map(|item| item.raw.to_vec()).collect());
            }
            if cursor.text() == b"0" || args.get(cursor_at).is_none() {
                break;
            }
            args[cursor_at] = cursor.text().to_vec();
            reply = self.client(Client::Main).call(&args);
        }
        (first, found)
    }

    /// Every key with its type, encoding, time to live and value, in order.
    fn keyspace(&mut self) -> Result<Vec<Entry>, NoReply> {
        let mut entries = Vec::new();
        for database in DATABASES {
            self.control.send(&["SELECT", database]);
            self.control.send(&["KEYS", "*"]);
        }
        let mut keys = Vec::new();
        for database in DATABASES {
            self.control.reply()?;
            let mut found: Vec<_> =
                self.control.reply()?.items.iter().map(|key| key.text().to_vec()).collect();
            found.sort();
            keys.extend(found.into_iter().map(|key| (database, key)));
        }
        for (database, key) in keys {
            self.control.send(&["SELECT", database]);
            self.control.send(&[b"TYPE".as_slice(), &key]);
            self.control.send(&[b"OBJECT".as_slice(), b"ENCODING", &key]);
            self.control.send(&[b"PTTL".as_slice(), &key]);
            self.control.reply()?;
            let kind = self.control.reply()?.string();
            let encoding = self.control.reply()?.string();
            let ttl = self.control.reply()?.integer().unwrap_or(-2);
            let (value, field_ttls) = self.value(&kind, &encoding, &key)?;
            let kind = format!("{kind} ({encoding})");
            entries.push(Entry { database, key, kind, ttl, value, field_ttls });
        }
        Ok(entries)
    }

    /// Parts in the order of a hash table are sorted; in every other encoding their order is compared too. With the
    /// PTTL of each field of a hash that is one.
    fn value(&mut self, kind: &str, encoding: &str, key: &[u8]) -> Result<(String, Vec<i64>), NoReply> {
        let (command, width): (&[&[u8]], _) = match kind {
            "string" => (&[b"GET", key], 0),
            "list" => (&[b"LRANGE", key, b"0", b"-1"], 0),
            "set" => (&[b"SMEMBERS", key], 1),
            "hash" => (&[b"HGETALL", key], 2),
            "zset" => (&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"], 0),
            "stream" => (&[b"XRANGE", key, b"-", b"+"], 0),
            _ => return Ok((format!("(type {kind})"), Vec::new())),
        };
        let frame = self.control.call(command)?;
        let by_table = encoding == "hashtable" || kind == "set" && self.derives_sets;
        if width == 0 || !by_table {
            return Ok((frame.to_string(), Vec::new()));
        }
        let part = |part: &[Frame]| part.iter().map(|item| item.to_string()).collect::<String>();
        let ttls = if kind == "hash" { self.field_ttls(key, &frame)? } else { vec![-1; frame.items.len()] };
        let mut parts: Vec<(String, i64)> = frame.items.chunks(width).map(part).zip(ttls).collect();
        parts.sort();
        let (parts, ttls): (Vec<String>, Vec<i64>) = parts.into_iter().unzip();
        Ok((parts.concat(), ttls))
    }

    /// Of the fields in a reply to HGETALL.
    fn field_ttls(&mut self, key: &[u8], all: &Frame) -> Result<Vec<i64>, NoReply> {
        let names: Vec<&[u8]> = all.items.iter().step_by(2).map(Frame::text).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let count = names.len().to_string();
        let head: [&[u8]; 4] = [b"HPTTL", key, b"FIELDS", count.as_bytes()];
        let frame = self.control.call(&[&head, &names[..]].concat())?;
        Ok(frame.items.iter().map(|item| item.integer().unwrap_or(-2)).collect())
    }
}

/// One key as the keyspaces are compared.
#[derive(Debug)]
struct Entry {
    database: &'static str,
    key: Vec<u8>,
    /// Type and encoding.
    kind: String,
    ttl: i64,
    value: String,
    field_ttls: Vec<i64>,
}

impl Entry {
    fn equals(&self, other: &Self) -> bool {
        let near = |(a, b): (&i64, &i64)| a == b || 0 < *a && 0 < *b && a.abs_diff(*b) <= 5_000;
        let all_near = self.field_ttls.len() == other.field_ttls.len()
            && self.field_ttls.iter().zip(&other.field_ttls).all(near);
        near((&self.ttl, &other.ttl))
            && all_near
            && (self.database, &self.key, &self.kind, &self.value)
                == (other.database, &other.key, &other.kind, &other.value)
    }

    fn describe(entry: Option<&Self>) -> String {
        let Some(entry) = entry else { return "(no such key)".into() };
        let Self { database, key, kind, ttl, value, field_ttls } = entry;
        let key = key.escape_ascii();
        format!("database {database}, {kind} \"{key}\", PTTL {ttl}: {value}, HPTTL {field_ttls:?}")
    }
}

/// Sent after a client's commands: when it is answered, everything before it has been.
pub(super) const BARRIER: &str = "keyward-comparison-barrier";

fn is_barrier(frame: &Frame) -> bool {
    frame.text() == BARRIER.as_bytes()
        || frame.items.get(1).is_some_and(|item| item.text() == BARRIER.as_bytes())
}

/// Opens both servers for a sequence.
pub(super) fn open(
    (our_addr, their_addr): (&str, &str),
    steps: &[Step],
    resp: u8,
) -> Result<(Side, Side), Box<Difference>> {
    let reset = reset_commands(steps);
    let ours = Side::open(our_addr, resp, &reset);
    let theirs = Side::open(their_addr, resp, &reset);
    let (mut ours, mut theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (ours, theirs) => {
            let state =
                |side: Result<Side, NoReply>| side.map_or_else(|error| error.to_string(), |_| "open".into());
            return Err(Box::new(Difference {
                step: 0,
                command: "connect".into(),
                what: "opening the connections".into(),
                ours: state(ours),
                theirs: state(theirs),
            }));
        }
    };
    let derives_sets = steps.iter().flat_map(|step| &step.actions).any(derives_set);
    (ours.derives_sets, theirs.derives_sets) = (derives_sets, derives_sets);
    Ok((ours, theirs))
}

pub(super) fn one_by_one(ours: &mut Side, theirs: &mut Side, steps: &[Step]) -> Option<Difference> {
    for (index, step) in steps.iter().enumerate() {
        for action in &step.actions {
            if let Some(difference) = act(ours, theirs, action) {
                return Some(Difference { step: index, ..difference });
            }
        }
    }
    let end = subscriber(ours, theirs, &vec![b"PING".to_vec(), b"end".to_vec()])
        .or_else(|| same_invalidations(ours, theirs));
    end.map(|difference| Difference { step: steps.len(), ..difference })
}

/// Directives that a sequence may have changed, with the defaults that both servers share.
const CONFIG_DEFAULTS: &[(&str, &str)] = &[
    ("notify-keyspace-events", ""),
    ("hash-max-listpack-entries", "512"),
    ("hash-max-listpack-value", "64"),
    ("list-max-listpack-size", "-2"),
    ("list-compress-depth", "0"),
    ("set-max-intset-entries", "512"),
    ("set-max-listpack-entries", "128"),
    ("set-max-listpack-value", "64"),
    ("zset-max-listpack-entries", "128"),
    ("zset-max-listpack-value", "64"),
    ("hll-sparse-max-bytes", "3000"),
    ("maxmemory", "0"),
    ("maxmemory-clients", "0"),
    ("maxmemory-eviction-tenacity", "10"),
    ("maxmemory-policy", "noeviction"),
    ("maxmemory-samples", "5"),
    ("appendfsync", "everysec"),
    ("active-expire-effort", "1"),
    ("lazyfree-lazy-eviction", "yes"),
    ("lazyfree-lazy-user-del", "yes"),
    ("lfu-decay-time", "1"),
    ("lfu-log-factor", "10"),
    ("proto-max-bulk-len", "536870912"),
    ("timeout", "0"),
];

/// Whether a command may make a compact set from a hash table.
fn derives_set(action: &Action) -> bool {
    const COMMANDS: &[&str] = &["SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE", "SPOP"];
    matches!(action, Action::Command(_, args) | Action::Send(_, args) if COMMANDS.contains(&&*name(args)))
}

/// What makes a server fit for the next sequence.
fn reset_commands(steps: &[Step]) -> Vec<Args> {
    let args = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Args>();
    let changes = |action: &Action| match action {
        Action::Command(_, args) => name(args) == "CONFIG",
        _ => false,
    };
    let mut commands = Vec::new();
    if steps.iter().any(|step| step.actions.iter().any(changes)) {
        commands.extend(CONFIG_DEFAULTS.iter().map(|(name, value)| args(&["CONFIG", "SET", name, value])));
    } else {
        commands.push(args(&["CONFIG", "SET", "notify-keyspace-events", ""]));
    }
    commands
}

fn act(ours: &mut Side, theirs: &mut Side, action: &Action) -> Option<Difference> {
    match action {
        Action::Command(client, args) => {
            let (our_reply, their_reply) = both(ours, theirs, *client, args);
            let equal = ours.transactions[client.index()].equal(args, &our_reply, &their_reply);
            (!equal).then(|| difference(args, &our_reply, &their_reply))
        }
        Action::Send(client, args) => {
            ours.client(*client).send(args);
            theirs.client(*client).send(args);
            None
        }
        Action::AwaitBlocked(_) => {
            theirs.await_blocked();
            ours.await_blocked();
            None
        }
        Action::Unblock(client) => unblock(ours, theirs, *client),
        Action::Subscriber(args) => subscriber(ours, theirs, args),
        Action::Scan(args) => scan(ours, theirs, args),
    }
}

fn both(ours: &mut Side, theirs: &mut Side, client: Client, args: &Args) -> (Reply, Reply) {
    theirs.client(client).send(args);
    ours.client(client).send(args);
    let their_reply = theirs.client(client).reply();
    (ours.client(client).reply(), their_reply)
}

/// Compares a connection's replies, also those which EXEC returns for the commands queued before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Transaction {
    /// How the replies of the queued commands are to be compared.
    queued: Vec<Equality>,
}

impl Transaction {
    pub(super) fn equal(&mut self, args: &Args, ours: &Reply, theirs: &Reply) -> bool {
        let rules = match name(args).as_str() {
            "MULTI" => return ours == theirs,
            "EXEC" | "DISCARD" | "RESET" => std::mem::take(&mut self.queued),
            _ => Vec::new(),
        };
        let (ours, theirs) = match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            _ => return ours == theirs,
        };
        if theirs.raw.as_ref() == b"+QUEUED\r\n" {
            self.queued.push(Equality::of(args));
            return ours == theirs;
        }
        if name(args) == "EXEC"
            && ours.kind() == b'*'
            && theirs.kind() == b'*'
            && theirs.items.len() == rules.len()
        {
            let mut replies = ours.items.iter().zip(&theirs.items).zip(rules);
            return ours.items.len() == theirs.items.len()
                && replies.all(|((ours, theirs), rule)| rule.holds(ours, theirs));
        }
        Equality::of(args).holds(ours, theirs)
    }
}

/// Whether the blocked client is still waiting is known first from Valkey, which serves it before it answers
/// whoever brought the element.
fn unblock(ours: &mut Side, theirs: &mut Side, client: Client) -> Option<Difference> {
    let command = |id: &str| ["CLIENT".to_owned(), "UNBLOCK".to_owned(), id.to_owned()];
    let was_blocked = theirs.control.call(&command(&theirs.second_id));
    let their_reply = theirs.client(client).reply();
    let what = vec![b"(reply of the blocked client)".to_vec()];
    if was_blocked.as_ref().is_ok_and(|reply| reply.integer() == Some(1)) {
        let our_answer = ours.control.call(&command(&ours.second_id));
        if our_answer != was_blocked {
            let what = vec![b"(CLIENT UNBLOCK of the blocked client)".to_vec()];
            return Some(difference(&what, &our_answer, &was_blocked));
        }
    } else {
        ours.client(client).has_reply(LAG_DEADLINE);
    }
    let our_reply = ours.client(client).reply();
    let equal = ours.transactions[client.index()].equal(&what, &our_reply, &their_reply);
    (!equal).then(|| difference(&what, &our_reply, &their_reply))
}

fn subscriber(ours: &mut Side, theirs: &mut Side, args: &Args) -> Option<Difference> {
    for side in [&mut *theirs, &mut *ours] {
        let connection = side.client(Client::Subscriber);
        connection.send(args);
        connection.send(&["PING", BARRIER]);
    }
    let (their_replies, their_pushes) = theirs.until_barrier(Client::Subscriber, 0);
    let (our_replies, our_pushes) = ours.until_barrier(Client::Subscriber, their_pushes.len());
    let show = |replies: &[Reply]| {
        let show = |reply: &Reply| reply.as_ref().map_or_else(|error| error.to_string(), Frame::to_string);
        replies.iter().map(show).collect::<Vec<_>>().join(" ")
    };
    let difference = |what: &str, ours: String, theirs: String| {
        let what = format!("{what} the subscriber's {}", command_line(args));
        Some(Difference { step: 0, command: name(args), what, ours, theirs })
    };
    if our_replies != their_replies {
        return difference("replies to", show(&our_replies), show(&their_replies));
    }
    if normal_pushes(our_pushes.iter()) != normal_pushes(their_pushes.iter()) {
        let show = |pushes: Vec<Frame>| show(&pushes.into_iter().map(Ok).collect::<Vec<_>>());
        return difference("pushes up to", show(our_pushes), show(their_pushes));
    }
    None
}

/// What tracking pushed to the clients that do not subscribe. A transaction is left first: it would queue the
/// barrier.
fn same_invalidations(ours: &mut Side, theirs: &mut Side) -> Option<Difference> {
    [Client::Main, Client::Second].into_iter().find_map(|client| {
        for side in [&mut *theirs, &mut *ours] {
            side.client(client).send(&["DISCARD"]);
            side.client(client).send(&["PING", BARRIER]);
        }
        let (_, their_pushes) = theirs.until_barrier(client, 0);
        let (_, our_pushes) = ours.until_barrier(client, their_pushes.len());
        let show = |pushes: &[Frame]| pushes.iter().map(Frame::to_string).collect::<Vec<_>>().join(" ");
        (our_pushes != their_pushes).then(|| Difference {
            step: 0,
            command: "pushes".into(),
            what: format!("all that was pushed to {client:?}"),
            ours: show(&our_pushes),
            theirs: show(&their_pushes),
        })
    })
}

fn scan(ours: &mut Side, theirs: &mut Side, args: &Args) -> Option<Difference> {
    let (our_first, their_first) = both(ours, theirs, Client::Main, args);
    if !ours.transactions[Client::Main.index()].equal(args, &our_first, &their_first) {
        return Some(difference(args, &our_first, &their_first));
    }
    let (our_reply, our_elements) = ours.scan(args, our_first);
    let (their_reply, their_elements) = theirs.scan(args, their_first);
    if our_elements == their_elements {
        return None;
    }
    let show = |elements: &BTreeSet<Vec<Vec<u8>>>, reply: &Reply| {
        let element = |parts: &Vec<Vec<u8>>| parts.concat().escape_ascii().to_string();
        let elements: Vec<String> = elements.iter().map(element).collect();
        format!("{} in all; first reply {}", elements.join(" "), show(reply))
    };
    Some(Difference {
        step: 0,
        command: name(args),
        what: format!("full iteration of {}", command_line(args)),
        ours: show(&our_elements, &our_reply),
        theirs: show(&their_elements, &their_reply),
    })
}

pub(super) fn same_keyspace(ours: &mut Side, theirs: &mut Side) -> Option<Difference> {
    let difference = |ours, theirs| {
        let what = "the keyspace after the last command".to_owned();
        Some(Difference { step: 0, command: "keyspace".into(), what, ours, theirs })
    };
    let (ours, theirs) = match (ours.keyspace(), theirs.keyspace()) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (ours, theirs) => {
            let state = |side: Result<Vec<_>, NoReply>| {
                side.map_or_else(|error| error.to_string(), |_| "readable".into())
            };
            return difference(state(ours), state(theirs));
        }
    };
    (0..ours.len().max(theirs.len())).find_map(|index| match (ours.get(index), theirs.get(index)) {
        (Some(ours), Some(theirs)) if ours.equals(theirs) => None,
        (ours, theirs) => difference(Entry::describe(ours), Entry::describe(theirs)),
    })
}

fn show(reply: &Reply) -> String {
    reply.as_ref().map_or_else(|error| error.to_string(), Frame::to_string)
}

pub(super) fn difference(args: &Args, ours: &Reply, theirs: &Reply) -> Difference {
    Difference {
        step: 0,
        command: name(args),
        what: command_line(args),
        ours: show(ours),
        theirs: show(theirs),
    }
}

/// A command as one would type it into the command line client.
pub fn command_line(args: &Args) -> String {
    let word = |arg: &Vec<u8>| {
        let plain =
            !arg.is_empty() && arg.iter().all(|byte| byte.is_ascii_graphic() && !b"\"'\\".contains(byte));
        let text = arg.escape_ascii().to_string();
        if plain { text } else { format!("\"{}\"", text.replace("\\'", "'")) }
    };
    args.iter().map(word).collect::<Vec<_>>().join(" ")
}
