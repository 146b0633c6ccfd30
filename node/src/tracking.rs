//! Clients that keep values themselves and are told when these change: CLIENT TRACKING
//! (<https://valkey.io/topics/client-side-caching/>).
//!
//! Who has read what is remembered by slots (`keyward_store::tracking`); here are the clients, and the prefixes of those
//! that want to hear of all keys with them. What tells of a write leaves when that is committed.
//!
//! Differs from Valkey: who broadcasts sends what one command or transaction has changed in one message for each prefix,
//! where Valkey collects what came within one turn of its loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use keyward_proto::resp::{ReplyWriter, Version};
use keyward_replication::reply::ReplyCondition;
use keyward_store::tracking::{Broadcasts, Changes, TrackingCounts};
use parking_lot::RwLock;

use crate::io::clients::{Client, Clients, Push};

/// The channel on which clients of RESP2 hear of changes.
const CHANNEL: &str = "__redis__:invalidate";

/// Which keys a client hears of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Those that it has read.
    #[default]
    Read,
    /// Those that it has read right after CLIENT CACHING YES.
    OptIn,
    /// Those that it has read, but not right after CLIENT CACHING NO.
    OptOut,
    /// All with its prefixes.
    Broadcast,
}

/// What a client has asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracking {
    pub mode: Mode,
    /// It does not hear of what it changes itself.
    pub no_loop: bool,
    /// Another client that is told instead.
    pub redirect: Option<u64>,
    /// Empty unless it broadcasts.
    pub prefixes: BTreeSet<Box<[u8]>>,
    /// CLIENT CACHING concerns the next command.
    pub caching: bool,
}

impl Tracking {
    /// Whether what is read now is remembered.
    pub(crate) fn remembers(&self) -> bool {
        match self.mode {
            Mode::Read => true,
            Mode::OptIn => self.caching,
            Mode::OptOut => !self.caching,
            Mode::Broadcast => false,
        }
    }
}

/// A client as others need to know it.
#[derive(Debug, Clone)]
struct Tracker {
    client: Arc<Client>,
    broadcasts: bool,
    no_loop: bool,
    redirect: Option<u64>,
}

#[derive(Debug, Default)]
struct Trackers {
    clients: BTreeMap<u64, Tracker>,
    /// With those that hear of all keys that begin so.
    prefixes: BTreeMap<Box<[u8]>, BTreeSet<u64>>,
}

impl Trackers {
    fn remove(&mut self, id: u64) {
        if self.clients.remove(&id).is_some_and(|tracker| tracker.broadcasts) {
            self.prefixes.retain(|_, ids| {
                ids.remove(&id);
                !ids.is_empty()
            });
        }
    }
}

/// What a client is told.
#[derive(Debug, Clone, Copy)]
enum What<'a> {
    Keys(&'a [&'a [u8]]),
    Everything,
}

/// Why something changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause {
    /// The client that changes it, if one does.
    pub(crate) client: Option<u64>,
    /// When it may be told.
    pub(crate) condition: ReplyCondition,
}

/// All clients that are told of changes.
#[derive(Debug, Default)]
pub(crate) struct TrackingClients {
    trackers: RwLock<Trackers>,
}

impl TrackingClients {
    pub(crate) fn set(&self, client: &Arc<Client>, tracking: &Tracking, counts: &TrackingCounts) {
        let mut trackers = self.trackers.write();
        trackers.remove(client.id);
        let broadcasts = tracking.mode == Mode::Broadcast;
        let tracker = Tracker {
            client: Arc::clone(client),
            broadcasts,
            no_loop: tracking.no_loop,
            redirect: tracking.redirect,
        };
        trackers.clients.insert(client.id, tracker);
        for prefix in &tracking.prefixes {
            trackers.prefixes.entry(prefix.clone()).or_default().insert(client.id);
        }
        counts.set_broadcasts(broadcasts_of(&trackers));
    }

    pub(crate) fn remove(&self, id: u64, counts: &TrackingCounts) {
        let mut trackers = self.trackers.write();
        trackers.remove(id);
        counts.set_broadcasts(broadcasts_of(&trackers));
    }

