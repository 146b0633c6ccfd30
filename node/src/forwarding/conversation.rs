//! What one client says to the nodes that have its keys, and what they answer: requests go where they belong, replies come
//! back in their order. Pure: bytes and times in, actions out.
//!
//! - A request that a node refuses without having executed it (MOVED, READONLY, CLUSTERDOWN, LOADING ...), or that could not
//!   be sent to it, goes to whoever has its key by then. While nobody does it waits, for [`PATIENCE`] at most; then the
//!   client gets the last refusal.
//! - Nothing is executed before what was sent before it to the same node: of requests that are under way to one node, those
//!   behind a refused one have to be refused as well before they are sent again. If one is not, the client gets the refusals.
//! - If a connection to a node is lost, nobody knows whether what was not answered has been executed: the client's connection
//!   ends, as if it had been connected to that node.
//! - A transaction goes to the node of its first key, a subscriber stays with one node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use keyward_proto::ids::NodeId;
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;

use super::frames::{Frames, Progress};
use super::kind::{Kind, Setup};

/// How long a request waits for a node that serves it.
const PATIENCE: Duration = Duration::from_secs(5);
/// And for a primary that has too few replicas, as one that has just taken over has for some milliseconds: who has lost them
/// is to be told.
const PATIENCE_WITH_PRIMARY: Duration = Duration::from_secs(1);
/// After that it is tried again, if the node that refused it is the one that it belongs to.
const AGAIN_AFTER: Duration = Duration::from_millis(5);
/// How long is waited for the answers of a node that leads no more. It may be gone without a word, or stand still.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// So much may be under way before more is taken from the client.
const REQUESTS_MAX: usize = 1024;
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Refusals by which nothing has been executed, and which another node or another time does not give.
const REFUSALS: [&[u8]; 6] =
    [b"-MOVED ", b"-READONLY ", b"-CLUSTERDOWN ", b"-MASTERDOWN ", b"-LOADING ", b"-TRYAGAIN "];
/// The same, of the node that leads.
const TOO_FEW: &[u8] = b"-NOREPLICAS ";
const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const OK: &[u8] = b"+OK\r\n";
const NOBODY: &[u8] = b"-CLUSTERDOWN The cluster is down\r\n";

/// Who serves what.
pub(super) trait Routes {
    /// Who serves this slot, or, without one, what needs no key.
    fn place(&self, slot: Option<Slot>) -> Option<NodeId>;

    /// Whether one node serves everything.
    fn is_single(&self) -> bool;

    /// Whether this node serves anything.
    fn leads(&self, place: &NodeId) -> bool;
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Connect(NodeId),
    Send(NodeId, Bytes),
    Disconnect(NodeId),
    ToClient(Bytes),
    /// The client's connection ends when it has got what was for it.
    End,
}

/// How a connection to a node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// Before there was one.
    NeverConnected,
    Lost,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Waits,
    Sent,
    /// With this answer, and nothing was executed.
    Refused(Bytes),
    Answered(Bytes),
}

#[derive(Debug)]
struct Request {
    bytes: Bytes,
    kind: Kind,
    state: State,
    /// When it was its turn for the first time.
    since: Option<Monotonic>,
    /// Whether another node may be asked if this one refuses it: not within a transaction.
    moves: bool,
    /// The last refusal, if it is tried again.
    refusal: Option<Bytes>,
}

impl Request {
    fn new(bytes: Bytes, kind: Kind, state: State) -> Request {
        Request { bytes, kind, state, since: None, moves: false, refusal: None }
    }

    fn is_patient(&self, now: Monotonic) -> bool {
        self.has_waited_less(PATIENCE, now)
    }

    fn has_waited_less(&self, time: Duration, now: Monotonic) -> bool {
        self.since.is_none_or(|since| now.since(since) < time)
    }

