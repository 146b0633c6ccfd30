//! What `status --watch` shows: on a terminal the report as it is, again and again in the same place; elsewhere a block
//! whenever something has changed.

use std::fmt::Write;

use super::table::{processes, utc, write_problems};
use super::{Names, StatusReport};

/// Where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    Terminal {
        rows: usize,
        columns: usize,
    },
    /// A file or another program.
    Lines,
}

/// Another screen, without a cursor; and back to the one of before.
pub(crate) const ENTER: &str = "\x1b[?1049h\x1b[?25l";
pub(crate) const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// What has been shown.
#[derive(Debug)]
pub(crate) struct Watched {
    names: Names,
    /// The last report, and when it came.
    last: Option<(StatusReport, u64)>,
    shown: String,
}

impl Watched {
    pub(crate) fn new(names: Names) -> Watched {
        Watched { names, last: None, shown: String::new() }
    }

    /// What is to be written, if anything: a report has come, or the reasons why none has.
    pub(crate) fn step(
        &mut self,
        at_millis: u64,
        screen: Screen,
        came: Result<StatusReport, Vec<String>>,
    ) -> Option<String> {
        let failures = match came {
            Ok(report) => {
                self.last = Some((report, at_millis));
                Vec::new()
            }
            Err(failures) => failures,
        };
        let text = self.text(at_millis, &failures);
        match screen {
            Screen::Terminal { rows, columns } => Some(drawn(&text, rows, columns)),
            Screen::Lines => {
                let key = self.last.as_ref().map(|(report, _)| outline(report)).unwrap_or_default();
                let key = format!("{key} {}", failures.is_empty());
                (std::mem::replace(&mut self.shown, key.clone()) != key).then(|| format!("{text}\n"))
            }
        }
    }

    /// As it was last, without codes for a terminal.
    pub(crate) fn text(&self, at_millis: u64, failures: &[String]) -> String {
        let mut text = format!("--- {} UTC", utc(at_millis));
        if let Some((report, _)) = &self.last
            && failures.is_empty()
        {
            let leads = if report.majority { ", which leads the sentinels" } else { "" };
            let teller = if report.from_nodes { "the nodes" } else { &report.teller };
            write!(text, ", told by {teller}{leads}").expect("writing to a String cannot fail");
        }
        text.push_str("\n\n");
        if !failures.is_empty() {
            text.push_str("NOBODY ANSWERS; trying again\n");
            failures.iter().for_each(|line| text.push_str(&format!("- {line}\n")));
            text.push('\n');
        }
        match &self.last {
            Some((report, came)) => {
                if !failures.is_empty() {
                    text.push_str(&format!("as of {} UTC:\n\n", utc(*came)));
                }
                // First, since it may not all fit.
                write_problems(&mut text, &report.find_problems(&self.names));
                text.push('\n');
                text.push_str(&processes(report, &self.names));
            }
            None if failures.is_empty() => {}
            None => text.push_str("nothing is known yet\n"),
        }
        text
    }
}

/// What a block is printed for: not figures that change all the time.
fn outline(report: &StatusReport) -> String {
    let mut outline = format!("{:?} {:?}", report.problems, report.timeline);
    let shards = report.shards.iter().map(|shard| (&shard.id, shard.term, &shard.primary, &shard.nodes));
    for (id, term, primary, nodes) in shards {
        outline.push_str(&format!("{id} {term} {primary:?}"));
        nodes.iter().for_each(|node| {
            outline.push_str(&format!(
                "{} {} {} {} {}",
                node.id, node.role, node.state, node.in_sync, node.restarted
            ));
        });
    }
    report.spares.iter().for_each(|node| outline.push_str(&format!("{} {}", node.id, node.state)));
    report.sentinels.iter().for_each(|s| outline.push_str(&format!("{} {} {}", s.name, s.leader, s.up)));
    outline
}

/// Over what was there before, line by line, so that nothing flickers. What does not fit is left out, and said.
fn drawn(text: &str, rows: usize, columns: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.saturating_sub(1).max(1);
    let mut drawn = "\x1b[H".to_owned();
    let mut draw = |line: &str| {
        drawn.extend(line.chars().filter(|c| !c.is_control()).take(columns));
        drawn.push_str("\x1b[K\r\n");
    };
    if lines.len() <= room {
        lines.iter().for_each(|line| draw(line));
    } else {
        lines.iter().take(room - 1).for_each(|line| draw(line));
        draw(&format!("... {} more lines: the window is too small", lines.len() - (room - 1)));
    }
    drawn.push_str("\x1b[J");
    drawn
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    fn failures() -> Vec<String> {
        vec!["can't reach a sentinel at h:1: no answer".into()]
    }

    #[test]
    fn elsewhere_than_on_a_terminal_a_block_is_printed_for_each_change() {
        let mut watched = Watched::new(Names::new());
        let mut step = |came| watched.step(1000, Screen::Lines, came);
        let first = step(Ok(report())).unwrap();
        assert!(first.starts_with("--- 1970-01-01 00:00:01 UTC, told by "), "{first}");
        let mut busy = report();
        busy.shards[0].nodes[0].commands_per_second = Some(7);
        assert_eq!(step(Ok(busy)), None, "figures are no news");
        let mut down = report();
        down.shards[0].nodes[1].state = "down".into();
        assert!(step(Ok(down.judged())).unwrap().contains("10.0.0.2:6379 (mymaster) is down"));
        let gone = step(Err(failures())).unwrap();
        assert!(gone.contains("NOBODY ANSWERS") && gone.contains("h:1") && gone.contains("as of"), "{gone}");
        assert_eq!(step(Err(failures())), None);
        assert!(step(Ok(report())).unwrap().contains("OK: everything"));
        let mut watched = Watched::new(Names::new());
        assert!(watched.step(0, Screen::Lines, Err(failures())).unwrap().contains("nothing is known yet"));
    }

    #[test]
    fn a_terminal_gets_no_more_than_has_room() {
        let text = "one\ntwo\x1b[31m\nthree\nfour";
        let all = "\x1b[Hone\x1b[K\r\ntwo[3\x1b[K\r\nthree\x1b[K\r\nfour\x1b[K\r\n\x1b[J";
        assert_eq!(drawn(text, 5, 5), all);
        let some = drawn(text, 4, 80);
        assert!(some.contains("two[31m\x1b[K\r\n... 2 more lines"), "{some:?}");
        let mut watched = Watched::new(Names::new());
        let screen = Screen::Terminal { rows: 100, columns: 200 };
        let first = watched.step(0, screen, Ok(report())).unwrap();
        assert_eq!(watched.step(0, screen, Ok(report())), Some(first), "again and again");
    }
}