    pub(crate) fn len(&self) -> usize {
        self.trackers.read().clients.len()
    }

    pub(crate) fn prefix_count(&self) -> usize {
        self.trackers.read().prefixes.len()
    }

    /// Tells whoever has to know. `limit_bytes`: see [`Client::push`].
    #[cold]
    pub(crate) fn tell(&self, clients: &Clients, changes: &Changes, cause: Cause, limit_bytes: usize) {
        let trackers = self.trackers.read();
        let send = |tracker: &Tracker, what: What<'_>| send(clients, tracker, what, cause, limit_bytes);
        if changes.flushed {
            trackers.clients.values().for_each(|tracker| send(tracker, What::Everything));
        }
        for changed in &changes.keys {
            let readers = changed.readers.iter().filter_map(|id| trackers.clients.get(id));
            for tracker in readers.filter(|tracker| !tracker.broadcasts && !is_loop(tracker, cause)) {
                send(tracker, What::Keys(&[&changed.key]));
            }
        }
        if trackers.prefixes.is_empty() {
            return;
        }
        let keys: BTreeSet<&[u8]> = changes.keys.iter().map(|changed| &*changed.key).collect();
        for (prefix, ids) in &trackers.prefixes {
            let concerned: Vec<&[u8]> = keys.iter().filter(|key| key.starts_with(prefix)).copied().collect();
            if concerned.is_empty() {
                continue;
            }
            let listeners = ids.iter().filter_map(|id| trackers.clients.get(id));
            for tracker in listeners.filter(|tracker| !is_loop(tracker, cause)) {
                send(tracker, What::Keys(&concerned));
            }
        }
    }
}

fn broadcasts_of(trackers: &Trackers) -> Broadcasts {
    if trackers.prefixes.is_empty() { Broadcasts::Off } else { Broadcasts::On }
}

fn is_loop(tracker: &Tracker, cause: Cause) -> bool {
    tracker.no_loop && cause.client == Some(tracker.client.id)
}

fn send(clients: &Clients, tracker: &Tracker, what: What<'_>, cause: Cause, limit_bytes: usize) {
    let push = |client: &Client, message: Bytes| {
        let push = Push { message, condition: cause.condition };
        if !client.push(push, limit_bytes) {
            tracing::debug!(client = client.id, "it does not read what changes");
        }
    };
    let target = match tracker.redirect {
        None => Arc::clone(&tracker.client),
        Some(id) => match clients.get(id) {
            Some(target) => target,
            None => {
                let version = {
                    let mut description = tracker.client.description.lock();
                    description.tracking_broken = true;
                    description.version
                };
                if version == Version::Resp3 {
                    push(&tracker.client, broken_redirect(id));
                }
                return;
            }
        },
    };
    let (version, subscribes) = {
        let d = target.description.lock();
        (d.version, d.channels + d.patterns + d.sharded > 0)
    };
    match version {
        Version::Resp3 => push(&target, message(version, what)),
        Version::Resp2 if tracker.redirect.is_some() && subscribes => push(&target, message(version, what)),
        Version::Resp2 => {}
    }
}

fn message(version: Version, what: What<'_>) -> Bytes {
    let mut out = BytesMut::new();
    let mut writer = ReplyWriter::new(&mut out, version);
    match version {
        Version::Resp3 => {
            writer.push(2);
            writer.bulk_str("invalidate");
        }
        Version::Resp2 => {
            writer.array(3);
            writer.bulk_str("message");
            writer.bulk_str(CHANNEL);
        }
    }
    match what {
        What::Everything => writer.null(),
        What::Keys(keys) => {
            writer.array(keys.len());
            keys.iter().for_each(|key| writer.bulk(key));
        }
    }
    out.freeze()
}

fn broken_redirect(id: u64) -> Bytes {
    let mut out = BytesMut::new();
    let mut writer = ReplyWriter::new(&mut out, Version::Resp3);
    writer.push(2);
    writer.bulk_str("tracking-redir-broken");
    writer.integer(i64::try_from(id).unwrap_or(i64::MAX));
    out.freeze()
}

