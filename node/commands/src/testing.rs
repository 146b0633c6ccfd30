//! Tests of commands: requests in, replies and effects out, on a keyspace without a server.
//!
//! [`check`] runs `(request, reply)` pairs on a fresh [`TestKeyspace`]. Requests are written as in an inline command,
//! with quotes where needed. A [`TestKeyspace::replicated`] one keeps its effects, and [`TestKeyspace::replica`]
//! applies them to another. It does what the executor does around a command and nothing that concerns clients: nobody
//! waits, there are no transactions, and of the server's commands it knows SELECT.

use std::mem;

use keyward_proto::entry;
use keyward_proto::resp::request::{Limits, OwnedArgs, split_words};
use keyward_proto::resp::{Args, Batch, Output, RequestReader, Version};
use keyward_proto::slot::Slot;
use keyward_proto::time::{Monotonic, UnixMillis};
use keyward_store::keys::{KeySettings, Keys, Logging, Mode, Now};
use keyward_store::rdb::Compression;
use keyward_store::{DbIndex, Keyspace};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::spec::Scope;
use crate::{CommandError, DataCommand, DataContext, DataLimits, FAMILIES, Outcome};

/// 2024-01-01, in milliseconds since the Unix epoch.
const NOW: i64 = 1_704_067_200_000;
const LIMITS: DataLimits = DataLimits {
    string_bytes_max: 512 << 20,
    databases: 16,
    compression: Compression::Lzf,
    hll_sparse_bytes_max: 3000,
    cluster: false,
};

/// See the module documentation.
pub(crate) struct TestKeyspace {
    keyspace: Keyspace,
    mode: Mode,
    logging: Logging,
    db: DbIndex,
    version: Version,
    /// Milliseconds since the Unix epoch.
    now: i64,
    rng: SmallRng,
    limits: DataLimits,
    effects: Vec<OwnedEffect>,
}

struct OwnedEffect {
    slot: Option<Slot>,
    db: DbIndex,
    args: OwnedArgs,
}

impl TestKeyspace {
    pub(crate) fn new() -> TestKeyspace {
        TestKeyspace {
            keyspace: Keyspace::default(),
            mode: Mode::Primary,
            logging: Logging::Off,
            db: 0,
            version: Version::Resp2,
            now: NOW,
            rng: SmallRng::seed_from_u64(1),
            limits: LIMITS,
            effects: Vec::new(),
        }
    }

    /// One that keeps its effects.
    pub(crate) fn replicated() -> TestKeyspace {
        TestKeyspace { logging: Logging::On, ..TestKeyspace::new() }
    }

    pub(crate) fn resp3(mut self) -> TestKeyspace {
        self.version = Version::Resp3;
        self
    }

    /// As in cluster mode.
    pub(crate) fn cluster(mut self) -> TestKeyspace {
        self.limits.cluster = true;
        self
    }

    /// Time goes on.
    pub(crate) fn pass(&mut self, millis: i64) {
        self.now += millis;
    }

    /// What active expiry does with a key.
    pub(crate) fn expire_fields(&mut self, key: &[u8]) {
        self.with_keys(key, |keys| keys.expire_fields(key, usize::MAX));
    }

