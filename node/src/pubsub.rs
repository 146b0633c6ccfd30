//! Channels, patterns and shard channels with their subscribers.
//!
//! A message is encoded once per protocol version and queued for each subscriber; the subscriber's own thread sends
//! it. The registry is sharded by channel so that publishers on different channels do not meet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use keyward_proto::resp::{ReplyWriter, Version};
use keyward_replication::reply::ReplyCondition;
use keyward_store::table::hash_of;
use parking_lot::{Mutex, RwLock};

use crate::io::clients::{Client, Push};
use crate::io::session::Session;
use crate::message::ChannelKind;

const PARTS: usize = 64;

/// A subscriber: where its messages go, and in which protocol.
#[derive(Debug, Clone)]
struct Subscriber {
    client: Arc<Client>,
    version: Version,
}

/// By the IDs of their clients.
type Subscribers = BTreeMap<u64, Subscriber>;
type Channels = BTreeMap<Box<[u8]>, Subscribers>;

/// The subscribers that have not been killed: their own threads remove them later.
fn live(subscribers: &Subscribers) -> impl Iterator<Item = &Subscriber> {
    subscribers.values().filter(|s| !s.client.is_killed())
}

fn is_live(subscribers: &Subscribers) -> bool {
    live(subscribers).next().is_some()
}

/// What a subscription is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Pattern,
    Sharded,
}

/// Which of a channel's subscribers get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    All,
    /// The client of this number.
    Only(u64),
    AllBut(u64),
}

impl To {
    fn includes(self, client: u64) -> bool {
        match self {
            To::All => true,
            To::Only(id) => client == id,
            To::AllBut(id) => client != id,
        }
    }
}

/// All subscriptions of this node.
#[derive(Debug)]
pub struct PubSub {
    channels: [Mutex<Channels>; PARTS],
    sharded: [Mutex<Channels>; PARTS],
    patterns: RwLock<Channels>,
    /// Subscribers that were closed because they did not read.
    pub disconnections: AtomicU64,
}

impl Default for PubSub {
    fn default() -> Self {
        PubSub {
            channels: std::array::from_fn(|_| Mutex::default()),
            sharded: std::array::from_fn(|_| Mutex::default()),
            patterns: RwLock::default(),
            disconnections: AtomicU64::new(0),
        }
    }
}

/// A message in both protocol versions, encoded when first needed.
#[derive(Debug, Default)]
struct Encoded {
    resp2: Option<Bytes>,
    resp3: Option<Bytes>,
}

impl Encoded {
    fn get(&mut self, version: Version, parts: &[&[u8]]) -> Bytes {
        let cached = match version {
            Version::Resp2 => &mut self.resp2,
            Version::Resp3 => &mut self.resp3,
        };
        cached
            .get_or_insert_with(|| {
                let mut out = BytesMut::new();
                let mut writer = ReplyWriter::new(&mut out, version);
                writer.push(parts.len());
                parts.iter().for_each(|part| writer.bulk(part));
                out.freeze()
            })
            .clone()
    }
}

impl PubSub {
    fn channels_of(&self, kind: ChannelKind) -> &[Mutex<Channels>; PARTS] {
        match kind {
            ChannelKind::Global => &self.channels,
            ChannelKind::Shard => &self.sharded,
        }
    }

    fn part<'a>(&'a self, parts: &'a [Mutex<Channels>; PARTS], channel: &[u8]) -> &'a Mutex<Channels> {
        &parts[hash_of(channel) as usize % PARTS]
    }

    fn with_channels<R>(&self, kind: Kind, channel: &[u8], f: impl FnOnce(&mut Channels) -> R) -> R {
        match kind {
            Kind::Channel => f(&mut self.part(&self.channels, channel).lock()),
            Kind::Sharded => f(&mut self.part(&self.sharded, channel).lock()),
            Kind::Pattern => f(&mut self.patterns.write()),
        }
    }

    pub fn subscribe(&self, kind: Kind, channel: &[u8], client: &Arc<Client>, version: Version) {
        let subscriber = Subscriber { client: Arc::clone(client), version };
        self.with_channels(kind, channel, |channels| {
            channels.entry(channel.into()).or_default().insert(client.id, subscriber);
        });
    }

    pub fn unsubscribe(&self, kind: Kind, channel: &[u8], client_id: u64) {
        self.with_channels(kind, channel, |channels| {
            if let Some(subscribers) = channels.get_mut(channel) {
                subscribers.remove(&client_id);
                if subscribers.is_empty() {
                    channels.remove(channel);
                }
            }
        });
    }

