//! Which lines of a log are written, and which are only counted because they have been written often enough just now.
//!
//! Of equal lines the first [`WRITTEN_MAX`] within [`WINDOW`] are written; how many more there were is told when it is over.

use std::time::Duration;

use crate::time::Monotonic;

/// For how long equal lines are counted together.
pub const WINDOW: Duration = Duration::from_secs(10);
/// So many equal lines are written in that time; an event that happens twice is not a repetition.
pub const WRITTEN_MAX: u64 = 5;
/// Different lines that are known at a time; if there are more, the oldest is told and forgotten.
const LINES_MAX: usize = 64;

/// The lines of the last seconds.
#[derive(Debug, Default)]
pub struct Repeats {
    /// From the oldest on.
    lines: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    text: String,
    since: Monotonic,
    count: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Write,
    /// It is counted.
    Hold,
}

/// A line that was held, how often, and for how long it was counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    pub text: String,
    pub times: u64,
    pub during: Duration,
}

impl Repeats {
    /// What becomes of this line, and what is to be told before it.
    pub fn note(&mut self, text: &str, now: Monotonic) -> (Verdict, Vec<Held>) {
        let mut told = Vec::new();
        self.lines.retain_mut(|line| {
            let is_over = WINDOW <= now.since(line.since);
            if is_over {
                told.extend(line.held(now));
            }
            !is_over
        });
        if let Some(line) = self.lines.iter_mut().find(|line| line.text == text) {
            line.count += 1;
            return (if line.count <= WRITTEN_MAX { Verdict::Write } else { Verdict::Hold }, told);
        }
        if self.lines.len() == LINES_MAX {
            told.extend(self.lines.remove(0).held(now));
        }
        self.lines.push(Seen { text: text.to_owned(), since: now, count: 1 });
        (Verdict::Write, told)
    }
}

impl Seen {
    fn held(&mut self, now: Monotonic) -> Option<Held> {
        let times = self.count.saturating_sub(WRITTEN_MAX);
        let during = now.since(self.since);
        (0 < times).then(|| Held { text: std::mem::take(&mut self.text), times, during })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_comes_again_and_again_is_counted() {
        let mut repeats = Repeats::default();
        let verdicts: Vec<_> = (0..8).map(|_| repeats.note("refused", at(1)).0).collect();
        assert_eq!(verdicts[..5], [Verdict::Write; 5]);
        assert_eq!(verdicts[5..], [Verdict::Hold; 3]);
        assert_eq!(repeats.note("another", at(2)), (Verdict::Write, Vec::new()));
        let held = Held { text: "refused".to_owned(), times: 3, during: Duration::from_secs(11) };
        assert_eq!(repeats.note("refused", at(12)), (Verdict::Write, vec![held]), "and it begins anew");
        assert_eq!(repeats.note("refused", at(30)), (Verdict::Write, Vec::new()), "once is no repetition");
    }

    #[test]
    fn the_number_of_lines_is_bounded_and_no_count_is_lost() {
        let mut repeats = Repeats::default();
        for _ in 0..7 {
            repeats.note("first", at(0));
        }
        let told: Vec<_> = (0..200).flat_map(|n| repeats.note(&n.to_string(), at(1)).1).collect();
        assert_eq!(told, [Held { text: "first".to_owned(), times: 2, during: Duration::from_secs(1) }]);
        assert_eq!(repeats.lines.len(), LINES_MAX);
    }
}
