//! What the first request of a connection waits for that executes nothing at the moment, and when that is over. Pure; the
//! simulation's connections wait with it, too.

use std::time::Duration;

use keyward_proto::ids::{LogIndex, Position};
use keyward_proto::resp::Output;
use keyward_proto::time::Monotonic;
use keyward_replication::gate::Gate;
use keyward_replication::reply::ReplyCondition;

use super::pause::Pause;
use super::session::Session;
use crate::admin::write_synced;
use crate::blocking::{Blocked, Ending, FORCED, Look, Served};
use crate::execute::{BatchEnd, Patience, Stop};

/// How often WAIT looks at what the replicas hold: acknowledgements do not wake connections.
pub(super) const REPLICAS_POLL: Duration = Duration::from_millis(1);

/// Why nothing is executed at the moment.
#[derive(Debug)]
pub enum Wait {
    /// No lease, hand-off, change of term: tried again after each event of the gate beyond this one.
    Gate {
        seen: u64,
    },
    /// CLIENT PAUSE.
    Pause,
    Keys(Blocked),
    Replicas {
        written: Position,
        /// Of the gate, when it began.
        generation: u64,
        replicas: u64,
        deadline: Option<Monotonic>,
    },
    /// This node's disk; replicas do not tell of theirs, so whoever asks for them waits in vain.
    Disk {
        written: Position,
        generation: u64,
        replicas: u64,
        deadline: Option<Monotonic>,
    },
    /// With the reply that ends it.
    Time(&'static [u8]),
}

/// What decides whether a wait is over.
#[allow(missing_debug_implementations, reason = "functions have nothing to show")]
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// How often the gate has changed.
    pub gate_events: u64,
    pub gate: &'a Gate,
    pub pause: &'a Pause,
    /// How many replicas hold an entry.
    pub replicas_holding: &'a dyn Fn(Position) -> u64,
    /// Whether this node's disk has kept an entry for sure.
    pub has_synced: &'a dyn Fn(Position) -> bool,
    pub now: &'a dyn Fn() -> Monotonic,
}

/// What has become of a wait.
#[derive(Debug)]
pub enum Outcome {
    Waits,
    /// It is to be looked at again after this time.
    WaitsFor(Duration),
    /// The request is tried again, with this patience.
    Retry(Patience),
    Answer(Answer),
}

/// With what a wait ends.
#[derive(Debug)]
pub enum Answer {
    Words(&'static [u8]),
    /// So many replicas hold what was waited for.
    Replicas(u64),
    /// Whether this node has synced it, as a number.
    Synced(u64),
    Keys(Ending),
}

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    GoesOn,
    Closes,
}

impl Wait {
    /// Whether it is over.
    pub fn look(&self, look: Look, around: &Surroundings<'_>) -> Outcome {
        match self {
            Wait::Gate { .. } if look == Look::TimeIsUp => Outcome::Retry(Patience::Exhausted),
            Wait::Gate { seen } if *seen != around.gate_events => Outcome::Retry(Patience::Left),
            Wait::Pause if look == Look::TimeIsUp || around.pause.is_over((around.now)()) => {
                Outcome::Retry(Patience::Left)
            }
            Wait::Time(reply) if look == Look::TimeIsUp => Outcome::Answer(Answer::Words(reply)),
            Wait::Gate { .. } | Wait::Pause | Wait::Time(_) => Outcome::Waits,
            Wait::Keys(blocked) => match blocked.end(look, around.gate) {
                Some(ending) => Outcome::Answer(Answer::Keys(ending)),
                None => Outcome::Waits,
            },
            Wait::Replicas { generation, .. } | Wait::Disk { generation, .. }
                if *generation != around.gate.generation() || around.gate.state().is_replica() =>
            {
                Outcome::Answer(Answer::Keys(Ending::Demoted(FORCED)))
            }
            Wait::Disk { written, replicas, deadline, .. } => {
                let synced = (around.has_synced)(*written);
                let is_late = deadline.is_some_and(|deadline| deadline <= (around.now)());
                if is_late || synced && *replicas == 0 {
                    Outcome::Answer(Answer::Synced(synced.into()))
                } else if look == Look::TimeIsUp {
                    Outcome::WaitsFor(REPLICAS_POLL)
                } else {
                    Outcome::Waits
                }
            }
            Wait::Replicas { written, replicas, deadline, .. } => {
                let holding = (around.replicas_holding)(*written);
                if *replicas <= holding || deadline.is_some_and(|deadline| deadline <= (around.now)()) {
                    Outcome::Answer(Answer::Replicas(holding))
                } else if look == Look::TimeIsUp {
                    Outcome::WaitsFor(REPLICAS_POLL)
                } else {
                    Outcome::Waits
                }
            }
        }
    }
}

