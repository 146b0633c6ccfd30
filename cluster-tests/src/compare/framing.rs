//! Damaged bytes, sent to Keyward and the real Valkey: both must answer with the same bytes, and end the connection
//! or go on alike.
//!
//! A case is a pipeline of valid requests, some of its bytes damaged, cut into pieces at any place. The pieces arrive
//! together or one by one; that a server has taken a piece is seen in its CLIENT LIST, so nothing depends on time.
//! Half of the cases go to servers with a password, whose limits for strangers end and return in the middle.
#![allow(clippy::disallowed_methods, reason = "a shell: talks to servers for a given time")]

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use keyward_proto::resp::request::INLINE_MAX;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::pair::Pair;
use crate::processes::wait_until;
use crate::resp_client::{Connection, Frame, REPLY_DEADLINE, encode, split_frame};

/// `requirepass` of the guarded pair.
pub const PASSWORD: &str = "secret";

/// Shrinking stops here even if more could go.
const SHRINK_DEADLINE: Duration = Duration::from_secs(20);
/// How long a server may take to end a connection that the other one has ended.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// Two pairs of servers: one that serves anybody, one that is given [`PASSWORD`]. All of them execute with one thread.
#[derive(Clone, Debug)]
pub struct Pairs {
    pub open: Pair,
    pub guarded: Pair,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Campaign {
    pub seed: u64,
    /// The number of the first case, to run one alone.
    pub first: u64,
    pub cases: u64,
    /// Stop after so many differences.
    pub differences_max: usize,
    /// Start no further case after this time.
    pub time_limit: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub cases: u64,
    /// How often Valkey ended the connection: a comparison in which it never does compares little.
    pub closed: u64,
    /// A report per difference, shrunk.
    pub reports: Vec<String>,
}

impl Campaign {
    /// Runs all cases.
    ///
    /// # Errors
    /// A server cannot be talked to.
    pub fn run(&self, pairs: &Pairs) -> Result<Outcome, String> {
        let start = Instant::now();
        let mut arenas = [Arena::open(&pairs.open, None)?, Arena::open(&pairs.guarded, Some(PASSWORD))?];
        let mut outcome = Outcome::default();
        for number in self.first..self.first + self.cases {
            if self.time_limit.is_some_and(|limit| limit <= start.elapsed()) {
                break;
            }
            let case = Case::generate(self.seed, number);
            let arena = &mut arenas[usize::from(case.guarded)];
            let verdict = arena.run(&case)?;
            outcome.cases += 1;
            outcome.closed += u64::from(verdict.theirs_closed);
            if let Some(difference) = verdict.difference {
                outcome.reports.push(self.report(arena, number, case, difference)?);
                if self.differences_max <= outcome.reports.len() {
                    break;
                }
            }
        }
        Ok(outcome)
    }

    fn report(&self, arena: &mut Arena, number: u64, case: Case, found: String) -> Result<String, String> {
        let (case, found) = shrink(arena, case, found)?;
        let mut text = String::new();
        let guarded = if case.guarded { ", with a password" } else { "" };
        writeln!(text, "Difference in case {number} of seed {}{guarded}, shrunk to:", self.seed)
            .expect("a string");
        for piece in case.pieces() {
            let shown = piece.escape_ascii().to_string();
            let shown: String = shown.chars().take(2000).collect();
            writeln!(text, "    \"{shown}\" ({} bytes)", piece.len()).expect("a string");
        }
        writeln!(text, "  sent {:?}\n{found}", case.sending).expect("a string");
        write!(
            text,
            "  reproduce: cargo run -p cluster-tests --bin compare -- --framing --seed {} --first {number} \
             --sequences 1",
            self.seed
        )
        .expect("a string");
        Ok(text)
    }
}

/// How the pieces are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// One after another without waiting: they arrive as they are or joined.
    Hurried,
    /// Each when the server has taken the one before it.
    Stepwise,
}

/// What is sent on one connection.
#[derive(Clone, Debug)]
struct Case {
    guarded: bool,
    /// It has words of HTTP, which end the connection.
    http: bool,
    bytes: Vec<u8>,
    /// Where it is cut, in ascending order.
    cuts: Vec<usize>,
    sending: Sending,
}

