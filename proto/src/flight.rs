//! The flight recorder: what a process has heard, decided and done lately, kept in memory, and written when somebody wants
//! to know why something happened.
//!
//! Programs have records of their own; what happens all the time (beacons, acknowledgements) is counted in one record for
//! half a second, so that minutes fit into little memory. A recording is a file of JSON lines: a [`Header`], then the
//! records from the oldest on. `cluster-tests --bin replay` reads those of several processes.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::time::{Monotonic, UnixMillis};

/// Older records are dropped.
const BYTES_MAX: usize = 1 << 20;
/// What goes on for longer gets another record.
const MERGED_FOR: Duration = Duration::from_millis(500);
/// How far back a record of the same kind is looked for.
const MERGED_ACROSS: usize = 8;
/// Of what is kept in words.
const WORDS_MAX: usize = 400;
/// Rises when older readers would misread a recording.
pub const FORMAT: u32 = 1;

/// Something that is worth to be remembered.
pub trait Record: Serialize + DeserializeOwned + Clone {
    /// What it takes in memory, roughly.
    fn bytes(&self) -> usize;

    /// Counts `next` in, if both are of what happens all the time, and the same.
    fn absorb(&mut self, next: &Self) -> Absorbed;
}

/// Whether a record has taken another one in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absorbed {
    Yes,
    /// It is something else, that happens all the time too.
    No,
    /// Nothing that comes later may be counted in what was before this.
    Barrier,
}

/// Whether something has happened that is to be kept for longer than the recorder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    Nothing,
    /// A shard has another primary, or none.
    Failover,
}

/// A record and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded<R> {
    pub at: Monotonic,
    /// Of the last that was counted in.
    pub until: Monotonic,
    pub record: R,
}

/// The last minutes of a process.
#[derive(Debug)]
pub struct FlightRecorder<R> {
    records: VecDeque<Recorded<R>>,
    bytes: usize,
    /// Records that are not there any more.
    dropped: u64,
}

impl<R: Record> Default for FlightRecorder<R> {
    fn default() -> Self {
        FlightRecorder { records: VecDeque::new(), bytes: 0, dropped: 0 }
    }
}

impl<R: Record> FlightRecorder<R> {
    /// Remembers it. Returns what had to be forgotten for it.
    pub fn add(&mut self, now: Monotonic, record: R) -> Vec<R> {
        for earlier in self.records.iter_mut().rev().take(MERGED_ACROSS) {
            if MERGED_FOR <= now.since(earlier.at) {
                break;
            }
            match earlier.record.absorb(&record) {
                Absorbed::Yes => {
                    earlier.until = now;
                    return Vec::new();
                }
                Absorbed::No => {}
                Absorbed::Barrier => break,
            }
        }
        self.bytes += room(&record);
        self.records.push_back(Recorded { at: now, until: now, record });
        let mut forgotten = Vec::new();
        while BYTES_MAX < self.bytes
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= room(&oldest.record);
            self.dropped += 1;
            forgotten.push(oldest.record);
        }
        forgotten
    }

    /// From the oldest on.
    pub fn records(&self) -> impl Iterator<Item = &Recorded<R>> {
        self.records.iter()
    }

    /// What is remembered now, as it is written to a file.
    pub fn recording(&self, mut header: Header) -> Recording<R> {
        header.dropped = self.dropped;
        Recording { header, records: self.records.iter().cloned().collect() }
    }
}

fn room<R: Record>(record: &R) -> usize {
    size_of::<Recorded<R>>() + record.bytes()
}

/// Whose recording it is, and how its times are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// See [`FORMAT`].
    pub keyward_flight: u32,
    /// `node` or `sentinel`.
    pub program: String,
    pub version: String,
    /// A node's ID, a sentinel's number.
    pub id: String,
    /// For people: an address or a name.
    pub name: String,
    /// Of the kernel: times of processes that have the same one are comparable.
    pub boot: String,
    /// When it was made, by both clocks.
    pub at: Monotonic,
    pub wall: UnixMillis,
    /// Why it was made.
    pub why: String,
    /// So many records had been before the first.
    pub dropped: u64,
}

/// What was written when somebody wanted to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording<R> {
    pub header: Header,
    pub records: Vec<Recorded<R>>,
}

/// Why a text is no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("line {line}: {error}")]
    Json { line: usize, error: serde_json::Error },
    #[error("it is empty")]
    Empty,
    #[error("it is of format {0}, this program reads {FORMAT}")]
    Format(u32),
    #[error("it is of a {0}")]
    Program(String),
}

impl<R: Record> Recording<R> {
    /// JSON lines.
    pub fn text(&self) -> String {
        let mut text = json(&self.header);
        for record in &self.records {
            text.push('\n');
            text.push_str(&json(record));
        }
        text.push('\n');
        text
    }