impl Answer {
    /// What the client gets, unless CLIENT REPLY leaves it out.
    pub fn into_reply(self, session: &mut Session) -> (Option<Served>, Afterwards) {
        let mut reply = Output::default();
        let mut afterwards = Afterwards::GoesOn;
        let mut condition = ReplyCondition::default();
        match self {
            Answer::Words(words) => reply.extend_from_slice(words),
            Answer::Synced(local) => write_synced(&mut reply.writer(session.version), local),
            Answer::Replicas(holding) => reply.writer(session.version).integer(holding as i64),
            Answer::Keys(Ending::Served(served)) => {
                if served.written.index > LogIndex::ZERO {
                    session.last_write = served.written;
                }
                Served { reply, condition, .. } = served;
            }
            Answer::Keys(Ending::Nothing(nothing)) => Served { reply, condition, .. } = nothing,
            Answer::Keys(Ending::Unblocked(error)) => reply.writer(session.version).error(error),
            Answer::Keys(Ending::Demoted(error)) => {
                reply.writer(session.version).error(error);
                afterwards = Afterwards::Closes;
            }
        }
        let is_told = !session.stall_is_muted;
        (is_told.then_some(Served { reply, condition, written: Position::ZERO }), afterwards)
    }
}

/// How long the first request of a connection may wait for the gate, however often it is tried again meanwhile.
#[derive(Debug, Default)]
pub struct GatePatience {
    until: Option<Monotonic>,
    next: Patience,
}

impl GatePatience {
    /// Of the request that is executed now.
    #[inline]
    pub fn take(&mut self) -> Patience {
        std::mem::take(&mut self.next)
    }

    /// The request is tried again, with this patience.
    pub fn retry(&mut self, patience: Patience) {
        self.next = patience;
    }

    /// Requests from `first` on have been tried.
    #[inline]
    pub fn note(&mut self, first: usize, end: &BatchEnd) {
        if first < end.next || !matches!(end.stop, Some(Stop::NotNow)) {
            self.until = None;
        }
    }