    /// Whether another attempt may have another answer, and this one has done nothing.
    fn is_refused_by(&self, reply: &[u8], now: Monotonic) -> bool {
        let patience = if reply.starts_with(TOO_FEW) { PATIENCE_WITH_PRIMARY } else { PATIENCE };
        let is_refusal =
            reply.starts_with(TOO_FEW) || REFUSALS.iter().any(|refusal| reply.starts_with(refusal));
        self.moves && is_refusal && self.has_waited_less(patience, now)
    }
}

/// Whom a reply of a node is for.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// The request with this number.
    Reply(u64),
    /// Nobody: the client has its answer already.
    Nobody,
}

#[derive(Debug, Default)]
struct Upstream {
    expected: VecDeque<Expected>,
    frames: Frames,
    /// What could not be understood yet.
    input: BytesMut,
    /// The reply that comes now.
    reply: BytesMut,
    /// Requests that it has refused since it had nothing to answer.
    refused: Vec<u64>,
    /// Since when it does not lead any more.
    left: Option<Monotonic>,
}

/// Whether the turn of a request is over.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    IsOver,
    Waits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Transaction {
    None,
    /// MULTI was said, and no command yet by which it has a place.
    Nowhere,
    At(NodeId),
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Conversation {
    /// In the order in which they came.
    requests: VecDeque<Request>,
    /// The number of the first of them.
    first: u64,
    len_bytes: usize,
    /// All before this one have been sent, or need not be.
    next: u64,
    again_at: Option<Monotonic>,
    upstreams: BTreeMap<NodeId, Upstream>,
    /// By which a new connection becomes like the others, in the order in which they were first said.
    setup: Vec<(Setup, Bytes)>,
    transaction: Transaction,
    watched: Option<NodeId>,
    /// The node to which the client belongs.
    bond: Option<NodeId>,
    has_ended: bool,
}

impl Conversation {
    pub(super) fn new() -> Conversation {
        Conversation {
            requests: VecDeque::new(),
            first: 0,
            len_bytes: 0,
            next: 0,
            again_at: None,
            upstreams: BTreeMap::new(),
            setup: Vec::new(),
            transaction: Transaction::None,
            watched: None,
            bond: None,
            has_ended: false,
        }
    }

    /// Whether nothing more is to be taken from the client for now.
    pub(super) fn is_full(&self) -> bool {
        self.has_ended || REQUESTS_MAX <= self.requests.len() || REQUEST_BYTES_MAX <= self.len_bytes
    }

    /// When [`Conversation::go_on`] is to be called although nothing has come.
    pub(super) fn deadline(&self) -> Option<Monotonic> {
        self.again_at
    }

    /// Whether the client waits for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether a node has agreed to what the client has said of itself.
    pub(super) fn is_set_up(&self) -> bool {
        !self.setup.is_empty()
    }

    /// Whether everything goes to one node, as it is.
    pub(super) fn is_bound(&self) -> bool {
        self.bond.is_some()
    }

    /// The client's next request, as an array of strings.
    pub(super) fn request(&mut self, kind: Kind, bytes: Bytes, out: &mut Vec<Action>) {
        if let Some(place) = &self.bond {
            out.push(Action::Send(place.clone(), bytes));
            return;
        }
        self.len_bytes += bytes.len();
        self.requests.push_back(Request::new(bytes, kind, State::Waits));
    }

    /// An answer that the client gets from here, behind those that it waits for; nothing comes after it.
    pub(super) fn answer_last(&mut self, reply: Bytes, out: &mut Vec<Action>) {
        if self.bond.is_some() {
            out.push(Action::ToClient(reply));
            return self.end(out);
        }
        self.requests.push_back(Request::new(Bytes::new(), Kind::Idle, State::Answered(reply)));
        self.requests.push_back(Request::new(Bytes::new(), Kind::Quit, State::Waits));
    }

    /// What a node sends.
    pub(super) fn received(&mut self, place: &NodeId, bytes: &[u8], now: Monotonic, out: &mut Vec<Action>) {
        if let Some(upstream) = self.upstreams.get_mut(place) {
            upstream.input.extend_from_slice(bytes);
        }
        while let Some(upstream) = self.upstreams.get_mut(place)
            && !upstream.input.is_empty()
        {
            // What it answers to the setup is not for the client.
            if self.bond.is_some() && upstream.expected.is_empty() {
                out.push(Action::ToClient(upstream.input.split().freeze()));
                return;
            }
            let Ok((taken, progress)) = upstream.frames.scan(&upstream.input) else { return self.end(out) };
            let part = upstream.input.split_to(taken);
            upstream.reply.extend_from_slice(&part);
            if progress == Progress::Part {
                break;
            }
            let reply = upstream.reply.split().freeze();
            if reply.starts_with(b">") {
                out.push(Action::ToClient(reply));
                continue;
            }
            match upstream.expected.pop_front() {
                Some(Expected::Reply(number)) => self.take_reply(place, number, reply, now, out),
                Some(Expected::Nobody) if !reply.starts_with(b"-") => {}
                // It does not take what the others have taken, or speaks without being asked.
                Some(Expected::Nobody) | None => return self.end(out),
            }
        }
        self.flush(out);
    }

    /// A connection to a node has ended, or there was none.
    pub(super) fn closed(&mut self, place: &NodeId, how: Closed, now: Monotonic, out: &mut Vec<Action>) {
        let Some(upstream) = self.upstreams.remove(place) else { return };
        let is_bound = [&self.bond, &self.watched].iter().any(|bound| bound.as_ref() == Some(place))
            || self.transaction == Transaction::At(place.clone());
        let waiting: Vec<u64> = upstream
            .expected
            .iter()
            .filter_map(|expected| match expected {
                Expected::Reply(number) => Some(*number),
                Expected::Nobody => None,
            })
            .collect();
        let may_be_lost = how == Closed::Lost && !waiting.is_empty();
        if is_bound || may_be_lost || waiting.iter().any(|number| !self.at(*number).moves) {
            return self.end(out);
        }
        for number in waiting.into_iter().chain(upstream.refused) {
            self.try_again(number);
            self.again_at = Some(now + AGAIN_AFTER);
        }
    }

    /// Sends what can be sent, and gives up what has waited for too long.
    pub(super) fn go_on(&mut self, routes: &dyn Routes, now: Monotonic, out: &mut Vec<Action>) {
        if let Some(place) = &self.bond
            && !routes.leads(place)
        {
            // The client would be told nothing but that another one leads.
            return self.end(out);
        }
        self.leave_former(routes, now, out);
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
        }
        while self.again_at.is_none() && !self.has_ended && self.bond.is_none() {
            self.flush(out);
            let at = usize::try_from(self.next - self.first).expect("it is in memory");
            match self.requests.get(at) {
                None => break,
                Some(request) if request.state != State::Waits => self.next += 1,
                Some(_) => {
                    if self.send(at, routes, now, out) == Turn::Waits {
                        break;
                    }
                }
            }
        }
        self.flush(out);
    }

    /// Nodes that lead no more are left when they have said what they have to say.
    fn leave_former(&mut self, routes: &dyn Routes, now: Monotonic, out: &mut Vec<Action>) {
        for (place, upstream) in &mut self.upstreams {
            upstream.left = if routes.leads(place) { None } else { upstream.left.or(Some(now)) };
        }
        let is_over = |upstream: &Upstream| upstream.left.is_some_and(|left| LAST_WORDS <= now.since(left));
        let over: Vec<NodeId> =
            self.upstreams.iter().filter(|(_, up)| is_over(up)).map(|(place, _)| place.clone()).collect();
        for place in over {
            out.push(Action::Disconnect(place.clone()));
            self.closed(&place, Closed::Lost, now, out);
        }
    }

    /// The turn of the request at this place of the queue.
    fn send(&mut self, at: usize, routes: &dyn Routes, now: Monotonic, out: &mut Vec<Action>) -> Turn {
        self.requests[at].since.get_or_insert(now);
        let mut kind = self.requests[at].kind;
        if matches!(kind, Kind::Setup(_)) && self.transaction != Transaction::None {
            // It changes what the connection is when the transaction is executed.
            kind = Kind::Bind(None);
        }
        let is_setting_up = self.requests[0].kind.is_setup() && self.requests[0].state != State::Waits;
        if 0 < at && (is_setting_up || !matches!(kind, Kind::Ordinary(_) | Kind::EndOfTransaction)) {
            return Turn::Waits;
        }
        let place = match (&self.transaction, kind) {
            (_, Kind::Idle) => return self.answer_here(at),
            (Transaction::None, Kind::Multi) if self.watched.is_none() && !routes.is_single() => {
                self.transaction = Transaction::Nowhere;
                return self.answer_here(at);
            }
            (_, Kind::Quit) => {
                if !self.requests[at].bytes.is_empty() {
                    self.answer_here(at);
                }
                self.end(out);
                return Turn::Waits;
            }
            (Transaction::At(place), _) => Some(place.clone()),
            (_, Kind::Multi | Kind::Unwatch | Kind::EndOfTransaction) if self.watched.is_some() => {
                self.watched.clone()
            }
            (_, Kind::Ordinary(slot) | Kind::Watch(slot) | Kind::Bind(slot)) => routes.place(slot),
            _ => routes.place(None),
        };
        let Some(place) = place else { return self.give_up_or_wait(at, now) };
        if !self.requests[at].is_patient(now) && self.requests[at].refusal.is_some() {
            return self.give_up_or_wait(at, now);
        }
        if self.upstreams.get(&place).is_some_and(|upstream| !upstream.refused.is_empty()) {
            return Turn::Waits;
        }
        self.connect(&place, out);
        if self.transaction == Transaction::Nowhere {
            self.upstream(&place).expected.push_back(Expected::Nobody);
            out.push(Action::Send(place.clone(), Bytes::from_static(MULTI)));
            self.transaction = Transaction::At(place.clone());
        }
        if matches!(kind, Kind::Bind(_)) {
            self.bind(place, out);
            return Turn::Waits;
        }
        let number = self.first + at as u64;
        let moves = self.transaction == Transaction::None && kind.may_move();
        let request = &mut self.requests[at];
        (request.state, request.moves) = (State::Sent, moves);
        out.push(Action::Send(place.clone(), request.bytes.clone()));
        self.upstream(&place).expected.push_back(Expected::Reply(number));
        match kind {
            Kind::Multi => self.transaction = Transaction::At(place),
            Kind::Watch(_) if self.transaction == Transaction::None => self.watched = Some(place),
            Kind::Unwatch if self.transaction == Transaction::None => self.watched = None,
            Kind::EndOfTransaction | Kind::Reset => {
                (self.transaction, self.watched) = (Transaction::None, None)
            }
            _ => {}
        }
        self.next = number + 1;
        Turn::IsOver
    }

    fn answer_here(&mut self, at: usize) -> Turn {
        self.requests[at].state = State::Answered(Bytes::from_static(OK));
        Turn::IsOver
    }

    fn upstream(&mut self, place: &NodeId) -> &mut Upstream {
        self.upstreams.get_mut(place).expect("it is connected")
    }

    /// Nobody serves a request.
    fn give_up_or_wait(&mut self, at: usize, now: Monotonic) -> Turn {
        let request = &mut self.requests[at];
        if request.is_patient(now) {
            self.again_at = Some(now + AGAIN_AFTER);
            return Turn::Waits;
        }
        let refusal = request.refusal.take();
        request.state = State::Answered(refusal.unwrap_or(Bytes::from_static(NOBODY)));
        Turn::IsOver
    }

    /// From here on everything goes to one node, and comes from it, as it is.
    fn bind(&mut self, place: NodeId, out: &mut Vec<Action>) {
        self.disconnect_all_but(&place, out);
        self.len_bytes = 0;
        self.bond = Some(place.clone());
        for request in std::mem::take(&mut self.requests) {
            match request.state {
                // Nothing comes behind it.
                State::Answered(reply) => return self.answer_last(reply, out),
                _ => out.push(Action::Send(place.clone(), request.bytes)),
            }
        }
    }

    fn connect(&mut self, place: &NodeId, out: &mut Vec<Action>) {
        if self.upstreams.contains_key(place) {
            return;
        }
        let expected = self.setup.iter().map(|_| Expected::Nobody).collect();
        self.upstreams.insert(place.clone(), Upstream { expected, ..Upstream::default() });
        out.push(Action::Connect(place.clone()));
        out.extend(self.setup.iter().map(|(_, bytes)| Action::Send(place.clone(), bytes.clone())));
    }

    fn disconnect_all_but(&mut self, place: &NodeId, out: &mut Vec<Action>) {
        self.upstreams.retain(|other, _| {
            let stays = other == place;
            if !stays {
                out.push(Action::Disconnect(other.clone()));
            }
            stays
        });
    }

    fn take_reply(
        &mut self,
        place: &NodeId,
        number: u64,
        reply: Bytes,
        now: Monotonic,
        out: &mut Vec<Action>,
    ) {
        let request = self.at(number);
        if request.is_refused_by(&reply, now) {
            request.state = State::Refused(reply);
            self.upstream(place).refused.push(number);
        } else {
            let is_new_setup = request.kind.is_setup() && !reply.starts_with(b"-");
            // But for one within a transaction: then there is none.
            let is_no_transaction =
                request.kind == Kind::Multi && reply.starts_with(b"-") && !reply.starts_with(b"-ERR MULTI");
            request.state = State::Answered(reply);
            // What was refused before it must not be executed after it.
            for before in std::mem::take(&mut self.upstream(place).refused) {
                let request = self.at(before);
                if let State::Refused(refusal) = std::mem::replace(&mut request.state, State::Waits) {
                    request.state = State::Answered(refusal);
                }
            }
            if is_no_transaction {
                self.transaction = Transaction::None;
            }
            if is_new_setup {
                self.note_setup(place, number, out);
            }
        }
        let upstream = self.upstream(place);
        if upstream.expected.is_empty() && !upstream.refused.is_empty() {
            std::mem::take(&mut upstream.refused).into_iter().for_each(|refused| self.try_again(refused));
            self.again_at = Some(now + AGAIN_AFTER);
        }
    }

    /// Nodes that are connected hear it when they are asked again.
    fn note_setup(&mut self, place: &NodeId, number: u64, out: &mut Vec<Action>) {
        let request = self.at(number);
        let (kind, bytes) = (request.kind, request.bytes.clone());
        match kind {
            Kind::Setup(setup) => match self.setup.iter_mut().find(|(other, _)| *other == setup) {
                Some((_, before)) => *before = bytes,
                None => self.setup.push((setup, bytes)),
            },
            _ => self.setup.clear(),
        }
        self.disconnect_all_but(place, out);
    }

    /// A request that has not been executed is to be sent once more.
    fn try_again(&mut self, number: u64) {
        let request = self.at(number);
        if let State::Refused(refusal) = std::mem::replace(&mut request.state, State::Waits) {
            request.refusal = Some(refusal);
        }
        if matches!(request.kind, Kind::Watch(_)) {
            self.watched = None;
        }
        self.next = self.next.min(number);
    }

    fn at(&mut self, number: u64) -> &mut Request {
        let at = usize::try_from(number - self.first).expect("it is in memory");
        &mut self.requests[at]
    }

    /// What is answered leaves, in order.
    fn flush(&mut self, out: &mut Vec<Action>) {
        while let Some(Request { state: State::Answered(_), .. }) = self.requests.front() {
            let request = self.requests.pop_front().expect("there is one");
            self.first += 1;
            self.len_bytes -= request.bytes.len();
            if let State::Answered(reply) = request.state {
                out.push(Action::ToClient(reply));
            }
        }
        self.next = self.next.max(self.first);
    }

    fn end(&mut self, out: &mut Vec<Action>) {
        self.flush(out);
        if !std::mem::replace(&mut self.has_ended, true) {
            out.push(Action::End);
        }
    }
}
