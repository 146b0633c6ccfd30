//! What clients ask for: requests in RESP, and what a single copy of the data answers.

use bytes::{Bytes, BytesMut};

use keyward_proto::resp::reply::write_command;
use rand::Rng;
use rand::rngs::StdRng;

use super::keyspace::{Change, Key, TAIL_LEN, Values};
use super::{Nanos, ms};
use crate::resp_client::{Frame, split_frame};

/// Of a large value.
const LARGE_BYTES: usize = 8 << 10;

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Set(u64),
    /// With many zeros before it.
    SetLarge(u64),
    Get,
    Increment,
    GetCounter,
    Append(u64),
    GetTail,
    Push(u64),
    Pop,
    /// BLPOP for so many milliseconds; zero: as long as it takes.
    AwaitAndPop(u64),
    /// SET of the register in a transaction that succeeds only if it has not changed since it was watched; it had the
    /// first value then.
    Replace(Option<u64>, u64),
    /// With an expiry after so many milliseconds.
    SetVolatile(u64, u64),
    GetVolatile,
    /// XADD.
    Enqueue(u64),
    /// XREADGROUP of the next entry, which stays pending.
    Deliver,
    /// The same in a script, which makes the group if it is not there, and acknowledges the entry.
    Work,
    GetPending,
}

/// Takes the next entry of a stream for good.
const WORK: &str = "redis.pcall('XGROUP', 'CREATE', KEYS[1], 'g', '0', 'MKSTREAM') \
    local read = redis.call('XREADGROUP', 'GROUP', 'g', 'worker', 'COUNT', '1', 'STREAMS', KEYS[1], '>') \
    if not read then return false end \
    local entry = read[1][2][1] \
    redis.call('XACK', KEYS[1], 'g', entry[1]) \
    return entry[2][2]";

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    Nil,
    Number(u64),
    Numbers(Vec<u64>),
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Answers(Vec<Answer>),
    /// An error: nothing was done. With the node to which it was sent on.
    NotExecuted(Option<usize>),
}

/// Where an operation may be executed, and what is said before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prelude {
    /// At the primary.
    None,
    /// At any node: READONLY.
    ReadOnly,
    /// WATCH of the register.
    Watch,
}

/// One command, or several in a MULTI, on the keys of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    prelude: Prelude,
    steps: Vec<Step>,
    in_transaction: bool,
}

impl Operation {
    pub(super) fn random(rng: &mut StdRng, number: u64) -> Operation {
        let one = |step| Operation { prelude: Prelude::None, steps: vec![step], in_transaction: false };
        let all = |steps: &[Step]| Operation {
            prelude: Prelude::None,
            steps: steps.to_vec(),
            in_transaction: true,
        };
        match rng.random_range(0..24) {
            0 => one(Step::Set(number)),
            1 => one(Step::Increment),
            2 | 3 => one(Step::Append(number)),
            4 => one(Step::Get),
            5 => one(Step::GetCounter),
            6 | 7 => one(Step::GetTail),
            8 | 9 => one(Step::Push(number)),
            10 if rng.random_bool(0.2) => one(Step::AwaitAndPop(0)),
            10 => one(Step::AwaitAndPop(rng.random_range(5..150))),
            16 | 17 | 23 => Operation { prelude: Prelude::Watch, ..one(Step::Get) },
            11 => one(Step::SetVolatile(number, rng.random_range(5..300))),
            12 | 13 => one(Step::GetVolatile),
            18 | 19 => one(Step::Enqueue(number)),
            20 => one(Step::Deliver),
            21 => one(Step::Work),
            22 => one(Step::GetPending),
            14 => all(&[Step::Set(number), Step::Increment, Step::Append(number)]),
            _ => all(&[
                Step::Set(number),
                Step::Append(number),
                Step::Pop,
                Step::Get,
                Step::GetCounter,
                Step::GetTail,
            ]),
        }
    }

    /// A value that takes its time on narrow lines.
    pub(super) fn set_large(number: u64) -> Operation {
        Operation { prelude: Prelude::None, steps: vec![Step::SetLarge(number)], in_transaction: false }
    }

    /// RPUSH of its number.
    pub(super) fn append(number: u64) -> Operation {
        Operation { prelude: Prelude::None, steps: vec![Step::Append(number)], in_transaction: false }
    }

    /// What any node may answer that does not hide what others have read.
    pub(super) fn read_anywhere(rng: &mut StdRng) -> Operation {
        let steps = match rng.random_range(0..4) {
            0 => vec![Step::Get],
            1 => vec![Step::GetTail],
            _ => vec![Step::Get, Step::GetCounter, Step::GetTail],
        };
        Operation { prelude: Prelude::ReadOnly, in_transaction: 1 < steps.len(), steps }
    }

    /// As [`Operation::read_anywhere`], in one command.
    pub(super) fn read_one_anywhere(rng: &mut StdRng) -> Operation {
        let step = if rng.random_bool(0.5) { Step::Get } else { Step::GetTail };
        Operation { prelude: Prelude::ReadOnly, steps: vec![step], in_transaction: false }
    }

