//! The network between nodes, sentinels and clients.
//!
//! Two kinds of traffic, as in reality:
//! - *Streams* between a replica and its primary (gRPC over TCP): what one connection carries arrives in order and once,
//!   or not at all. A lost packet is a delay. While the direction is cut messages wait, and arrive late if the cut ends
//!   before the connection does. Between an old and a new connection of the same two nodes there is no order. A connection may be *half-open*: it carries nothing any more,
//!   and one side or both do not know, because the reset got lost.
//! - *Messages* (a request or its answer, each on its own): lost, delayed, reordered. A request may be carried out
//!   without its answer arriving; the sentinels may carry it out twice (`sentinel.rs`).
//!
//! A cut has a direction. Who connects to a machine that runs without the process is refused by its kernel; a machine
//! without power does not answer. And somebody on the way may refuse new connections to a process that lives and serves
//! (a REJECT rule, a service without endpoints, an address that has moved), or another process may answer there, which
//! comes to the same.

use std::collections::VecDeque;

use keyward_replication::core::messages::{
    Ack, Append, Chunk, Closed, Event, Hello, LinkId, Start, UplinkId,
};
use rand::Rng;

use super::node::Power;
use super::story::tell;
use super::world::{SimEvent, World};
use super::{CLIENTS, NODES, Nanos, SENTINELS, ms};

/// Nodes first, then sentinels, then clients.
pub(super) type Endpoint = usize;
pub(super) const ENDPOINTS: usize = NODES + SENTINELS + CLIENTS;

pub(super) fn sentinel(number: usize) -> Endpoint {
    NODES + number
}

pub(super) fn client(number: usize) -> Endpoint {
    NODES + SENTINELS + number
}

#[derive(Debug, Default)]
pub(super) struct Network {
    /// From, to.
    cut: [[bool; ENDPOINTS]; ENDPOINTS],
    /// New connections from, to are refused, whoever listens there.
    refused: [[bool; ENDPOINTS]; ENDPOINTS],
    /// Of a hundred messages so many are lost; those of a stream are late.
    pub(super) loss_percent: u32,
    /// What each direction of a stream carries; `None`: whatever there is.
    pub(super) bytes_per_second: Option<u64>,
    pub(super) streams: Vec<Stream>,
    next_link: u64,
}

impl Network {
    pub(super) fn is_cut(&self, from: Endpoint, to: Endpoint) -> bool {
        self.cut[from][to]
    }

    pub(super) fn cut(&mut self, from: Endpoint, to: Endpoint) {
        self.cut[from][to] = from != to;
    }

    pub(super) fn cut_both(&mut self, a: Endpoint, b: Endpoint) {
        self.cut(a, b);
        self.cut(b, a);
    }

    pub(super) fn is_refused(&self, from: Endpoint, to: Endpoint) -> bool {
        self.refused[from][to]
    }

    pub(super) fn refuse(&mut self, from: Endpoint, to: Endpoint) {
        self.refused[from][to] = from != to;
    }

    fn time_for(&self, wire: &Wire) -> Nanos {
        self.bytes_per_second.map_or(0, |bytes| wire.bytes() * ms(1000) / bytes)
    }

    /// Whether a primary may send more over a stream: what waits there has a bound.
    pub(super) fn has_room(&self, stream: usize) -> bool {
        let waiting = || self.streams[stream].to_replica.iter().map(|(_, wire)| wire.bytes()).sum::<u64>();
        self.bytes_per_second.is_none() || waiting() < WINDOW_BYTES
    }

    pub(super) fn heal(&mut self) {
        self.cut = Default::default();
        self.refused = Default::default();
        self.loss_percent = 0;
        self.bytes_per_second = None;
    }
}

#[derive(Debug)]
pub(super) enum Wire {
    Hello(Box<Hello>),
    Ack(Ack),
    Start(Start),
    Append(Append),
    Chunk(Chunk),
    Reject,
    /// The other side has closed, or its kernel says that the process is gone.
    End,
}

