//! The types of directives: how a value is read from its text, and the text that CONFIG GET shows.
//!
//! A [`Type`] reads a text once, into the value that the program uses; what it shows reads back as the same value. The
//! texts of errors are Valkey's.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;

use keyward_store::events::EventClasses;

use super::settings::{OutputLimit, OutputLimits, Share};
use crate::shutdown;
use crate::snapshot::rules::SavePoint;

/// See the module documentation.
pub(super) trait Type: Debug + Send + Sync + 'static {
    type Value: Debug + 'static;

    fn parse(&self, text: &str, place: Place<'_>) -> Result<Self::Value, String>;

    fn show(&self, value: &Self::Value) -> String;

    fn form(&self) -> Form {
        Form::Word
    }
}

/// What a value is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The directive.
    pub(super) name: &'static str,
    /// The text of the value that is replaced.
    pub(super) current: &'a str,
}

/// How a value stands in a conf file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Word,
    /// A word in quotes; an empty one is as good as none.
    Text,
    /// As `Text`, but an empty one is not the same as none.
    TextOrEmpty,
    /// `dir`: it always has its line, as it would depend on where the program is started.
    Folder,
    FileName,
    Letters,
    /// With the largest unit that gives a whole number.
    Memory,
    /// Any number of words, of any text.
    Words,
    /// Any number of words that the type knows.
    KnownWords,
    HostAndPort,
    /// `save`: further lines add to it.
    SavePoints,
    /// A line for each class of clients.
    OutputLimits,
}

/// A number within limits.
#[derive(Debug)]
pub(super) struct Integer<T> {
    min: i64,
    max: i64,
    value: PhantomData<fn() -> T>,
}

pub(super) fn int<T>(min: i64, max: i64) -> Integer<T> {
    Integer { min, max, value: PhantomData }
}

/// One that no code reads.
pub(super) fn number(min: i64, max: i64) -> Integer<i64> {
    int(min, max)
}

impl<T: TryFrom<i64> + Display + Debug + 'static> Type for Integer<T> {
    type Value = T;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<T, String> {
        narrow(integer(text, self.min, self.max)?)
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }
}

/// A number that is not negative; beyond the limits the nearest of them is taken.
#[derive(Debug)]
pub(super) struct Clamped {
    pub(super) min: i64,
    pub(super) max: i64,
}

impl Type for Clamped {
    type Value = i64;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<i64, String> {
        Ok(integer(text, 0, i64::from(i32::MAX))?.clamp(self.min, self.max))
    }

    fn show(&self, value: &i64) -> String {
        value.to_string()
    }
}

/// An amount of memory: `1gb`, `64mb`, `100`.
#[derive(Debug)]
pub(super) struct Memory<T> {
    min: i64,
    value: PhantomData<fn() -> T>,
}

pub(super) fn memory<T>() -> Memory<T> {
    memory_from(0)
}

pub(super) fn memory_from<T>(min: i64) -> Memory<T> {
    Memory { min, value: PhantomData }
}

impl<T: TryFrom<i64> + Display + Debug + 'static> Type for Memory<T> {
    type Value = T;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<T, String> {
        let max = i64::MAX;
        // A negative number only where it stands for something.
        if self.min < 0 && text.starts_with('-') {
            return narrow(integer(text, self.min, max)?);
        }
        let bytes = parse_memory(text).ok_or("argument must be a memory value")?;
        match i64::try_from(bytes) {
            Ok(bytes) if self.min <= bytes => narrow(bytes),
            Ok(_) | Err(_) => Err(format!("argument must be between {} and {max} inclusive", self.min)),
        }
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }

    fn form(&self) -> Form {
        Form::Memory
    }
}

/// An amount of memory, or a part of `maxmemory`: `10%`.
#[derive(Debug)]
pub(super) struct MemoryOrPercent;

impl Type for MemoryOrPercent {
    type Value = Share;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<Share, String> {
        match text.strip_suffix('%').map(str::parse::<u8>) {
            Some(Ok(percent)) if percent <= 100 => Ok(Share::Percent(percent)),
            Some(Ok(_)) => Err("percentage argument must be less or equal to 100".into()),
            Some(Err(_)) => Err("argument must be a memory or percent value".into()),
            None => {
                let bytes = parse_memory(text).ok_or("argument must be a memory or percent value")?;
                Ok(Share::Bytes(bytes))
            }
        }
    }

    fn show(&self, value: &Share) -> String {
        match value {
            Share::Bytes(bytes) => bytes.to_string(),
            Share::Percent(percent) => format!("{percent}%"),
        }
    }

    fn form(&self) -> Form {
        Form::Memory
    }
}

