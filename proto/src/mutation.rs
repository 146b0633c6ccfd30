//! Deliberate bugs in the pure cores, which prove that the simulation would find them.
//!
//! Each is one condition at the place that the rule is about. They exist only in builds with debug assertions: a release
//! build compiles every [`is_on`] to `false`, whatever features and crates it is made of. Even where they exist none is
//! on until a thread calls [`activate`], and it is on for that thread only; only the simulation does.

#[cfg(debug_assertions)]
use std::cell::Cell;

macro_rules! mutations {
    ($($name:ident: $text:literal,)*) => {
        /// A rule that is broken on purpose.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutation {
            $(#[doc = $text] $name,)*
        }

        impl Mutation {
            pub const ALL: &[Mutation] = &[$(Mutation::$name,)*];

            pub fn name(self) -> &'static str {
                match self { $(Mutation::$name => stringify!($name),)* }
            }

            /// What the bug is, in one line.
            pub fn description(self) -> &'static str {
                match self { $(Mutation::$name => $text,)* }
            }
        }
    };
}

mutations! {
    SkipLeaseCheck: "a primary serves without looking at its lease",
    LeaseFromReceipt: "a lease is measured from the acknowledgement's receipt instead of the beacon's sending",
    GraceShorterThanLease: "a replica keeps its promise for less time than the lease lasts",
    ServeBeforePromiseEnds: "a new primary does not wait until its promise to the old one has ended",
    AcknowledgeBeforeAppend: "a replica acknowledges entries that it has not appended",
    AcknowledgeBeforeDurable: "an entry counts as held before it is written or synced",
    RewindForgetsDurable: "a truncation of the log leaves what this node counts as held",
    AnyBaseWillDo: "a log is loaded whatever base is before it: an older one, or one that has lost its bytes",
    AdoptedBaseLosesBatch: "the file behind a new base does not repeat what the snapshot lacks",
    ApplyBeforeCommit: "a replica applies entries that are not committed",
    ReplyBeforeCommit: "replies leave before their entry is committed",
    ReadsNotGated: "a read does not wait for the write that it has seen",
    NilBeforeCommit: "the nil of a client that waited in vain leaves before what emptied the key is committed",
    ReplyOfEndedTerm: "a reply of an ended term leaves when a later history reaches its index",
    ReplicaReadsNotGated: "a read at a replica, also a former primary, does not wait for the commit of what it has seen",
    WatchSurvivesTerm: "a watch of an ended term still lets a transaction succeed",
    WaitEndsByState: "a waiting client looks at the node's state when it is woken, not at the term in which it waits",
    FormerPrimaryServes: "outside cluster mode a former primary goes on answering the clients that it had",
    ExpiryNotLogged: "a primary deletes a key whose time has passed without an entry in its log",
    CommitByMajority: "an entry is committed when a majority of the in-sync set holds it",
    TrustOwnTail: "a new primary takes the tail of an old term for committed",
    JoiningNotCounted: "a node whose addition is proposed does not count yet",
    RemovalBeforeCommit: "a primary goes on without a member when its removal is proposed, not when it is committed",
    TruncateToKnownCommit: "a replica that reconnects drops all that it does not know to be committed",
    FullSyncOfMember: "a full sync empties a member of the in-sync set",
    MemberBeforeCaughtUp: "a replica counts as caught up before its full sync has ended",
    HandoffBesideCommands: "a hand-off asks the sentinels while a command may run that saw the gate open",
    LaggardsStay: "a node that is alive and holds everybody up stays in sync, or the primary",
    SlowestIsToBlame: "the slowest node gives way though the others are hardly better",
    LaggardComesBack: "a node that was removed because it held everybody up comes back at once",
    PromoteOutsideInSync: "the sentinels promote a node outside the in-sync set",
    RestartedStaysInSync: "a restarted member of the in-sync set stays electable",
    StaleTermAccepted: "a change of primary is not compared with the shard's term",
    EarlierLeasesForgotten: "a new primary forgets the one before the last, whose lease may still run",
    RefusalIsDeath: "the sentinels take a refused connection for a death though the network is not vouched for",
    StallRestartsSilence: "whoever stands still for a moment begins to count the silence of others anew",
    HaltedClockTrusted: "a primary whose clocks have moved apart keeps its leases",
    SilenceIsDeath: "the sentinels take a primary that does not answer for dead",
    AnyoneLeadsAfterRestart: "after all members have restarted any of them leads, not the furthest",
    FirstComerLeads: "sentinels without shards form one around whoever registers first, whatever the others hold",
    AnyLogIsAdopted: "an adopted shard goes on with a node that does not have most of its log",
    CommitBelowMinimum: "a primary commits though fewer members than min-in-sync are in sync",
    RestartedStaysEligible: "a node that has restarted may lead, because it once left a set that could not commit",
    LateRegistrationCounts: "a late registration of an earlier process supersedes the one that runs",
    StaleAnswerCounts: "what a node answered to an earlier question counts as the answer to the next one",
    SilentStreamKept: "a replica keeps a stream on which nothing comes any more",
    SilenceIsRefusal: "a request to the sentinels that gets no answer counts as refused",
    OldRefusalCounts: "a sentinel refuses by an old topology, not knowing whether it leads, and that counts",
    LargeEntriesInOne: "a large entry is one message, and beacons wait behind it",
    ChangeWaits: "a change of the in-sync set waits for the first sentinel that is asked",
}

#[cfg(debug_assertions)]
thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Whether this thread runs with the bug.
#[inline]
pub fn is_on(mutation: Mutation) -> bool {
    #[cfg(debug_assertions)]
    {
        ACTIVE.get() == Some(mutation)
    }
    #[cfg(not(debug_assertions))]
    {
        _ = mutation;
        false
    }
}

/// From now on this thread runs with the bug, or with none. False if this build has no bugs to offer.
pub fn activate(mutation: Option<Mutation>) -> bool {
    #[cfg(debug_assertions)]
    {
        ACTIVE.set(mutation);
        true
    }
    #[cfg(not(debug_assertions))]
    {
        mutation.is_none()
    }
}
