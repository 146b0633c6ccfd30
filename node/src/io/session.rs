//! The state of a client's session: what HELLO, SELECT, MULTI, SUBSCRIBE and CLIENT change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyward_proto::ids::Position;
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::resp::Version;
use keyward_proto::resp::request::OwnedArgs;
use keyward_proto::slot::Slot;
use keyward_replication::reply::ReplyCondition;
use keyward_store::keys::Keys;
use keyward_store::{DbIndex, DbKey};

use crate::acl::{self, Place, User};
use crate::command::table::Row;
use crate::config::Settings;
use crate::io::clients::Client;
use crate::message::Message;
use crate::tracking::{Mode, Tracking};

/// Commands queued between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Transaction {
    pub commands: Vec<(&'static Row, OwnedArgs)>,
    /// A command could not be queued: EXEC will fail.
    pub aborted: bool,
    /// Bytes of all arguments.
    pub len_bytes: usize,
    /// What a queued SELECT will select: rights to what is queued behind it are those to this database.
    pub db: Option<DbIndex>,
}

/// CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    #[default]
    On,
    Off,
    /// The last request was CLIENT REPLY SKIP.
    SkipNext,
    /// The running command's reply is left out.
    Skip,
}

/// What the client has said of itself by REPLCONF.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncOptions {
    /// It wants the file, and does not want to follow what happens afterwards.
    pub rdb_only: bool,
    /// It understands a file that ends with a mark.
    pub eof: bool,
    /// Only the functions, no keys.
    pub functions_only: bool,
    /// It has said something of itself that is not just about the file: it means to follow.
    pub follows: bool,
}

impl SyncOptions {
    /// Whether it can have the file and nothing else. One that has said nothing is a tool: replicas say who they are.
    pub fn is_file(self) -> bool {
        self.rdb_only || !self.follows
    }

    /// One that may expect more after the file is to see that nothing comes.
    pub fn ends_connection(self) -> bool {
        !self.rdb_only
    }
}

#[derive(Debug, Default)]
pub struct Subscriptions {
    pub channels: BTreeSet<Box<[u8]>>,
    pub patterns: BTreeSet<Box<[u8]>>,
    pub sharded: BTreeSet<Box<[u8]>>,
}

impl Subscriptions {
    pub fn len(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.sharded.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether keyspace events, which only a primary publishes, may be among the messages.
    fn may_have_events(&self, settings: &Settings) -> bool {
        const PREFIXES: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];
        let is_event = |channel: &[u8]| PREFIXES.iter().any(|prefix| channel.starts_with(prefix));
        // A pattern that begins with a character of its own cannot match them.
        let may_match = |pattern: &[u8]| pattern.first().is_some_and(|first| b"*?[\\_".contains(first));
        let published = settings.keys.events.keyspace() || settings.keys.events.keyevent();
        published
            && (self.channels.iter().any(|channel| is_event(channel))
                || self.patterns.iter().any(|pattern| may_match(pattern)))
    }
}

/// See the module documentation. Owned by the connection's thread.
#[derive(Debug)]
pub struct Session {
    pub client: Arc<Client>,
    pub db: DbIndex,
    pub version: Version,
    /// By AUTH or HELLO, or because no password was set when it connected or by RESET. Who has not may still be served
    /// while there is no password, see [`Session::must_authenticate`].
    pub authenticated: bool,
    /// Who it is, by the number of the user.
    pub user: u64,
    /// What the user may do, if that is not everything. As of the version of the settings that the session has followed.
    pub(crate) rights: Option<Arc<User>>,
    pub followed: u64,
    pub transaction: Option<Transaction>,
    /// Keys that WATCH observes, and whether they existed and had not expired: then expiring counts as a change.
    pub watched: BTreeMap<DbKey, bool>,
    /// The gate's generation in which the first of them was watched: what is read in another may be of another history,
    /// and nobody marks what a full sync changes.
    pub watched_in: u64,
    /// Keys that it does not watch any more, although their slots do not know that yet.
    pub unwatched: Vec<DbKey>,
    /// A script has them for too long: what is to be done there is put off.
    pub locks_no_slots: bool,
    /// Set by whoever modifies a watched key.
    pub watch_flag: Arc<AtomicBool>,
    pub subscriptions: Subscriptions,
    pub reply_mode: ReplyMode,
    /// The reply that a stall ends with is left out.
    pub stall_is_muted: bool,
    /// READONLY: reads may be served by a replica.
    pub readonly: bool,
    pub asking: bool,
    /// By REPLCONF: what SYNC shall send.
    pub download: SyncOptions,
    pub no_touch: bool,
    /// MONITOR.
    pub is_monitor: bool,
    /// CLIENT TRACKING.
    pub tracking: Option<Box<Tracking>>,
    /// Of the messages among the replies of the running command.
    pub pushed: ReplyCondition,
    /// Inside EXEC a command never blocks.
    pub in_exec: bool,
    /// By the transaction that runs, each behind so many of its keyspace events; for all but its own client.
    pub published: Vec<(usize, Message)>,
    /// The client's last write: what WAIT waits for.
    pub last_write: Position,
    /// The gate's, as of the running batch.
    pub generation: u64,
    /// How many of this node's terms as a primary were over when the client connected.
    pub ended_terms: u64,
}

