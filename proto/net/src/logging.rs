//! The form of the lines that a program logs: for people, or for programs (`log-format`).
//!
//! `logfmt` and `json` have Valkey's keys: pid, role, timestamp, level, message; then the event's own fields, and the module
//! that tells it. Levels are Valkey's words.
#![allow(clippy::disallowed_methods, reason = "a shell: log lines say when")]

use std::fmt::{self, Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use keyward_proto::repeats::{Held, Repeats, Verdict};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// `log-format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum LogFormat {
    /// For people.
    #[default]
    Legacy = 0,
    Logfmt = 1,
    Json = 2,
}

impl LogFormat {
    /// As settings have them.
    pub const WORDS: &[(&str, LogFormat)] =
        &[("legacy", LogFormat::Legacy), ("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)];
}

/// `log-timestamp-format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum TimestampFormat {
    /// The same, here.
    #[default]
    Legacy = 0,
    Iso8601 = 1,
    /// Since the Unix epoch.
    Milliseconds = 2,
}

/// Both, as they are now: they can be changed while the program runs.
#[derive(Debug, Clone, Default)]
pub struct LogForm(Arc<[AtomicU8; 2]>);

impl LogForm {
    pub fn set(&self, format: LogFormat, timestamp: TimestampFormat) {
        self.0[0].store(format as u8, Ordering::Relaxed);
        self.0[1].store(timestamp as u8, Ordering::Relaxed);
    }

    fn format(&self) -> LogFormat {
        match self.0[0].load(Ordering::Relaxed) {
            1 => LogFormat::Logfmt,
            2 => LogFormat::Json,
            _ => LogFormat::Legacy,
        }
    }
}

impl FormatTime for LogForm {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        if self.0[1].load(Ordering::Relaxed) == TimestampFormat::Milliseconds as u8 {
            return write!(writer, "{}", crate::clock::unix_millis().0);
        }
        SystemTime.format_time(writer)
    }
}

/// Writes events in the form that is set.
#[derive(Debug)]
pub struct Lines {
    form: LogForm,
    legacy: Format<Full, LogForm>,
    /// `primary`, `replica` or `sentinel`.
    role: fn() -> &'static str,
    /// Held for one look.
    repeats: Mutex<Repeats>,
}

impl Lines {
    pub fn new(form: &LogForm, role: fn() -> &'static str) -> Lines {
        Lines {
            form: form.clone(),
            legacy: Format::default().with_timer(form.clone()),
            role,
            repeats: Mutex::default(),
        }
    }

    /// A line for programs, with these fields of its own.
    fn for_programs(
        &self,
        format: LogFormat,
        level: &Level,
        (target, fields): (&str, &Fields),
    ) -> Result<String, fmt::Error> {
        let mut line = Line { format, text: String::new() };
        line.add("pid", Value::Number(&std::process::id()));
        line.add("role", Value::Text((self.role)()));
        let mut timestamp = String::new();
        self.form.format_time(&mut Writer::new(&mut timestamp))?;
        line.add("timestamp", Value::Text(&timestamp));
        line.add("level", Value::Text(word(level)));
        line.add("message", Value::Text(&fields.message));
        fields.others.iter().for_each(|(name, value)| line.add(name, Value::Text(value)));
        line.add("target", Value::Text(target));
        Ok(line.end())
    }

    /// How often lines came that were not written.
    fn tell(&self, format: LogFormat, held: &[Held], writer: &mut Writer<'_>) -> fmt::Result {
        let target = module_path!();
        for Held { text, times, during } in held {
            let message = format!("{times} more times within {} s: {text}", during.as_secs());
            if format == LogFormat::Legacy {
                self.form.format_time(writer)?;
                writeln!(writer, "  {} {target}: {message}", Level::INFO)?;
            } else {
                let fields = Fields { message, others: Vec::new() };
                writeln!(writer, "{}", self.for_programs(format, &Level::INFO, (target, &fields))?)?;
            }
        }
        Ok(())
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let format = self.form.format();
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let mut fields = Fields::default();
        // Whoever asks for more than that wants to see each.
        if *level <= Level::INFO {
            event.record(&mut fields);
            let (verdict, held) = self.repeats.lock().note(&fields.shown(), crate::clock::monotonic());
            self.tell(format, &held, &mut writer)?;
            if verdict == Verdict::Hold {
                return Ok(());
            }
        } else if format != LogFormat::Legacy {
            event.record(&mut fields);
        }
        if format == LogFormat::Legacy {
            return self.legacy.format_event(context, writer, event);
        }
        writeln!(writer, "{}", self.for_programs(format, level, (target, &fields))?)
    }
}