#[cfg(test)]
mod tests {
    use crate::testing::TestNode;

    fn tracked(node: &TestNode) -> TestNode {
        node.another_client().resp3()
    }

    /// The messages that wait for a client.
    fn told(node: &TestNode) -> String {
        let pushes = node.session.client.take_pushes();
        pushes.iter().map(|push| String::from_utf8(push.message.to_vec()).unwrap()).collect()
    }

    const K: &str = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
    const ALL: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

    fn hello(node: &mut TestNode, options: &str) {
        node.run("HELLO 3");
        assert_eq!(node.run(&format!("CLIENT TRACKING ON {options}")), "+OK\r\n");
    }

    #[test]
    fn who_has_read_a_key_hears_of_its_next_change() {
        let mut node = TestNode::new();
        let mut reader = tracked(&node);
        hello(&mut reader, "");
        reader.run("GET k");
        for (request, expect) in [("SET k 1", K), ("SET k 2", ""), ("FLUSHDB", ALL)] {
            node.run(request);
            assert_eq!(told(&reader), expect, "{request}");
        }
        assert_eq!(reader.run("SET k 1"), "+OK\r\n");
        reader.run("GET k");
        assert_eq!(reader.run("SET k 2"), format!("+OK\r\n{K}"));
        reader.run("EXISTS k");
        node.run("EVAL \"redis.call('SET', 'k', 1) redis.call('DEL', 'k')\" 1 k");
        assert_eq!(told(&reader), K);
        assert!(node.run("INFO stats").contains("tracking_total_keys:0"));
        reader.run("GET k");
        assert!(node.run("INFO clients").contains("tracking_clients:1"));
        assert!(node.run("INFO stats").contains("tracking_total_keys:1\r\ntracking_total_items:1"));
        reader.run("RESET");
        node.run("SET k 2");
        assert_eq!(told(&reader), "");
    }