    /// Queues a message for some of the subscribers of a channel and, unless it is a shard channel, of matching
    /// patterns. Returns how many all of them are. It leaves when `condition` is met.
    pub fn publish(
        &self,
        (channel, payload): (&[u8], &[u8]),
        kind: ChannelKind,
        to: To,
        condition: ReplyCondition,
        limit_bytes: usize,
    ) -> usize {
        let mut receivers = 0;
        let word: &[u8] = match kind {
            ChannelKind::Global => b"message",
            ChannelKind::Shard => b"smessage",
        };
        if let Some(subscribers) = self.part(self.channels_of(kind), channel).lock().get(channel) {
            receivers += self.send(subscribers, &[word, channel, payload], to, condition, limit_bytes);
        }
        if kind == ChannelKind::Shard {
            return receivers;
        }
        for (pattern, subscribers) in self.patterns.read().iter() {
            if !keyward_proto::glob::matches(pattern, channel) {
                continue;
            }
            let parts: [&[u8]; 4] = [b"pmessage", pattern, channel, payload];
            receivers += self.send(subscribers, &parts, to, condition, limit_bytes);
        }
        receivers
    }

    /// Queues one message, which they share, for some of these subscribers; returns the number of all.
    fn send(
        &self,
        subscribers: &Subscribers,
        parts: &[&[u8]],
        to: To,
        condition: ReplyCondition,
        limit_bytes: usize,
    ) -> usize {
        let mut encoded = Encoded::default();
        let mut receivers = 0;
        for s in live(subscribers) {
            receivers += 1;
            if !to.includes(s.client.id) {
                continue;
            }
            let message = encoded.get(s.version, parts);
            if !s.client.push(Push { message, condition }, limit_bytes) {
                self.disconnections.fetch_add(1, Ordering::Relaxed);
            }
        }
        receivers
    }

    /// HELLO changed the protocol of a session that has subscriptions.
    pub fn set_version(&self, session: &Session) {
        let subscriptions = &session.subscriptions;
        let all = [
            (Kind::Channel, &subscriptions.channels),
            (Kind::Pattern, &subscriptions.patterns),
            (Kind::Sharded, &subscriptions.sharded),
        ];
        for (kind, names) in all {
            for name in names {
                self.subscribe(kind, name, &session.client, session.version);
            }
        }
    }

    /// Removes all subscriptions of a session that ends.
    pub fn end(&self, session: &mut Session) {
        let subscriptions = std::mem::take(&mut session.subscriptions);
        let all = [
            (Kind::Channel, subscriptions.channels),
            (Kind::Pattern, subscriptions.patterns),
            (Kind::Sharded, subscriptions.sharded),
        ];
        for (kind, names) in all {
            for name in names {
                self.unsubscribe(kind, &name, session.client.id);
            }
        }
    }

    /// Visits each subscription with its client.
    pub fn visit(&self, mut visit: impl FnMut(&Client, Kind, &[u8])) {
        let mut all = |kind: Kind, channels: &Channels| {
            for (name, subscribers) in channels {
                live(subscribers).for_each(|subscriber| visit(&subscriber.client, kind, name));
            }
        };
        self.channels.iter().for_each(|part| all(Kind::Channel, &part.lock()));
        self.sharded.iter().for_each(|part| all(Kind::Sharded, &part.lock()));
        all(Kind::Pattern, &self.patterns.read());
    }

    /// Wakes all subscribers of shard channels: slots have moved.
    pub fn wake_sharded(&self) {
        for part in &self.sharded {
            for subscriber in part.lock().values().flat_map(BTreeMap::values) {
                subscriber.client.wake.notify_one();
            }
        }
    }

    /// Channels that have subscribers and match.
    pub fn active(&self, kind: ChannelKind, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let matches = |c: &[u8]| pattern.is_none_or(|p| keyward_proto::glob::matches(p, c));
        self.channels_of(kind)
            .iter()
            .flat_map(|p| {
                let channels = p.lock();
                let wanted = channels.iter().filter(|(name, s)| matches(name) && is_live(s));
                wanted.map(|(name, _)| name.clone()).collect::<Vec<_>>()
            })
            .collect()
    }

    pub fn subscriber_count(&self, kind: ChannelKind, channel: &[u8]) -> usize {
        self.part(self.channels_of(kind), channel).lock().get(channel).map_or(0, |s| live(s).count())
    }

    pub fn pattern_count(&self) -> usize {
        self.patterns.read().values().filter(|s| is_live(s)).count()
    }

    /// Channels with at least one subscriber.
    pub fn channel_count(&self, kind: ChannelKind) -> usize {
        self.channels_of(kind).iter().map(|p| p.lock().values().filter(|s| is_live(s)).count()).sum()
    }
}