impl Case {
    fn generate(seed: u64, number: u64) -> Self {
        let mut dice = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
        let guarded = dice.random_bool(0.5);
        let mut bytes = Vec::new();
        if guarded && dice.random_bool(0.7) {
            let words = greeting(&mut dice);
            encode_somehow(&mut dice, &words, &mut bytes);
        }
        let mut http = false;
        for _ in 0..dice.random_range(1..12) {
            if dice.random_bool(0.02) {
                http = true;
                let words: &[&str] = if dice.random_bool(0.5) { &["POST", "/"] } else { &["Host:", "a"] };
                let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
                encode_somehow(&mut dice, &words, &mut bytes);
            } else {
                push_request(&mut dice, &mut bytes);
            }
        }
        for _ in 0..[0, 1, 1, 1, 2, 3].choose(&mut dice).copied().unwrap_or(1) {
            damage(&mut dice, &mut bytes);
        }
        let count = dice.random_range(0..4);
        let mut cuts: Vec<usize> = (0..count).map(|_| dice.random_range(0..=bytes.len())).collect();
        cuts.sort_unstable();
        let sending = if dice.random_bool(0.5) { Sending::Hurried } else { Sending::Stepwise };
        Case { guarded, http, bytes, cuts, sending }
    }

    fn pieces(&self) -> Vec<&[u8]> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for end in self.cuts.iter().copied().chain([self.bytes.len()]) {
            if start < end {
                pieces.push(&self.bytes[start..end]);
                start = end;
            }
        }
        pieces
    }

    fn without(&self, start: usize, end: usize) -> Self {
        let mut case = self.clone();
        case.bytes.drain(start..end);
        for cut in &mut case.cuts {
            *cut = if *cut < start { *cut } else { start.max(cut.saturating_sub(end - start)) };
        }
        case
    }

    fn contains(&self, word: &[u8]) -> bool {
        self.bytes.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
    }
}

/// Leaves out cuts and bytes as long as there is a difference.
fn shrink(arena: &mut Arena, mut case: Case, mut found: String) -> Result<(Case, String), String> {
    let start = Instant::now();
    let mut differs = |candidate: &Case, found: &mut String| -> Result<bool, String> {
        let difference = arena.run(candidate)?.difference;
        Ok(difference.map(|difference| *found = difference).is_some())
    };
    let whole = Case { cuts: Vec::new(), ..case.clone() };
    if differs(&whole, &mut found)? {
        case = whole;
    }
    let mut size = case.bytes.len().div_ceil(2);
    while 0 < size {
        let mut at = 0;
        let mut shrunk = false;
        while at < case.bytes.len() && start.elapsed() < SHRINK_DEADLINE {
            let candidate = case.without(at, (at + size).min(case.bytes.len()));
            if differs(&candidate, &mut found)? {
                case = candidate;
                shrunk = true;
            } else {
                at += size;
            }
        }
        // Once more at the finest size while that still finds something to leave out.
        if SHRINK_DEADLINE <= start.elapsed() {
            break;
        }
        size = if size == 1 && shrunk { 1 } else { size / 2 };
    }
    Ok((case, found))
}

// ---------------------------------------------------------------------- what is sent

const KEYS: [&str; 4] = ["k", "key2", "{t}a", "l"];

fn word(dice: &mut SmallRng) -> Vec<u8> {
    match dice.random_range(0..20) {
        0 => Vec::new(),
        1 => b"a\r\nb".to_vec(),
        2 => b"\0".to_vec(),
        3 => vec![b'y'; dice.random_range(90..1100)],
        4 => vec![b'z'; [16_384, 16_385, 40_000].choose(dice).copied().unwrap_or(1)],
        5 => b"*1".to_vec(),
        6 => b"\xfe\"'\\".to_vec(),
        _ => vec![b'x'; dice.random_range(1..12)],
    }
}