    /// The reply to a request; bytes that are no UTF-8 are replaced.
    pub(crate) fn run(&mut self, request: &str) -> String {
        let words = split_words(request.as_bytes()).unwrap();
        self.run_words(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    pub(crate) fn run_words(&mut self, words: &[&[u8]]) -> String {
        String::from_utf8_lossy(&self.run_raw(words)).into_owned()
    }

    /// The exact bytes of the reply.
    pub(crate) fn run_raw(&mut self, words: &[&[u8]]) -> Vec<u8> {
        if let [b"SELECT", db] = words {
            self.db = std::str::from_utf8(db).unwrap().parse().unwrap();
            return b"+OK\r\n".to_vec();
        }
        let args = Args::from_slices(words);
        let command = find(args);
        let mut out = Output::default();
        let result = if command.spec.accepts(args.len()) {
            self.execute(command, args, &mut out)
        } else {
            Err(CommandError::WrongArity(command.spec.name.into()))
        };
        if let Err(error) = result {
            out.truncate(0);
            out.writer(self.version).error(error.to_bytes());
        }
        out.to_vec()
    }

    fn execute(
        &mut self,
        command: &'static DataCommand,
        args: Args<'_>,
        out: &mut Output,
    ) -> Result<Outcome, CommandError> {
        let settings = KeySettings::default();
        let now = Now { wall: UnixMillis(self.now), monotonic: Monotonic::ZERO };
        let mut keys = match self.mode {
            Mode::Primary => Keys::primary(&self.keyspace, &settings, now, self.logging),
            Mode::Replica => Keys::replica(&self.keyspace, &settings, now),
            Mode::Apply => Keys::apply(&self.keyspace, &settings, now.monotonic),
        };
        keys.db = self.db;
        if command.spec.scope == Scope::Keys {
            keys.lock_visited(|visit| {
                if command.spec.named_keys(args).is_some() {
                    return Slot::all().for_each(visit);
                }
                // What contradicts its key specification is refused by the command itself.
                let _refused = command.spec.visit_keys(args, &mut |at, _| visit(Slot::of(args.at(at))));
            });
        }
        let mut context = DataContext {
            keys: &mut keys,
            out: out.writer(self.version),
            rng: &mut self.rng,
            limits: &self.limits,
            spec: &command.spec,
            reads_all_keys: true,
        };
        let result = (command.run)(&mut context, args);
        commit(keys, &mut self.effects);
        result
    }

    fn with_keys(&mut self, key: &[u8], run: impl FnOnce(&mut Keys<'_>)) {
        let now = Now { wall: UnixMillis(self.now), monotonic: Monotonic::ZERO };
        let mut keys = Keys::primary(&self.keyspace, &KeySettings::default(), now, self.logging);
        keys.lock_one(Slot::of(key));
        run(&mut keys);
        commit(keys, &mut self.effects);
    }

    /// The effects since the last call, words joined by spaces.
    pub(crate) fn effects(&mut self) -> Vec<String> {
        let text = |effect: OwnedEffect| {
            let words = effect.args.as_args().iter().map(|word| String::from_utf8_lossy(word).into_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        mem::take(&mut self.effects).into_iter().map(text).collect()
    }

    /// Applies an effect, of which it is sure that it can be applied.
    pub(crate) fn apply(&mut self, effect: &str) {
        let mode = mem::replace(&mut self.mode, Mode::Apply);
        let reply = self.run(effect);
        assert!(!reply.starts_with('-'), "{effect}: {reply}");
        self.mode = mode;
    }

    /// As a primary, from now on.
    pub(crate) fn promoted(mut self) -> TestKeyspace {
        (self.mode, self.logging) = (Mode::Primary, Logging::On);
        self
    }

    /// A fresh keyspace that has applied every effect since the last call of this or [`TestKeyspace::effects`].
    pub(crate) fn replica(&mut self) -> TestKeyspace {
        let mut replica = TestKeyspace { mode: Mode::Apply, ..TestKeyspace::new() };
        for effect in mem::take(&mut self.effects) {
            assert!(effect.slot.is_some(), "a command on keys has effects on slots");
            replica.db = effect.db;
            let args = effect.args.as_args();
            replica.execute(find(args), args, &mut Output::default()).unwrap();
        }
        TestKeyspace { mode: Mode::Replica, db: 0, now: self.now, ..replica }
    }
}

fn commit(mut keys: Keys<'_>, effects: &mut Vec<OwnedEffect>) {
    keys.finish();
    keys.commit_effects(|buffer| {
        effects.extend(entry::effects(buffer.as_payload()).map(OwnedEffect::read));
        keyward_proto::ids::LogIndex::ZERO
    });
    keys.unlock();
}

impl OwnedEffect {
    fn read(effect: entry::Effect<'_>) -> OwnedEffect {
        let mut batch = Batch::default();
        RequestReader::default().parse(effect.command, &Limits::default(), 1, &mut batch).1.unwrap();
        OwnedEffect { slot: effect.slot, db: effect.db, args: batch.args(effect.command, 0).to_owned() }
    }
}

fn find(args: Args<'_>) -> &'static DataCommand {
    let name = String::from_utf8_lossy(args.at(0)).to_ascii_lowercase();
    let full = args.get(1).map(|sub| format!("{name}|{}", String::from_utf8_lossy(sub).to_ascii_lowercase()));
    let all = || FAMILIES.iter().copied().flatten();
    let named = |wanted: &str| all().find(|command| command.spec.name == wanted);
    full.and_then(|full| named(&full)).or_else(|| named(&name)).expect("a test calls commands that exist")
}

/// Runs requests on a fresh keyspace and compares the replies.
#[track_caller]
pub(crate) fn check(steps: &[(&str, &str)]) {
    check_on(&mut TestKeyspace::new(), steps);
}

#[track_caller]
pub(crate) fn check_on(keyspace: &mut TestKeyspace, steps: &[(&str, &str)]) {
    for (request, reply) in steps {
        assert_eq!(keyspace.run(request), *reply, "{request}");
    }
}

#[test]
fn an_effect_reaches_a_replica() {
    let mut keyspace = TestKeyspace::replicated();
    check_on(&mut keyspace, &[("SET a \"b c\"", "+OK\r\n"), ("GET a", "$3\r\nb c\r\n")]);
    assert_eq!(keyspace.replica().run("GET a"), "$3\r\nb c\r\n");
    check_on(&mut keyspace, &[("RPUSH l x", ":1\r\n")]);
    assert_eq!(keyspace.effects(), ["RPUSH l x"]);
}