    /// # Errors
    /// It is not one of this program and format. A last line that broke off is passed over.
    pub fn parse(text: &str, program: &str) -> Result<Recording<R>, RecordingError> {
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
        let (_, first) = lines.next().ok_or(RecordingError::Empty)?;
        let header: Header =
            serde_json::from_str(first).map_err(|error| RecordingError::Json { line: 1, error })?;
        if header.keyward_flight != FORMAT {
            return Err(RecordingError::Format(header.keyward_flight));
        }
        if header.program != program {
            return Err(RecordingError::Program(header.program));
        }
        let mut records = Vec::new();
        while let Some((line, text)) = lines.next() {
            match serde_json::from_str(text) {
                Ok(record) => records.push(record),
                Err(_) if lines.peek().is_none() => break,
                Err(error) => return Err(RecordingError::Json { line, error }),
            }
        }
        Ok(Recording { header, records })
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers, texts and lists of them")
}

/// The begin of how a value is shown: it may be long.
pub fn words(value: &impl Debug) -> String {
    let mut limited = Limited(String::new());
    // It ends with an error when it is long enough.
    _ = write!(limited, "{value:?}");
    limited.0
}

struct Limited(String);

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if WORDS_MAX <= self.0.len() {
                self.0.push_str(" ...");
                return Err(fmt::Error);
            }
            self.0.push(c);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    enum Event {
        Beacon { from: u8, count: u64 },
        Told(String),
    }

    impl Record for Event {
        fn bytes(&self) -> usize {
            match self {
                Event::Beacon { .. } => 0,
                Event::Told(text) => text.len(),
            }
        }

        fn absorb(&mut self, next: &Event) -> Absorbed {
            match (self, next) {
                (Event::Beacon { from, count }, Event::Beacon { from: next, count: more })
                    if from == next =>
                {
                    *count += more;
                    Absorbed::Yes
                }
                (Event::Beacon { .. }, Event::Beacon { .. }) => Absorbed::No,
                _ => Absorbed::Barrier,
            }
        }
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn beacon(from: u8) -> Event {
        Event::Beacon { from, count: 1 }
    }

    fn header() -> Header {
        Header {
            keyward_flight: FORMAT,
            program: "node".into(),
            version: "1".into(),
            id: "x".into(),
            name: "n1".into(),
            boot: "b".into(),
            at: at(0),
            wall: UnixMillis(0),
            why: "asked".into(),
            dropped: 0,
        }
    }

    #[test]
    fn what_happens_all_the_time_is_counted() {
        let mut recorder = FlightRecorder::default();
        for ms in 0..1200 {
            recorder.add(at(ms), beacon((ms % 2) as u8));
            if ms == 250 {
                recorder.add(at(ms), Event::Told("a change".into()));
            }
        }
        let found: Vec<(u64, u64, Event)> = recorder
            .records()
            .map(|r| (r.at.as_nanos() / 1_000_000, r.until.as_nanos() / 1_000_000, r.record.clone()))
            .collect();
        let beacons = |from, count| Event::Beacon { from, count };
        let expected = [
            (0, 250, beacons(0, 126)),
            (1, 249, beacons(1, 125)),
            (250, 250, Event::Told("a change".into())),
            (251, 749, beacons(1, 250)),
            (252, 750, beacons(0, 250)),
            (751, 1199, beacons(1, 225)),
            (752, 1198, beacons(0, 224)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn it_takes_no_more_memory_than_it_may() {
        let mut recorder = FlightRecorder::default();
        let mut forgotten = 0;
        for n in 0..5000_u64 {
            forgotten += recorder.add(at(n), Event::Told("x".repeat(1000))).len();
            assert!(recorder.bytes <= BYTES_MAX);
        }
        let recording = recorder.recording(header());
        assert_eq!(
            (recording.header.dropped as usize, forgotten + recording.records.len()),
            (forgotten, 5000)
        );
        assert_eq!(recording.records.last().unwrap().at, at(4999));
    }

    #[test]
    fn words_are_few() {
        assert_eq!(words(&Some("a")), "Some(\"a\")");
        let long = words(&vec!["ä"; 1_000_000]);
        assert!(long.ends_with(" ...") && long.len() < WORDS_MAX + 8, "{long}");
    }

    #[test]
    fn a_recording_is_read_back_even_if_its_end_is_missing() {
        let mut recorder = FlightRecorder::default();
        recorder.add(at(1), beacon(1));
        recorder.add(at(2), Event::Told("a \"word\"\nand another".into()));
        let recording = recorder.recording(header());
        let text = recording.text();
        assert_eq!(text.lines().count(), 3);
        assert_eq!(Recording::<Event>::parse(&text, "node").unwrap(), recording);
        let cut = Recording::<Event>::parse(&text[..text.len() - 5], "node").unwrap();
        assert_eq!(cut.records, recording.records[..1]);
        let broken = text.replacen("\"Beacon\"", "\"Bacon\"", 1);
        let error = Recording::<Event>::parse(&broken, "node").unwrap_err().to_string();
        assert!(error.starts_with("line 2: "), "{error}");
        let error = |text: &str, program| Recording::<Event>::parse(text, program).unwrap_err().to_string();
        assert_eq!(error("", "node"), "it is empty");
        assert_eq!(error(&text, "sentinel"), "it is of a node");
        assert_eq!(
            error(&text.replace("keyward_flight\":1", "keyward_flight\":7"), "node"),
            "it is of format 7, this program reads 1"
        );
    }
}