    #[test]
    fn it_is_told_under_the_condition_of_the_write() {
        let mut node = TestNode::replicated();
        let mut reader = tracked(&node);
        hello(&mut reader, "");
        reader.run("GET k");
        node.run("SET a 1");
        node.run("SET k 1");
        let pushes = reader.session.client.take_pushes();
        assert_eq!(pushes.iter().map(|p| p.condition.depends_on().get()).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn clients_of_a_replica_are_told_when_it_applies() {
        let mut node = TestNode::replicated();
        let mut replica = node.replica();
        let mut reader = tracked(&replica);
        hello(&mut reader, "");
        reader.run("GET k");
        node.run("SET k 1");
        node.apply_effects_to(&mut replica);
        assert_eq!(told(&reader), K);
        node.run("FLUSHALL");
        node.apply_effects_to(&mut replica);
        assert_eq!(told(&reader), ALL);
    }

    #[test]
    fn caching_concerns_the_next_command() {
        let mut node = TestNode::new();
        let (mut in_, mut out) = (tracked(&node), tracked(&node));
        hello(&mut in_, "OPTIN");
        hello(&mut out, "OPTOUT");
        in_.run("CLIENT CACHING YES");
        out.run("CLIENT CACHING NO");
        for reader in [&mut in_, &mut out] {
            reader.run("GET k");
            reader.run("GET x");
        }
        node.run("MSET k 1 x 1");
        assert_eq!((told(&in_), told(&out)), (K.to_owned(), K.replace("k\r", "x\r")));
        in_.run("CLIENT CACHING YES");
        in_.run("MULTI");
        in_.run("GET k");
        in_.run("GET x");
        in_.run("EXEC");
        node.run("MSET k 1 x 1");
        assert_eq!(told(&in_), format!("{K}{}", K.replace("k\r", "x\r")));
    }

    #[test]
    fn prefixes_are_told_of_all_their_keys() {
        let mut node = TestNode::new();
        let (mut listener, mut quiet) = (tracked(&node), tracked(&node));
        hello(&mut listener, "BCAST PREFIX k PREFIX z");
        hello(&mut quiet, "BCAST NOLOOP");
        node.run("MSET k2 1 x 1 k1 1");
        let two = ">2\r\n$10\r\ninvalidate\r\n*2\r\n$2\r\nk1\r\n$2\r\nk2\r\n";
        assert_eq!(told(&listener), two);
        assert_eq!(told(&quiet).matches('$').count(), 4);
        assert_eq!(quiet.run("SET k 1"), "+OK\r\n");
        assert_eq!(told(&listener), K);
        assert!(node.run("CLIENT LIST").contains(" flags=tB "));
        assert!(node.run("INFO stats").contains("tracking_total_prefixes:3"));
        quiet.run("CLIENT TRACKING OFF");
        listener.run("CLIENT TRACKING OFF");
        node.run("SET k 1");
        assert_eq!(told(&listener) + &told(&quiet), "");
    }

    #[test]
    fn another_client_may_be_told() {
        let mut node = TestNode::new();
        let (mut reader, mut told_one) = (node.another_client(), node.another_client());
        told_one.run("SUBSCRIBE __redis__:invalidate");
        let id = told_one.session.client.id;
        assert_eq!(reader.run(&format!("CLIENT TRACKING ON REDIRECT {id}")), "+OK\r\n");
        assert_eq!(reader.run("CLIENT GETREDIR"), format!(":{id}\r\n"));
        reader.run("GET k");
        node.run("SET k 1");
        let head = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";
        assert_eq!(told(&told_one), format!("{head}*1\r\n$1\r\nk\r\n"));
        node.run("FLUSHALL");
        assert_eq!(told(&told_one), format!("{head}$-1\r\n"));
        reader.run("GET k");
        node.run(&format!("CLIENT KILL ID {id}"));
        node.run("SET k 1");
        assert!(node.run("CLIENT LIST").contains(" flags=tR "));
        reader.run("HELLO 3");
        reader.run("GET k");
        node.run("SET k 1");
        assert_eq!(told(&reader), format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{id}\r\n"));
    }

    #[test]
    fn mistakes_are_answered_as_by_valkey() {
        crate::testing::check(&[
            ("CLIENT TRACKING foo", "-ERR syntax error\r\n"),
            (
                "CLIENT CACHING foo",
                "-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
                 mode enabled\r\n",
            ),
            ("CLIENT TRACKING on bcast optin", "-ERR OPTIN and OPTOUT are not compatible with BCAST\r\n"),
            ("CLIENT TRACKING on optin optout", "-ERR You can't specify both OPTIN mode and OPTOUT mode\r\n"),
            ("CLIENT TRACKING on prefix a", "-ERR PREFIX option requires BCAST mode to be enabled\r\n"),
            (
                "CLIENT TRACKING on redirect 99999",
                "-ERR The client ID you want redirect to does not exist\r\n",
            ),
            (
                "CLIENT TRACKING on bcast prefix a prefix ab",
                "-ERR Prefix 'a' overlaps with another provided prefix 'ab'. Prefixes for a single client must not \
                 overlap.\r\n",
            ),
            ("CLIENT TRACKING on bcast prefix b", "+OK\r\n"),
            (
                "CLIENT TRACKING on bcast prefix bc",
                "-ERR Prefix 'bc' overlaps with an existing prefix 'b'. Prefixes for a single client must not \
                 overlap.\r\n",
            ),
            (
                "CLIENT TRACKING on",
                "-ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
                 re-enabling it with a different mode.\r\n",
            ),
            (
                "CLIENT CACHING yes",
                "-ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.\r\n",
            ),
        ]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut node = TestNode::new();
        let mut reader = tracked(&node);
        hello(&mut reader, "");
        reader.run("MGET a b c d");
        node.run("CONFIG SET tracking-table-max-keys 1");
        node.executor.limit_tracked_keys();
        assert_eq!(told(&reader).matches("invalidate").count(), 3);
        assert!(node.run("INFO stats").contains("tracking_total_keys:1\r\n"));
    }
}