impl Session {
    /// Forgets all watched keys. Locks that are held are used, others taken.
    pub fn unwatch(&mut self, keys: &mut Keys<'_>) {
        if self.locks_no_slots {
            return self.unwatch_later();
        }
        for key in self.take_watched() {
            keys.with_slot(Slot::of(&key.1), |state| state.unwatch(&key, self.client.id));
        }
        self.watch_flag.store(false, Ordering::Release);
    }

    /// Forgets all watched keys; their slots hear of it with the next [`Session::unwatch`].
    pub fn unwatch_later(&mut self) {
        self.unwatched = self.take_watched();
        self.watch_flag = Arc::default();
    }

    /// All keys whose slots know this client.
    pub fn take_watched(&mut self) -> Vec<DbKey> {
        let mut keys = std::mem::take(&mut self.unwatched);
        keys.extend(std::mem::take(&mut self.watched).into_keys());
        keys
    }

    /// Of a client that need not authenticate.
    pub fn new(client: Arc<Client>) -> Self {
        Session {
            client,
            db: 0,
            version: Version::Resp2,
            authenticated: true,
            user: 0,
            rights: None,
            followed: 0,
            transaction: None,
            watched: BTreeMap::new(),
            watched_in: 0,
            unwatched: Vec::new(),
            locks_no_slots: false,
            watch_flag: Arc::default(),
            subscriptions: Subscriptions::default(),
            reply_mode: ReplyMode::On,
            stall_is_muted: false,
            readonly: false,
            asking: false,
            download: SyncOptions::default(),
            no_touch: false,
            is_monitor: false,
            tracking: None,
            pushed: ReplyCondition::default(),
            in_exec: false,
            published: Vec::new(),
            last_write: Position::ZERO,
            generation: 0,
            ended_terms: 0,
        }
    }

    /// Whether it has to authenticate first, under these settings: a password may be set and removed at any time.
    #[inline]
    pub fn must_authenticate(&self, settings: &Settings) -> bool {
        !self.authenticated && settings.users.ask_strangers()
    }

    /// It has shown that it is this user.
    pub(crate) fn authenticate(&mut self, user: &Arc<User>) {
        self.authenticated = true;
        self.user = user.number();
        self.client.description.lock().user = Arc::clone(user.name());
        self.rights = (!user.is_unrestricted()).then(|| Arc::clone(user));
    }

    /// It is the default user, as at the begin.
    pub(crate) fn forget_user(&mut self, settings: &Settings) {
        let default = settings.users.default_user();
        self.authenticate(default);
        self.authenticated = !settings.users.ask_strangers();
    }

    /// Looks what its user may do now; whether there still is that user. Another of the same name is not the same.
    #[cold]
    pub(crate) fn follow(&mut self, settings: &Settings, version: u64) -> bool {
        self.followed = version;
        let name = Arc::clone(&self.client.description.lock().user);
        let user = settings.users.get(&name).filter(|user| user.number() == self.user);
        self.rights = match user {
            Some(user) => (!user.is_unrestricted()).then(|| Arc::clone(user)),
            None => Some(Arc::new(User::nobody())),
        };
        user.is_some()
    }