    /// What follows a [`Prelude::Watch`] that was answered with this.
    pub(super) fn replace(watched: &Answer, number: u64) -> Operation {
        let before = if let Answer::Number(value) = watched { Some(*value) } else { None };
        Operation { prelude: Prelude::None, steps: vec![Step::Replace(before, number)], in_transaction: true }
    }

    pub(super) fn is_for_any_node(&self) -> bool {
        self.prelude == Prelude::ReadOnly
    }

    pub(super) fn watches(&self) -> bool {
        self.prelude == Prelude::Watch
    }

    /// Whether these answers say that a watched key had changed: nothing was done.
    pub(super) fn was_in_vain(&self, answers: &[Answer]) -> bool {
        matches!((&self.steps[..], answers), ([Step::Replace(..)], [Answer::Nil]))
    }

    pub(super) fn only_reads(&self) -> bool {
        self.steps.iter().all(|s| {
            matches!(s, Step::Get | Step::GetCounter | Step::GetTail | Step::GetVolatile | Step::GetPending)
        })
    }

    /// The whole pipeline of requests.
    pub(super) fn requests(&self, slot: usize) -> Bytes {
        let mut out = BytesMut::new();
        match self.prelude {
            Prelude::None => {}
            Prelude::ReadOnly => write_command(&mut out, &[b"READONLY"]),
            Prelude::Watch => {
                write_command(&mut out, &[b"WATCH", Key::Register.name(slot).as_bytes()]);
            }
        }
        if self.in_transaction {
            write_command(&mut out, &[b"MULTI"]);
        }
        self.steps.iter().for_each(|step| step.write(slot, &mut out));
        if self.in_transaction {
            write_command(&mut out, &[b"EXEC"]);
        }
        out.freeze()
    }

    /// Understands the replies to all requests.
    pub(super) fn told(&self, replies: &[u8]) -> Told {
        let mut buffer = BytesMut::from(replies);
        let mut frames = Vec::new();
        while let Some(frame) = split_frame(&mut buffer).expect("a node writes RESP") {
            frames.push(frame);
        }
        let prelude = usize::from(self.prelude != Prelude::None);
        let expected = prelude + if self.in_transaction { self.steps.len() + 2 } else { 1 };
        assert!(frames.len() <= expected && buffer.is_empty(), "a reply to each request: {frames:?}");
        let last = frames.last();
        let Some(last) = last.filter(|l| frames.len() == expected && !l.is_error() && !frames[0].is_error())
        else {
            // The connection may have been closed after an error.
            return Told::NotExecuted(frames.iter().find_map(moved_to));
        };
        if matches!(self.steps[..], [Step::Replace(..)]) && last.is_null() {
            return Told::Answers(vec![Answer::Nil]);
        }
        if self.in_transaction && last.is_null() {
            // Something is watched still of an operation that was not answered as a whole.
            return Told::NotExecuted(None);
        }
        let answers = if self.in_transaction { last.items.as_slice() } else { &frames[prelude..] };
        assert_eq!(answers.len(), self.steps.len(), "an answer to each command");
        Told::Answers(self.steps.iter().zip(answers).map(|(step, frame)| step.answer(frame)).collect())
    }

    /// What a single copy answers, and how that changes it.
    pub(super) fn execute(&self, values: &mut Values) -> Vec<Answer> {
        self.steps.iter().map(|step| step.execute(values)).collect()
    }

    /// Whether it may wait on purpose.
    pub(super) fn waits(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::AwaitAndPop(_)))
    }

    /// How long.
    pub(super) fn wait(&self) -> Nanos {
        self.steps.iter().map(|s| if let Step::AwaitAndPop(time) = s { ms(*time) } else { 0 }).sum()
    }
}

/// `-MOVED slot node-number:port`: the port is the node's number.
fn moved_to(frame: &Frame) -> Option<usize> {
    let text = frame.string();
    let (_, port) = text.strip_prefix("MOVED ")?.rsplit_once(':')?;
    port.parse().ok()
}