#[derive(Debug)]
pub(super) struct YesNo;

impl Type for YesNo {
    type Value = bool;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<bool, String> {
        match text.to_ascii_lowercase().as_str() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err("argument must be 'yes' or 'no'".into()),
        }
    }

    fn show(&self, value: &bool) -> String {
        if *value { "yes" } else { "no" }.to_owned()
    }
}

/// Any text.
#[derive(Debug)]
pub(super) struct Text(Form);

pub(super) const TEXT: Text = Text(Form::Text);
pub(super) const TEXT_OR_EMPTY: Text = Text(Form::TextOrEmpty);
pub(super) const FOLDER: Text = Text(Form::Folder);

impl Type for Text {
    type Value = String;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn form(&self) -> Form {
        self.0
    }
}

/// Words, parted by spaces or commas.
#[derive(Debug)]
pub(super) struct Words;

/// Text in which only the words count.
#[derive(Debug)]
pub(super) struct WordList(String);

impl WordList {
    pub(super) fn to_vec(&self) -> Vec<String> {
        self.0.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }
}

impl Type for Words {
    type Value = WordList;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<WordList, String> {
        Ok(WordList(text.split_whitespace().collect::<Vec<_>>().join(" ")))
    }

    fn show(&self, value: &WordList) -> String {
        value.0.clone()
    }

    fn form(&self) -> Form {
        Form::Words
    }
}