    /// Where its requests run.
    #[inline]
    pub(crate) fn place(&self, settings: &Settings) -> Place {
        let selected = self.transaction.as_ref().and_then(|transaction| transaction.db);
        Place { db: selected.unwrap_or(self.db), databases: settings.databases() }
    }

    /// Of which user's rights its requests are.
    pub(crate) fn user_name(&self) -> acl::Name {
        Arc::clone(&self.client.description.lock().user)
    }

    /// Whether CLIENT REPLY leaves out what the running command answers.
    #[inline]
    pub fn is_muted(&self) -> bool {
        matches!(self.reply_mode, ReplyMode::Off | ReplyMode::Skip)
    }

    /// CLIENT REPLY SKIP concerns the request that begins now.
    #[inline]
    pub fn begin_request(&mut self) {
        if self.reply_mode == ReplyMode::SkipNext {
            self.reply_mode = ReplyMode::Skip;
        }
    }

    /// An empty request uses up a SKIP.
    pub fn note_empty_request(&mut self) {
        if self.reply_mode == ReplyMode::SkipNext {
            self.reply_mode = ReplyMode::On;
        }
    }

    /// Whether a watched key was modified since WATCH, or nobody knows.
    pub fn watch_failed(&self) -> bool {
        let outlived = !self.watched.is_empty()
            && self.watched_in != self.generation
            && !mutation::is_on(Mutation::WatchSurvivesTerm);
        outlived || self.watch_flag.load(Ordering::Acquire)
    }

    /// Whether this node has ceased to be a primary since the client connected.
    #[inline]
    pub fn has_outlived_a_term(&self, ended_terms: u64) -> bool {
        self.ended_terms != ended_terms && !mutation::is_on(Mutation::FormerPrimaryServes)
    }

    /// Outside cluster mode, at the end of a term: whether what the client wants of this node is right at a replica, too.
    /// It has said so by READONLY, or only waits for messages, which reach the subscribers of all nodes. Keyspace events
    /// do not.
    pub fn may_outlive_a_term(&self, settings: &Settings) -> bool {
        self.readonly || self.only_subscription_commands() && !self.subscriptions.may_have_events(settings)
    }

    /// Whether messages may come to it that its own commands cause.
    #[inline]
    pub fn may_get_pushes(&self) -> bool {
        !self.subscriptions.is_empty() || self.is_monitor || self.tracking.is_some()
    }

    /// The client that is told in its place of what changes; 0: none, -1: nobody is told.
    pub fn redirect(&self) -> i64 {
        match &self.tracking {
            None => -1,
            Some(tracking) => tracking.redirect.map_or(0, |id| i64::try_from(id).unwrap_or(i64::MAX)),
        }
    }

    /// A command has ended: CLIENT CACHING concerns no other.
    #[cold]
    pub fn end_caching(&mut self, row: &Row) {
        if let Some(tracking) = &mut self.tracking
            && self.transaction.is_none()
            && !row.name.starts_with("client|")
        {
            tracking.caching = false;
        }
    }

    /// In RESP2 a client with subscriptions may only change them.
    pub fn only_subscription_commands(&self) -> bool {
        self.version == Version::Resp2 && !self.subscriptions.is_empty()
    }

    /// Copies what CLIENT LIST shows to where other threads see it.
    pub fn describe(&self) {
        let mut d = self.client.description.lock();
        d.db = self.db;
        d.version = self.version;
        d.channels = self.subscriptions.channels.len();
        d.patterns = self.subscriptions.patterns.len();
        d.sharded = self.subscriptions.sharded.len();
        d.multi = self.transaction.as_ref().map(|t| t.commands.len());
        d.multi_len_bytes = self.transaction.as_ref().map_or(0, |t| t.len_bytes);
        d.watched = self.watched.len();
        d.readonly = self.readonly;
        d.no_touch = self.no_touch;
        d.monitor = self.is_monitor;
        d.tracking = self.tracking.is_some();
        d.broadcasts = self.tracking.as_ref().is_some_and(|tracking| tracking.mode == Mode::Broadcast);
        d.redirect = self.tracking.as_ref().and_then(|tracking| tracking.redirect);
    }
}