impl Step {
    fn write(self, slot: usize, out: &mut BytesMut) {
        let text = |number: u64| number.to_string().into_bytes();
        let (name, key, arguments): (&str, Key, Vec<Vec<u8>>) = match self {
            Step::Set(value) | Step::Replace(_, value) => ("SET", Key::Register, vec![text(value)]),
            Step::SetLarge(value) => {
                ("SET", Key::Register, vec![format!("{value:0LARGE_BYTES$}").into_bytes()])
            }
            Step::Get => ("GET", Key::Register, vec![]),
            Step::Increment => ("INCR", Key::Counter, vec![]),
            Step::GetCounter => ("GET", Key::Counter, vec![]),
            Step::Append(value) => ("RPUSH", Key::List, vec![text(value)]),
            Step::GetTail => ("LRANGE", Key::List, vec![format!("-{TAIL_LEN}").into(), b"-1".into()]),
            Step::Push(value) => ("RPUSH", Key::Queue, vec![text(value)]),
            Step::Pop => ("LPOP", Key::Queue, vec![]),
            Step::AwaitAndPop(time) => ("BLPOP", Key::Queue, vec![format!("0.{time:03}").into()]),
            Step::SetVolatile(value, time) => {
                ("SET", Key::Volatile, vec![text(value), b"PX".into(), text(time)])
            }
            Step::GetVolatile => ("GET", Key::Volatile, vec![]),
            Step::Enqueue(value) => ("XADD", Key::Stream, vec![b"*".into(), b"value".into(), text(value)]),
            Step::GetPending => ("XPENDING", Key::Stream, vec![b"g".into()]),
            Step::Deliver => {
                let key = Key::Stream.name(slot);
                let words = ["XREADGROUP", "GROUP", "g", "reader", "COUNT", "1", "STREAMS", &key, ">"];
                return write_command(out, &words.map(str::as_bytes));
            }
            Step::Work => {
                let key = Key::Stream.name(slot);
                return write_command(out, &["EVAL", WORK, "1", &key].map(str::as_bytes));
            }
        };
        let key = key.name(slot);
        let mut words: Vec<&[u8]> = vec![name.as_bytes(), key.as_bytes()];
        words.extend(arguments.iter().map(Vec::as_slice));
        write_command(out, &words);
    }

    fn answer(self, frame: &Frame) -> Answer {
        let number = |frame: &Frame| frame.integer().and_then(|n| u64::try_from(n).ok()).expect("a number");
        match self {
            Step::Set(_) | Step::SetLarge(_) | Step::SetVolatile(..) | Step::Replace(..) => {
                assert_eq!(frame.text(), b"OK");
                Answer::Ok
            }
            Step::Enqueue(_) => Answer::Ok,
            _ if frame.is_null() => Answer::Nil,
            Step::GetPending => Answer::Number(number(&frame.items[0])),
            // One stream, its name and its entries; one entry, its ID and its fields; the second is the value.
            Step::Deliver => Answer::Number(number(&frame.items[0].items[1].items[0].items[1].items[1])),
            Step::GetTail => Answer::Numbers(frame.items.iter().map(number).collect()),
            // The key comes first.
            Step::AwaitAndPop(_) => Answer::Number(number(&frame.items[1])),
            _ => Answer::Number(number(frame)),
        }
    }

    fn execute(self, values: &mut Values) -> Answer {
        let optional = |value: Option<u64>| value.map_or(Answer::Nil, Answer::Number);
        let (first, entry) = (values.queue.first().copied(), values.stream.first().copied());
        let register = values.register;
        self.changes(values).for_each(|change| values.apply(change));
        match self {
            Step::Set(_) | Step::SetLarge(_) | Step::SetVolatile(..) | Step::Enqueue(_) => Answer::Ok,
            Step::Replace(before, _) => {
                if register == before {
                    Answer::Ok
                } else {
                    Answer::Nil
                }
            }
            Step::Increment => Answer::Number(values.counter),
            Step::Append(_) => Answer::Number(values.list_len),
            Step::Push(_) => Answer::Number(values.queue.len() as u64),
            Step::Pop | Step::AwaitAndPop(_) => optional(first),
            Step::Get => optional(values.register),
            Step::GetCounter => optional((0 < values.counter).then_some(values.counter)),
            Step::GetTail => Answer::Numbers(values.tail.clone()),
            Step::GetVolatile => optional(values.volatile),
            Step::Deliver | Step::Work => optional(entry),
            Step::GetPending => Answer::Number(values.pending),
        }
    }

    /// What it does to these values.
    fn changes(self, values: &Values) -> impl Iterator<Item = Change> + use<> {
        let deliver = || (!values.stream.is_empty()).then_some(Change::Deliver);
        let (first, second) = match self {
            Step::Set(value) | Step::SetLarge(value) => (Some(Change::Set(value)), None),
            Step::Replace(before, value) => ((values.register == before).then_some(Change::Set(value)), None),
            Step::SetVolatile(value, _) => (Some(Change::SetVolatile(value)), None),
            Step::Increment => (Some(Change::Increment), None),
            Step::Append(value) => (Some(Change::Append(value)), None),
            Step::Push(value) => (Some(Change::Push(value)), None),
            Step::Pop | Step::AwaitAndPop(_) => ((!values.queue.is_empty()).then_some(Change::Pop), None),
            Step::Enqueue(value) => (Some(Change::Enqueue(value)), None),
            Step::Deliver => (deliver(), None),
            Step::Work => (deliver(), deliver().map(|_| Change::Acknowledge)),
            Step::Get | Step::GetCounter | Step::GetTail | Step::GetVolatile | Step::GetPending => {
                (None, None)
            }
        };
        first.into_iter().chain(second)
    }
}