/// The name of a file or folder in `dir`: its field is what Valkey calls it.
#[derive(Debug)]
pub(super) struct FileName(pub(super) &'static str);

impl Type for FileName {
    type Value = String;

    fn parse(&self, text: &str, place: Place<'_>) -> Result<String, String> {
        match text {
            "" => Err(format!("{} can't be empty", place.name)),
            _ if text.contains('/') => Err(format!("{} can't be a path, just a {}", place.name, self.0)),
            "." | ".." => Err(format!("{} can't be a folder", place.name)),
            name => Ok(name.to_owned()),
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn form(&self) -> Form {
        Form::FileName
    }
}

/// The words of a choice, beside what they mean.
pub(crate) trait Choice: Copy + PartialEq + Debug + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// One of some words, each of which means something.
#[derive(Debug)]
pub(super) struct Chosen<T>(PhantomData<fn() -> T>);

pub(super) fn choice<T: Choice>() -> Chosen<T> {
    Chosen(PhantomData)
}

impl<T: Choice> Type for Chosen<T> {
    type Value = T;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<T, String> {
        let found = T::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        let all = || T::WORDS.iter().map(|(word, _)| *word);
        found.map(|(_, value)| *value).ok_or_else(|| must_be_one_of(all()))
    }

    fn show(&self, value: &T) -> String {
        value.word().to_owned()
    }
}

/// One of some words that mean nothing here.
#[derive(Debug)]
pub(super) struct OneOf(pub(super) &'static [&'static str]);

impl Type for OneOf {
    type Value = &'static str;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<&'static str, String> {
        let found = self.0.iter().find(|word| word.eq_ignore_ascii_case(text));
        found.copied().ok_or_else(|| must_be_one_of(self.0.iter().copied()))
    }

    fn show(&self, value: &&'static str) -> String {
        (*value).to_owned()
    }
}

/// Permissions of a file.
#[derive(Debug)]
pub(super) struct Octal {
    pub(super) max: u32,
}

impl Type for Octal {
    type Value = u32;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<u32, String> {
        let number = match text {
            "" => 0,
            _ => i64::from_str_radix(text, 8)
                .map_err(|_| "argument couldn't be parsed as an octal number".to_owned())?,
        };
        let within = u32::try_from(number).ok().filter(|number| *number <= self.max);
        within.ok_or_else(|| format!("argument must be between 0 and {:o} inclusive", self.max))
    }

    fn show(&self, value: &u32) -> String {
        format!("{value:o}")
    }
}

/// Letters of `notify-keyspace-events`.
#[derive(Debug)]
pub(super) struct Events;

impl Type for Events {
    type Value = EventClasses;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<EventClasses, String> {
        let classes = EventClasses::parse(text);
        classes.ok_or_else(|| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned())
    }

    fn show(&self, value: &EventClasses) -> String {
        value.to_text()
    }

    fn form(&self) -> Form {
        Form::Letters
    }
}

/// `save`: pairs of seconds and changes, parted by single spaces; what is between two of them, if nothing is, counts
/// as zero.
#[derive(Debug)]
pub(super) struct SavePoints;

impl Type for SavePoints {
    type Value = Vec<SavePoint>;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<Vec<SavePoint>, String> {
        const INVALID: &str = "Invalid save parameters";
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let number = |word: &str| match word {
            "" => Ok(0),
            word => word.parse::<i32>().ok().and_then(|n| u64::try_from(n).ok()).ok_or(INVALID),
        };
        let words: Vec<&str> = text.split(' ').collect();
        let point = |pair: &[&str]| {
            let [seconds, changes] = pair else { return Err(INVALID.to_owned()) };
            let point = SavePoint { seconds: number(seconds)?, changes: number(changes)? };
            if point.seconds == 0 { Err(INVALID.to_owned()) } else { Ok(point) }
        };
        words.chunks(2).map(point).collect()
    }

    fn show(&self, value: &Vec<SavePoint>) -> String {
        let points = value.iter().map(|point| format!("{} {}", point.seconds, point.changes));
        points.collect::<Vec<_>>().join(" ")
    }

    fn form(&self) -> Form {
        Form::SavePoints
    }
}

/// `shutdown-on-sigterm`: words of SHUTDOWN.
#[derive(Debug)]
pub(super) struct Ending;

/// The words in the order in which CONFIG GET shows them, and what they mean.
#[derive(Debug)]
pub(super) struct EndingWords {
    words: String,
    pub(super) options: shutdown::Options,
}

impl Type for Ending {
    type Value = EndingWords;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<EndingWords, String> {
        const WORDS: &[&str] = &["default", "save", "nosave", "now", "force", "safe", "failover"];
        let given: Vec<String> = text.split(' ').map(str::to_ascii_lowercase).collect();
        if given.iter().any(|word| !WORDS.contains(&word.as_str())) {
            return Err(must_be_one_of(WORDS.iter().copied()));
        }
        let words: Vec<&str> =
            WORDS[1..].iter().copied().filter(|word| given.iter().any(|g| g == word)).collect();
        let options = shutdown::Options::parse(words.iter().map(|word| word.as_bytes()))
            .ok_or("shutdown options SAVE and NOSAVE can't be used simultaneously")?;
        let words = if words.is_empty() { WORDS[0].to_owned() } else { words.join(" ") };
        Ok(EndingWords { words, options })
    }

    fn show(&self, value: &EndingWords) -> String {
        value.words.clone()
    }

    fn form(&self) -> Form {
        Form::KnownWords
    }
}

/// `client-output-buffer-limit`: groups of class, hard limit, soft limit, seconds; classes that are not named keep
/// their limits.
#[derive(Debug)]
pub(super) struct Buffers;

impl Type for Buffers {
    type Value = OutputLimits;

    fn parse(&self, text: &str, place: Place<'_>) -> Result<OutputLimits, String> {
        let mut merged = OutputLimits::default();
        for text in [place.current, text] {
            let words: Vec<&str> = text.split_whitespace().collect();
            let (groups, rest) = words.as_chunks::<4>();
            if !rest.is_empty() {
                return Err("Wrong number of arguments in buffer limit configuration.".into());
            }
            for [class, hard, soft, seconds] in groups {
                let limit = match class.to_ascii_lowercase().as_str() {
                    "normal" => &mut merged.normal,
                    "slave" | "replica" => &mut merged.replica,
                    "pubsub" => &mut merged.pubsub,
                    _ => return Err("Invalid client class specified in buffer limit configuration.".into()),
                };
                *limit = output_limit(hard, soft, seconds)
                    .ok_or("Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
            }
        }
        Ok(merged)
    }

    fn show(&self, value: &OutputLimits) -> String {
        let group = |class: &str, limit: OutputLimit| {
            format!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds)
        };
        [group("normal", value.normal), group("slave", value.replica), group("pubsub", value.pubsub)]
            .join(" ")
    }

    fn form(&self) -> Form {
        Form::OutputLimits
    }
}

fn output_limit(hard: &str, soft: &str, seconds: &str) -> Option<OutputLimit> {
    let bytes = |text| parse_memory(text).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    Some(OutputLimit {
        hard_bytes: bytes(hard)?,
        soft_bytes: bytes(soft)?,
        soft_seconds: seconds.parse::<u32>().ok()?.into(),
    })
}

/// `latency-tracking-info-percentiles`
#[derive(Debug)]
pub(super) struct Percentiles;

impl Type for Percentiles {
    type Value = Vec<f64>;

    fn parse(&self, text: &str, place: Place<'_>) -> Result<Vec<f64>, String> {
        let percentile = |word: &str| {
            let number = word.parse::<f64>().map_err(|_| format!("Invalid {} parameters", place.name))?;
            if (0.0..=100.0).contains(&number) {
                return Ok(number);
            }
            Err(format!("{} parameters should sit between [0.0,100.0]", place.name))
        };
        text.split(' ').filter(|_| !text.is_empty()).map(percentile).collect()
    }

    fn show(&self, value: &Vec<f64>) -> String {
        value.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
    }

    fn form(&self) -> Form {
        Form::KnownWords
    }
}

/// `oom-score-adj-values`: the scores of a primary, a replica, and a process in the background.
#[derive(Debug)]
pub(super) struct Scores;

impl Type for Scores {
    type Value = [i32; 3];

    fn parse(&self, text: &str, place: Place<'_>) -> Result<[i32; 3], String> {
        let words: Vec<&str> = text.split(' ').collect();
        let [primary, replica, background] = words[..] else {
            return Err("wrong number of arguments".into());
        };
        let mut scores = [0; 3];
        for (score, word) in scores.iter_mut().zip([primary, replica, background]) {
            let number = word.parse::<i32>().ok().filter(|score| (-2000..=2000).contains(score));
            let refused = || format!("Invalid {}, elements must be between -2000 and 2000.", place.name);
            *score = number.ok_or_else(refused)?;
        }
        Ok(scores)
    }

    fn show(&self, value: &[i32; 3]) -> String {
        value.map(|score| score.to_string()).join(" ")
    }

    fn form(&self) -> Form {
        Form::KnownWords
    }
}

/// `replicaof`: host and port; `no one` is nothing.
#[derive(Debug)]
pub(super) struct Primary;

impl Type for Primary {
    type Value = String;

    fn parse(&self, text: &str, _: Place<'_>) -> Result<String, String> {
        let Some((host, port)) = text.split_once(' ') else { return Ok(text.to_owned()) };
        if host.eq_ignore_ascii_case("no") && port.eq_ignore_ascii_case("one") {
            return Ok(String::new());
        }
        if port.parse::<u16>().is_err() {
            return Err("Invalid primary port".into());
        }
        Ok(text.to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn form(&self) -> Form {
        Form::HostAndPort
    }
}

/// The limits of a row lie within those of the field that it sets.
fn narrow<T: TryFrom<i64>>(number: i64) -> Result<T, String> {
    T::try_from(number).map_err(|_| "argument is out of range".to_owned())
}

fn integer(text: &str, min: i64, max: i64) -> Result<i64, String> {
    let number: i64 = keyward_proto::resp::number::parse_i64(text.as_bytes())
        .ok_or("argument couldn't be parsed into an integer".to_owned())?;
    if (min..=max).contains(&number) {
        return Ok(number);
    }
    Err(format!("argument must be between {min} and {max} inclusive"))
}

fn must_be_one_of(words: impl Iterator<Item = &'static str>) -> String {
    format!("argument(s) must be one of the following: {}", words.collect::<Vec<_>>().join(", "))
}

/// Bytes: `1k` is 1000, `1kb` 1024, and so on. What does not fit into 64 bits only by its unit counts as the largest,
/// and no number as zero.
pub(crate) fn parse_memory(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    let number = if digits == 0 { 0 } else { text[..digits].parse::<u64>().ok()? };
    Some(number.saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<K: Type>(kind: &K, text: &str, current: &str) -> Result<String, String> {
        kind.parse(text, Place { name: "x", current }).map(|value| kind.show(&value))
    }

    #[test]
    fn output_limits_are_merged() {
        let all = "normal 0 0 0 slave 1 2 3 pubsub 4 5 6";
        let merged = |value: &str| read(&Buffers, value, all);
        let check = |value: &str, expect: &str| assert_eq!(merged(value).unwrap(), expect);
        check("", all);
        check("replica 1kb 0 7", "normal 0 0 0 slave 1024 0 7 pubsub 4 5 6");
        check("PUBSUB 0 0 0 normal 9 9 9", "normal 9 9 9 slave 1 2 3 pubsub 0 0 0");
        assert!(merged("normal 1").is_err());
        assert!(merged("master 0 0 0").is_err());
        assert!(merged("normal 0 x 0").is_err());
    }

    #[test]
    fn save_points_are_pairs() {
        for (value, points) in
            [("900 1 300 10", "900 1 300 10"), ("", ""), ("1 ", "1 0"), ("1  3 ", "1 0 3 0")]
        {
            assert_eq!(read(&SavePoints, value, "").unwrap(), points);
        }
        for bad in ["900", "0 1", "x 1", "900 -1", " 1 2", " ", "1\t2", "1 2 3"] {
            assert!(read(&SavePoints, bad, "").is_err(), "{bad}");
        }
    }
}