/// Of a message, beside its entries.
const HEADER_BYTES: u64 = 16;
/// What waits for a line that is too narrow.
const WINDOW_BYTES: u64 = 2 << 10;

impl Wire {
    fn bytes(&self) -> u64 {
        let payload: usize = match self {
            Wire::Append(append) => append.entries.len(),
            Wire::Chunk(chunk) => chunk.parts.iter().map(|part| part.payload.len()).sum(),
            Wire::Hello(_) | Wire::Ack(_) | Wire::Start(_) | Wire::Reject | Wire::End => 0,
        };
        HEADER_BYTES + payload as u64
    }
}

/// One connection between a replica and a primary.
#[derive(Debug)]
pub(super) struct Stream {
    /// Node and process.
    replica: (usize, u64),
    uplink: UplinkId,
    primary: (usize, u64),
    link: LinkId,
    to_primary: VecDeque<(Nanos, Wire)>,
    to_replica: VecDeque<(Nanos, Wire)>,
    /// When the line has carried what was sent, towards the primary and towards the replica.
    free_at: [Nanos; 2],
    /// It carries nothing any more.
    is_dead: bool,
}

impl Stream {
    pub(super) fn is_of(&self, node: usize) -> bool {
        self.replica.0 == node || self.primary.0 == node
    }
}

/// The two directions of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Towards {
    Primary,
    Replica,
}

impl World {
    pub(super) fn latency(&mut self) -> Nanos {
        let micros = if self.rng.random_bool(0.02) { 20_000 } else { 500 };
        self.rng.random_range(20..micros) * 1000
    }

    pub(super) fn is_lost(&mut self) -> bool {
        let percent = self.network.loss_percent;
        0 < percent && self.rng.random_ratio(percent, 100)
    }

    /// A replica wants a stream.
    pub(super) fn connect(&mut self, node: usize, run: u64, uplink: UplinkId, to: usize, hello: Box<Hello>) {
        if self.machines[node].process().is_none_or(|p| p.run != run) {
            return;
        }
        let closed = |why| SimEvent::NodeEvent { node, run, event: Event::UplinkClosed(uplink, why) };
        if self.network.is_refused(node, to) {
            let delay = self.latency();
            return self.at(delay, closed(Closed::Refused));
        }
        let is_cut = self.network.is_cut(node, to) || self.network.is_cut(to, node);
        let refused = match &mut self.machines[to].power {
            Power::On(process) if !is_cut => {
                self.network.next_link += 1;
                let link = LinkId(self.network.next_link);
                let stream = self.network.streams.len();
                process.links.insert(link, stream);
                self.network.streams.push(Stream {
                    replica: (node, run),
                    uplink,
                    primary: (to, process.run),
                    link,
                    to_primary: VecDeque::new(),
                    to_replica: VecDeque::new(),
                    free_at: [0; 2],
                    is_dead: false,
                });
                self.machines[node].process().expect("checked").uplinks.insert(uplink, stream);
                return self.transmit(stream, Towards::Primary, Wire::Hello(hello));
            }
            // A process that has not registered yet accepts, but says nothing.
            Power::Off { has_power: true } => !is_cut,
            Power::On(_) | Power::Starting(_) | Power::Off { has_power: false } => false,
        };
        if refused {
            let delay = self.latency();
            self.at(delay, closed(Closed::Refused));
        } else {
            self.at(self.machines[node].config.grace.as_nanos() as Nanos, closed(Closed::Broken));
        }
    }