fn greeting(dice: &mut SmallRng) -> Vec<Vec<u8>> {
    let words: &[&str] = match dice.random_range(0..6) {
        0 => &["AUTH", "wrong"],
        1 => &["HELLO", "3", "AUTH", "default", PASSWORD],
        2 => &["HELLO", "2", "AUTH", "default", "wrong"],
        3 => &["AUTH", "default", PASSWORD],
        _ => &["AUTH", PASSWORD],
    };
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn push_request(dice: &mut SmallRng, bytes: &mut Vec<u8>) {
    let fixed: &[&str] = match dice.random_range(0..40) {
        0 => {
            let empty: &[&str] = &["*0\r\n", "*-1\r\n", "\r\n", "\n", " \r\n", "\x0b\n"];
            return bytes.extend(empty.choose(dice).copied().unwrap_or_default().bytes());
        }
        1 => &["MULTI"],
        2 => &["EXEC"],
        3 => &["DISCARD"],
        4 => &["SELECT", "1"],
        5 => &["RESET"],
        6 => &["QUIT"],
        7 => &["CLIENT", "REPLY", "SKIP"],
        8 => &["CLIENT", "REPLY", "OFF"],
        9 => &["CLIENT", "REPLY", "ON"],
        10 => &["SUBSCRIBE", "c"],
        11 => &["UNSUBSCRIBE", "c"],
        12 => &["GET"],
        13 => &["HELLO", "3"],
        14 | 15 => {
            let words = greeting(dice);
            return encode_somehow(dice, &words, bytes);
        }
        16..20 => &["PING"],
        _ => &[],
    };
    let mut words: Vec<Vec<u8>> = fixed.iter().map(|word| word.as_bytes().to_vec()).collect();
    if words.is_empty() {
        let (name, count): (&str, usize) = match dice.random_range(0..10) {
            0 => ("ECHO", 1),
            1 => ("SET", 2),
            2 => ("APPEND", 2),
            3 => ("GET", 1),
            4 => ("INCR", 1),
            5 => ("RPUSH", dice.random_range(2..16)),
            6 => ("LRANGE", 0),
            7 => ("MGET", dice.random_range(1..14)),
            8 => ("NOSUCH", dice.random_range(0..3)),
            _ => ("PING", 1),
        };
        words.push(name.into());
        let has_key = !matches!(name, "ECHO" | "PING");
        for number in 0..count {
            if has_key && (number == 0 || name == "MGET") {
                words.push(KEYS.choose(dice).copied().unwrap_or_default().into());
            } else {
                words.push(word(dice));
            }
        }
        if name == "LRANGE" {
            words.extend([b"l".to_vec(), b"0".to_vec(), b"-1".to_vec()]);
        }
    }
    encode_somehow(dice, &words, bytes);
}

fn encode_somehow(dice: &mut SmallRng, words: &[Vec<u8>], bytes: &mut Vec<u8>) {
    if dice.random_bool(0.7) {
        return encode(words, bytes);
    }
    for (number, word) in words.iter().enumerate() {
        if 0 < number {
            let spaces = [" ", " ", "  ", "\t", " \x0b", " \x0c ", "\r"];
            bytes.extend(spaces.choose(dice).copied().unwrap_or(" ").bytes());
        }
        let plain = !word.is_empty() && word.iter().all(u8::is_ascii_alphanumeric);
        match dice.random_range(0..6) {
            0 => write_quoted(bytes, word),
            // Quotes around a part of it.
            1 if plain => {
                let (left, right) = word.split_at(dice.random_range(0..=word.len()));
                bytes.extend(left);
                write_quoted(bytes, right);
            }
            2 if plain => {
                bytes.push(b'\'');
                bytes.extend(word);
                bytes.push(b'\'');
            }
            _ if plain => bytes.extend(word),
            _ => write_quoted(bytes, word),
        }
    }
    bytes.extend(if dice.random_bool(0.8) { &b"\r\n"[..] } else { b"\n" });
}

fn write_quoted(bytes: &mut Vec<u8>, word: &[u8]) {
    bytes.push(b'"');
    for byte in word {
        match byte {
            b'"' | b'\\' => bytes.extend([b'\\', *byte]),
            b' '..=b'~' => bytes.push(*byte),
            _ => bytes.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    bytes.push(b'"');
}

/// Instead of a length, or beside it.
const LENGTHS: [&str; 18] = [
    "-1",
    "-2",
    "0",
    "-0",
    "",
    "x",
    "1048576",
    "1048577",
    "2147483647",
    "2147483648",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "99999999999999999999",
    "536870912",
    "536870913",
    "1e3",
    "16385",
];

fn damage(dice: &mut SmallRng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = dice.random_range(0..bytes.len());
    let some_byte = |dice: &mut SmallRng| {
        let telling = b"\r\n\0*$0123456789\"'\\ \t\x0b\x0c+-:_x\xfe";
        // Not 0xff, which Valkey loses in inline requests.
        if dice.random_bool(0.8) {
            telling.choose(dice).copied().unwrap_or(b'x')
        } else {
            dice.random_range(0..=0xfe)
        }
    };
    match dice.random_range(0..12) {
        0 => bytes[at] ^= 1 << dice.random_range(0..8),
        1 => bytes.insert(at, some_byte(dice)),
        2 => drop(bytes.remove(at)),
        3 => bytes[at] = some_byte(dice),
        4 => drop(bytes.drain(at..bytes.len().min(at + dice.random_range(1..20)))),
        5 => {
            let part = bytes[at..bytes.len().min(at + dice.random_range(1..40))].to_vec();
            bytes.splice(at..at, part);
        }
        6 => bytes.truncate(at),
        7 | 8 => {
            let is_end = |at: &usize| matches!(bytes[*at], b'\r' | b'\n');
            let ends: Vec<usize> = (0..bytes.len()).filter(is_end).collect();
            let Some(&at) = ends.choose(dice) else { return };
            match dice.random_range(0..5) {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, bytes[at]),
                2 => bytes[at] = if bytes[at] == b'\r' { b'\n' } else { b'\r' },
                3 => bytes[at] = some_byte(dice),
                _ => bytes.insert(at, some_byte(dice)),
            }
        }
        9 if dice.random_bool(0.1) => {
            // About as long as a line may be.
            let length = if dice.random_bool(0.5) { INLINE_MAX - dice.random_range(2..9) } else { 300_000 };
            let start = ["", "*", "$", "\"", "PING "].choose(dice).copied().unwrap_or_default();
            let filler = [b'a', b'1', b' '].choose(dice).copied().unwrap_or(b'a');
            let mut line = b"\r\n".to_vec();
            line.extend(start.bytes());
            line.resize(length, filler);
            line.extend(b"\r\n");
            bytes.splice(at..at, line);
        }
        _ => damage_length(dice, bytes),
    }
}

fn damage_length(dice: &mut SmallRng, bytes: &mut Vec<u8>) {
    let starts_line = |at: &usize| matches!(bytes[*at], b'*' | b'$') && (*at == 0 || bytes[*at - 1] == b'\n');
    let lines: Vec<usize> = (0..bytes.len()).filter(starts_line).collect();
    let Some(&start) = lines.choose(dice) else { return };
    let digits = bytes[start + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = start + 1 + digits;
    let old = String::from_utf8_lossy(&bytes[start + 1..end]).into_owned();
    let number = old.parse::<u64>().unwrap_or(0);
    let new = match dice.random_range(0..10) {
        0 => number.saturating_sub(1).to_string(),
        1 => (number + 1).to_string(),
        2 => format!("0{old}"),
        3 => format!("+{old}"),
        4 => format!("{old} "),
        5 => format!(" {old}"),
        6 => (number + dice.random_range(2..20)).to_string(),
        _ => LENGTHS.choose(dice).copied().unwrap_or_default().to_owned(),
    };
    bytes.splice(start + 1..end, new.bytes());
}

// ---------------------------------------------------------------------- how it is sent and what comes back

/// A pair of servers with a connection to each that looks after the ones under test.
struct Arena {
    ours: Side,
    theirs: Side,
}

struct Verdict {
    theirs_closed: bool,
    difference: Option<String>,
}

impl Arena {
    fn open(pair: &Pair, password: Option<&str>) -> Result<Self, String> {
        Ok(Self { ours: Side::open(&pair.ours, password)?, theirs: Side::open(&pair.theirs, password)? })
    }

    fn run(&mut self, case: &Case) -> Result<Verdict, String> {
        let (mut ours, mut theirs) = (self.ours.connect()?, self.theirs.connect()?);
        for piece in case.pieces() {
            theirs.send(piece);
            ours.send(piece);
            if case.sending == Sending::Stepwise {
                self.theirs.wait_until_taken(&mut theirs)?;
                self.ours.wait_until_taken(&mut ours)?;
            }
        }
        self.theirs.wait_until_done(&mut theirs)?;
        self.ours.wait_until_done(&mut ours)?;
        if ours.has_ended() || theirs.has_ended() {
            for talk in [&mut ours, &mut theirs] {
                talk.read_to_end(CLOSE_DEADLINE);
            }
        }
        let closed = (ours.has_ended(), theirs.has_ended());
        for talk in [&mut ours, &mut theirs] {
            talk.finish();
        }
        let replies = (ours.replies(), theirs.replies());
        let equal = closed.0 == closed.1 && replies.0 == replies.1;
        let difference = (!equal && !is_known(case, closed, &replies.0, &replies.1)).then(|| {
            let show = |closed: bool, replies: &[u8]| {
                let shown: String = replies.escape_ascii().to_string().chars().take(2000).collect();
                format!("{}: {shown}", if closed { "closed" } else { "open" })
            };
            format!("    ours:   {}\n    theirs: {}", show(closed.0, &replies.0), show(closed.1, &replies.1))
        });
        Ok(Verdict { theirs_closed: closed.1, difference })
    }
}

/// Where Keyward is not the same on purpose, or Valkey by chance.
fn is_known(case: &Case, (ours_closed, theirs_closed): (bool, bool), ours: &[u8], theirs: &[u8]) -> bool {
    // Valkey drops the replies that it has not yet sent; how many these are is a matter of when they came.
    if case.http && ours_closed && theirs_closed && (ours.starts_with(theirs) || theirs.starts_with(ours)) {
        return true;
    }
    // A line somewhat longer than is allowed gets through if its end has come when it is looked at.
    if case.bytes.split(|byte| *byte == b'\n').any(|line| (INLINE_MAX..200_000).contains(&line.len())) {
        return true;
    }
    // What is behind RESET in one read Valkey has in part looked at under the limits of those who have authenticated.
    let common = ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count();
    let refused = |replies: &[u8]| {
        // The two replies begin alike.
        let line = replies[..common].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        replies[line..].starts_with(b"-ERR Protocol error: unauthenticated")
    };
    case.guarded && case.contains(b"reset") && (refused(ours) || refused(theirs))
}

/// A server and the connection that looks after others.
struct Side {
    addr: String,
    control: Connection,
}

impl Side {
    fn open(addr: &str, password: Option<&str>) -> Result<Self, String> {
        let mut control = Connection::connect(addr).map_err(|error| error.to_string())?;
        if let Some(password) = password {
            // It has connected while there was none, or is refused and authenticates.
            for command in [&["AUTH", password][..], &["CONFIG", "SET", "requirepass", password]] {
                control.call(command).map_err(|error| error.to_string())?;
            }
        }
        Ok(Self { addr: addr.to_owned(), control })
    }

    /// A new connection, which the server knows of, to an empty keyspace.
    fn connect(&mut self) -> Result<Talk, String> {
        self.control.call(&["FLUSHALL"]).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(&self.addr).map_err(|error| error.to_string())?;
        let prepare = || {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(REPLY_DEADLINE))?;
            stream.local_addr()
        };
        let name = prepare().map_err(|error| error.to_string())?.to_string();
        let talk = Talk { stream, name, sent: 0, received: Vec::new(), end: End::Open };
        let mut known = Ok(None);
        let appears = wait_until(REPLY_DEADLINE, || {
            known = self.status(&talk);
            !matches!(known, Ok(None))
        });
        known?;
        if appears { Ok(talk) } else { Err(format!("{} does not accept", self.addr)) }
    }

    /// The bytes taken, and whether the connection is only to be closed; `None` if it is no more.
    fn status(&mut self, talk: &Talk) -> Result<Option<(u64, bool)>, String> {
        let list = self.control.call(&["CLIENT", "LIST"]).map_err(|error| error.to_string())?.string();
        let Some(line) = list.lines().find(|line| line.contains(&format!(" addr={} ", talk.name))) else {
            return Ok(None);
        };
        let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
        let taken = field("tot-net-in=")
            .and_then(|taken| taken.parse().ok())
            .ok_or("CLIENT LIST has no tot-net-in")?;
        Ok(Some((taken, field("flags=").is_some_and(|flags| flags.contains(['c', 'A'])))))
    }

    fn wait_until_taken(&mut self, talk: &mut Talk) -> Result<(), String> {
        let mut failure = None;
        let taken = wait_until(REPLY_DEADLINE, || {
            talk.read_what_is_there();
            if talk.has_ended() {
                return true;
            }
            match self.status(talk) {
                Ok(None) => {
                    talk.read_to_end(REPLY_DEADLINE);
                    true
                }
                Ok(Some((taken, closing))) => talk.sent <= taken || closing,
                Err(error) => {
                    failure = Some(error);
                    true
                }
            }
        });
        match failure {
            Some(error) => Err(error),
            None if !taken => Err(format!("{} does not read what it was sent", self.addr)),
            None => Ok(()),
        }
    }

    /// All is taken, executed and answered, and the connection closed if it is going to be.
    fn wait_until_done(&mut self, talk: &mut Talk) -> Result<(), String> {
        self.wait_until_taken(talk)?;
        // A server that has only one thread comes to these after it has sent what it had to send.
        for _ in 0..2 {
            self.control.call(&["PING"]).map_err(|error| error.to_string())?;
        }
        if !talk.has_ended() && matches!(self.status(talk)?, Some((_, true))) {
            // Valkey closes when it has sent a reply; one that CLIENT REPLY leaves out it never sends.
            talk.end = End::Closing;
        }
        talk.read_what_is_there();
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The server has given it up but does not close it.
    Closing,
    Closed,
}

/// A connection under test.
struct Talk {
    stream: TcpStream,
    /// Its address, as CLIENT LIST has it.
    name: String,
    sent: u64,
    received: Vec<u8>,
    end: End,
}

impl Talk {
    fn send(&mut self, bytes: &[u8]) {
        // The server may have closed the connection; reading says so.
        if self.stream.write_all(bytes).is_ok() {
            self.sent += bytes.len() as u64;
        }
    }

    fn has_ended(&self) -> bool {
        self.end != End::Open
    }

    fn read_what_is_there(&mut self) {
        self.stream.set_nonblocking(true).expect("an open socket takes this");
        self.read();
        self.stream.set_nonblocking(false).expect("an open socket takes this");
    }

    fn read_to_end(&mut self, deadline: Duration) {
        if !self.has_ended() {
            self.stream.set_read_timeout(Some(deadline)).expect("an open socket takes a timeout");
            self.read();
        }
    }

    /// Reads until nothing comes.
    fn read(&mut self) {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break self.end = End::Closed,
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                // Reset: what had come before is read by now.
                Err(_) => break self.end = End::Closed,
            }
        }
    }

    /// Says that nothing more will be sent, and reads the rest.
    fn finish(&mut self) {
        if !self.has_ended() {
            drop(self.stream.shutdown(Shutdown::Write));
            self.read_to_end(REPLY_DEADLINE);
        }
    }

    /// What was received, less what tells of the server in HELLO's reply.
    fn replies(&self) -> Vec<u8> {
        let mut rest = BytesMut::from(self.received.as_slice());
        let mut replies = Vec::new();
        while let Ok(Some(frame)) = split_frame(&mut rest) {
            push_less_hello(&frame, &mut replies);
        }
        replies.extend_from_slice(&rest);
        replies
    }
}

fn push_less_hello(frame: &Frame, replies: &mut Vec<u8>) {
    if frame.items.first().is_some_and(|item| item.text() == b"server") {
        replies.extend(b"(HELLO)\r\n");
    } else if frame.items.is_empty() {
        replies.extend_from_slice(&frame.raw);
    } else {
        replies.push(frame.kind());
        replies.extend_from_slice(frame.text());
        replies.extend(b"\r\n");
        frame.items.iter().for_each(|item| push_less_hello(item, replies));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_cases_again() {
        for number in 0..200 {
            let (one, other) = (Case::generate(7, number), Case::generate(7, number));
            assert_eq!(one.bytes, other.bytes);
            assert_eq!(one.pieces().concat(), one.bytes);
        }
    }

    #[test]
    fn bytes_are_left_out_of_their_pieces() {
        let case = Case {
            guarded: false,
            http: false,
            bytes: b"abcdefgh".to_vec(),
            cuts: vec![2, 6],
            sending: Sending::Stepwise,
        };
        let pieces = |case: &Case| {
            case.pieces().iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(pieces(&case), ["ab", "cdef", "gh"]);
        assert_eq!(pieces(&case.without(1, 4)), ["a", "ef", "gh"]);
        assert_eq!(pieces(&case.without(2, 6)), ["ab", "gh"]);
    }
}