    /// How long the request still waits, which has not been executed.
    pub fn left(&mut self, now: Monotonic, grace: Duration) -> Duration {
        self.until.get_or_insert(now + grace).since(now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use keyward_proto::ids::Term;
    use keyward_replication::gate::{GateState, GateView};

    use super::super::clients::Client;
    use super::*;
    use crate::io::pause::PauseMode;

    fn at_ms(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn view(state: GateState) -> GateView {
        GateView {
            state,
            term: Term::new(1),
            commit: LogIndex::ZERO,
            lease_until: Monotonic::ZERO,
            writable: true,
            generation: 0,
            ended_commit: LogIndex::ZERO,
            ended_terms: 0,
            auto_commit: false,
            sending_term: Term::ZERO,
        }
    }

    /// 100 ms after the start, at the fifth event of the gate, when two replicas hold the log.
    fn surroundings(pause: &Pause) -> Surroundings<'_> {
        static GATE: LazyLock<Gate> = LazyLock::new(Gate::replicated);
        Surroundings {
            gate_events: 5,
            gate: &GATE,
            pause,
            replicas_holding: &|_| 2,
            has_synced: &|written| written.index <= LogIndex::new(4),
            now: &|| at_ms(100),
        }
    }

    /// What becomes of a wait then.
    fn look(wait: &Wait, look: Look, pause: &Pause) -> Outcome {
        wait.look(look, &surroundings(pause))
    }

    #[test]
    fn a_wait_ends_when_what_it_waits_for_has_come_or_its_time_is_up() {
        use Look::{TimeIsUp, Woken};
        let replicas = |replicas, deadline| Wait::Replicas {
            written: Position::ZERO,
            generation: 0,
            replicas,
            deadline,
        };
        let disk = |index, replicas, deadline| Wait::Disk {
            written: Position { term: Term::new(1), index: LogIndex::new(index) },
            generation: 0,
            replicas,
            deadline,
        };
        let of_ended_term =
            Wait::Replicas { written: Position::ZERO, generation: 1, replicas: 2, deadline: None };
        let ended = format!("Answer(Keys(Demoted({FORCED:?})))");
        for (wait, why, outcome) in [
            (Wait::Gate { seen: 5 }, Woken, "Waits"),
            (Wait::Gate { seen: 4 }, Woken, "Retry(Left)"),
            (Wait::Gate { seen: 4 }, TimeIsUp, "Retry(Exhausted)"),
            (Wait::Gate { seen: 5 }, TimeIsUp, "Retry(Exhausted)"),
            (Wait::Time(b"+OK\r\n"), Woken, "Waits"),
            (Wait::Time(b"1"), TimeIsUp, "Answer(Words([49]))"),
            (of_ended_term, Woken, &ended),
            (disk(4, 0, None), Woken, "Answer(Synced(1))"),
            (disk(5, 0, None), TimeIsUp, "WaitsFor(1ms)"),
            (disk(4, 1, Some(at_ms(101))), Woken, "Waits"),
            (disk(4, 1, Some(at_ms(100))), TimeIsUp, "Answer(Synced(1))"),
            (disk(5, 0, Some(at_ms(100))), TimeIsUp, "Answer(Synced(0))"),
            (replicas(2, None), Woken, "Answer(Replicas(2))"),
            (replicas(3, None), Woken, "Waits"),
            (replicas(3, None), TimeIsUp, "WaitsFor(1ms)"),
            (replicas(3, Some(at_ms(101))), TimeIsUp, "WaitsFor(1ms)"),
            (replicas(3, Some(at_ms(100))), Woken, "Answer(Replicas(2))"),
        ] {
            assert_eq!(format!("{:?}", look(&wait, why, &Pause::default())), outcome, "{wait:?} {why:?}");
        }
    }

    /// Between two roles a wait may begin in the generation of the next one, and nothing would ever end it.
    #[test]
    fn nobody_waits_at_a_replica_for_what_holds_a_write() {
        let pause = Pause::default();
        for (state, ends) in [
            (GateState::Primary, false),
            (GateState::Holding, false),
            (GateState::Undecided, false),
            (GateState::Loading, false),
            (GateState::Replica, true),
            (GateState::NoPrimary, true),
            (GateState::InDoubt, true),
        ] {
            let gate = Gate::replicated();
            gate.publish(&view(state), Monotonic::ZERO);
            let around = Surroundings { gate: &gate, ..surroundings(&pause) };
            let (written, generation, replicas, deadline) = (Position::ZERO, 0, 3, None);
            for wait in [
                Wait::Replicas { written, generation, replicas, deadline },
                Wait::Disk { written, generation, replicas, deadline },
            ] {
                let outcome = wait.look(Look::TimeIsUp, &around);
                assert_eq!(matches!(outcome, Outcome::Answer(_)), ends, "{state:?} {wait:?}");
            }
        }
    }

    #[test]
    fn a_pause_ends_with_its_time_or_early() {
        for (until, why, outcome) in [
            (101, Look::Woken, "Waits"),
            (100, Look::Woken, "Retry(Left)"),
            (101, Look::TimeIsUp, "Retry(Left)"),
        ] {
            let pause = Pause::default();
            pause.extend(at_ms(0), at_ms(until), PauseMode::All);
            assert_eq!(format!("{:?}", look(&Wait::Pause, why, &pause)), outcome, "{until} {why:?}");
        }
    }

    #[test]
    fn an_answer_is_told_unless_the_client_wants_none() {
        let reply = |answer: fn() -> Answer, is_muted| {
            let mut session = Session::new(Client::detached());
            session.stall_is_muted = is_muted;
            let (served, afterwards) = answer().into_reply(&mut session);
            let told = served.map(|served| String::from_utf8(served.reply.to_vec()).unwrap());
            (told.unwrap_or_default(), afterwards, session.last_write.index.get())
        };
        let served = || {
            let mut reply = Output::default();
            reply.extend_from_slice(b"$1\r\nv\r\n");
            let written = Position { term: Term::new(1), index: LogIndex::new(7) };
            let condition = ReplyCondition::of_entry(written.index, 1);
            Answer::Keys(Ending::Served(Served { reply, condition, written }))
        };
        use Afterwards::{Closes, GoesOn};
        type Case<'a> = (fn() -> Answer, &'a str, Afterwards, u64);
        let cases: [Case<'_>; 5] = [
            (|| Answer::Words(b"+OK\r\n"), "+OK\r\n", GoesOn, 0),
            (|| Answer::Replicas(2), ":2\r\n", GoesOn, 0),
            (served, "$1\r\nv\r\n", GoesOn, 7),
            (|| Answer::Keys(Ending::Unblocked("UNBLOCKED x")), "-UNBLOCKED x\r\n", GoesOn, 0),
            (|| Answer::Keys(Ending::Demoted("UNBLOCKED y")), "-UNBLOCKED y\r\n", Closes, 0),
        ];
        for (answer, told, afterwards, last_write) in cases {
            assert_eq!(reply(answer, false), (told.into(), afterwards, last_write));
            assert_eq!(reply(answer, true), (String::new(), afterwards, last_write));
        }
    }

    #[test]
    fn patience_is_that_of_one_request() {
        let end = |next, stop| BatchEnd { next, stop, condition: ReplyCondition::default(), appended: false };
        let grace = Duration::from_millis(500);
        let left = |patience: &mut GatePatience, now| patience.left(at_ms(now), grace).as_millis();
        let mut patience = GatePatience::default();
        assert_eq!(left(&mut patience, 0), 500);
        patience.note(0, &end(0, Some(Stop::NotNow)));
        assert_eq!(left(&mut patience, 200), 300);
        patience.note(0, &end(1, Some(Stop::NotNow)));
        assert_eq!(left(&mut patience, 300), 500);
        patience.note(0, &end(0, None));
        assert_eq!(left(&mut patience, 1000), 500);
        patience.retry(Patience::Exhausted);
        assert_eq!((patience.take(), patience.take()), (Patience::Exhausted, Patience::Left));
    }
}