fn word(level: &Level) -> &'static str {
    match *level {
        Level::ERROR | Level::WARN => "warning",
        Level::INFO => "notice",
        _ => "debug",
    }
}

enum Value<'a> {
    Number(&'a u32),
    Text(&'a str),
}

struct Line {
    format: LogFormat,
    text: String,
}

impl Line {
    fn add(&mut self, name: &str, value: Value<'_>) {
        let is_json = self.format == LogFormat::Json;
        if !self.text.is_empty() {
            self.text.push(if is_json { ',' } else { ' ' });
        }
        let shown = match value {
            Value::Number(number) => number.to_string(),
            Value::Text(text) if is_json || !is_word(text) => quoted(text),
            Value::Text(text) => text.to_owned(),
        };
        if is_json {
            self.text.push_str(&format!("{}:{shown}", quoted(name)));
        } else {
            self.text.push_str(&format!("{name}={shown}"));
        }
    }

    fn end(self) -> String {
        if self.format == LogFormat::Json { format!("{{{}}}", self.text) } else { self.text }
    }
}

/// It needs no quotes.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'=' | b'\\'))
}

/// Also a line break does not begin another line.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// What an event says, as text.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    /// As people read it, in one line.
    fn shown(&self) -> String {
        let mut text = self.message.escape_debug().to_string();
        self.others
            .iter()
            .for_each(|(name, value)| text.push_str(&format!(" {name}={}", value.escape_debug())));
        text
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // Values that cannot be shown are left out, and not the line.
        _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.others.push((name, value.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::time::Duration;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Kept;

        fn make_writer(&self) -> Kept {
            self.clone()
        }
    }

    fn told(format: LogFormat) -> String {
        told_of(format, || tracing::warn!(term = 3, host = "a b", word = %"x", "two\nlines and a \"quote\""))
    }

    fn told_of(format: LogFormat, events: impl FnOnce()) -> String {
        let (kept, form) = (Kept::default(), LogForm::default());
        form.set(format, TimestampFormat::Milliseconds);
        let lines = Lines::new(&form, || "replica");
        let subscriber =
            tracing_subscriber::fmt().with_writer(kept.clone()).with_ansi(false).event_format(lines).finish();
        tracing::subscriber::with_default(subscriber, events);
        let text = kept.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    /// The time and the process differ.
    fn without(text: &str, parts: &[&str]) -> String {
        let mut text = text.to_owned();
        for part in parts {
            let at = text.find(part).unwrap() + part.len();
            let end = text[at..].find(|c: char| !c.is_ascii_digit()).unwrap();
            assert!(0 < end);
            text.replace_range(at..at + end, "N");
        }
        text
    }

    #[test]
    fn programs_get_one_line_for_each_event() {
        let json = told(LogFormat::Json);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["message"], "two\nlines and a \"quote\"");
        let expected = r#"{"pid":N,"role":"replica","timestamp":"N","level":"warning","message":"two\nlines and a \"quote\"","term":"3","host":"a b","word":"x","target":"keyward_net::logging::tests"}"#;
        assert_eq!(without(&json, &["\"pid\":", "\"timestamp\":\""]).trim_end(), expected);
        let expected = r#"pid=N role=replica timestamp=N level=warning message="two\nlines and a \"quote\"" term=3 host="a b" word=x target=keyward_net::logging::tests"#;
        let logfmt = told(LogFormat::Logfmt);
        assert_eq!(without(&logfmt, &["pid=", "timestamp="]).trim_end(), expected);
        assert_eq!((json.lines().count(), logfmt.lines().count()), (1, 1));
    }

    #[test]
    fn people_get_what_they_had() {
        let text = told(LogFormat::Legacy);
        assert!(
            text.contains("  WARN keyward_net::logging::tests: two\nlines and a \"quote\" term=3"),
            "{text}"
        );
    }
    #[test]
    fn what_comes_again_and_again_is_counted_in_each_form() {
        for format in [LogFormat::Legacy, LogFormat::Logfmt, LogFormat::Json] {
            let text = told_of(format, || (0..100).for_each(|_| tracing::info!(port = 1, "refused")));
            assert_eq!(text.lines().count(), 5, "{text}");
            let held =
                [Held { text: "refused port=1".to_owned(), times: 95, during: Duration::from_secs(12) }];
            let (form, mut told) = (LogForm::default(), String::new());
            Lines::new(&form, || "replica").tell(format, &held, &mut Writer::new(&mut told)).unwrap();
            assert!(told.contains("95 more times within 12 s: refused port=1"), "{told}");
            assert_eq!(told.lines().count(), 1);
        }
    }
}