    pub(super) fn transmit(&mut self, stream: usize, towards: Towards, wire: Wire) {
        let retransmission = if self.is_lost() { ms(200) } else { 0 };
        let distance = self.distance - self.rng.random_range(0..=self.distance / 4);
        let delay = self.latency() + distance + retransmission;
        let carrying = self.network.time_for(&wire);
        let s = &mut self.network.streams[stream];
        if s.is_dead {
            return;
        }
        let free_at = &mut s.free_at[towards as usize];
        *free_at = self.now.max(*free_at) + carrying;
        let arrival = *free_at + delay;
        let queue = if towards == Towards::Primary { &mut s.to_primary } else { &mut s.to_replica };
        let arrival = queue.back().map_or(arrival, |(at, _)| arrival.max(*at));
        queue.push_back((arrival, wire));
        self.at(arrival - self.now, SimEvent::Pump { stream, towards });
    }

    /// Delivers the first message of a stream's direction, if it can get there.
    pub(super) fn pump(&mut self, stream: usize, towards: Towards) {
        let s = &mut self.network.streams[stream];
        let (queue, from, to, run) = match towards {
            Towards::Primary => (&mut s.to_primary, s.replica.0, s.primary.0, s.primary.1),
            Towards::Replica => (&mut s.to_replica, s.primary.0, s.replica.0, s.replica.1),
        };
        let paused_until = self.machines[to].paused_until;
        let wait = match self.network.cut[from][to] {
            true => Some(ms(5)),
            false if self.now < paused_until => Some(paused_until - self.now),
            false => None,
        };
        if let Some(wait) = wait {
            return self.at(wait, SimEvent::Pump { stream, towards });
        }
        let is_due = queue.front().is_some_and(|(at, _)| *at <= self.now);
        let Some((_, wire)) = queue.pop_front().filter(|_| is_due) else { return };
        let (link, uplink) = (s.link, s.uplink);
        let Some(process) = self.machines[to].process().filter(|p| p.run == run) else {
            if !matches!(wire, Wire::End) && self.machines[to].has_power() {
                let back = if towards == Towards::Primary { Towards::Replica } else { Towards::Primary };
                self.transmit(stream, back, Wire::End);
            }
            return;
        };
        let event = match wire {
            Wire::Hello(hello) => Event::HelloReceived(link, *hello),
            Wire::Ack(ack) => Event::AckReceived(link, ack),
            Wire::Start(start) => Event::StartReceived(uplink, start),
            Wire::Append(append) => Event::AppendReceived(uplink, append),
            Wire::Chunk(chunk) => Event::ChunkReceived(uplink, chunk),
            Wire::Reject => Event::RejectReceived(uplink),
            Wire::End if towards == Towards::Primary => {
                process.links.remove(&link);
                process.senders.remove(&link);
                Event::LinkClosed(link)
            }
            Wire::End => {
                process.uplinks.remove(&uplink);
                Event::UplinkClosed(uplink, Closed::Broken)
            }
        };
        self.step(to, run, event);
        if towards == Towards::Replica && self.network.bytes_per_second.is_some() {
            self.send_log(from);
        }
    }

    /// All connections of a machine break, on both sides.
    pub(super) fn break_streams(&mut self, node: usize) {
        let streams: Vec<usize> =
            (0..self.network.streams.len()).filter(|s| self.network.streams[*s].is_of(node)).collect();
        for stream in streams {
            self.reset(stream, Towards::Primary);
            self.reset(stream, Towards::Replica);
        }
    }

    /// One side is told that the connection has ended, unless that gets lost.
    pub(super) fn reset(&mut self, stream: usize, towards: Towards) {
        if self.rng.random_bool(0.15) {
            tell!("FAULT a reset is lost");
            self.network.streams[stream].is_dead = true;
        } else {
            self.transmit(stream, towards, Wire::End);
        }
    }

    /// The connections of a machine carry nothing any more, and nobody is told.
    pub(super) fn deaden_streams(&mut self, node: usize) {
        for stream in self.network.streams.iter_mut().filter(|s| s.is_of(node)) {
            stream.is_dead = true;
            stream.to_primary.clear();
            stream.to_replica.clear();
        }
    }
}
