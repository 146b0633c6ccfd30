//! A report as people read it on a terminal.

use std::fmt::Write;

use super::{Names, NodeStatus, Problem, StatusReport, Verdict, verdict};
use crate::rules::timeline::{Change, Kind, Phase};

const LEGEND: &str = "LAST: the newest entry of the write log that a node holds, as term.index.\n\
    LAG: how many entries it lacks of those that its primary has.\n";

/// Of the timeline.
const CHANGES_SHOWN: usize = 5;

/// The report for people.
pub(crate) fn table(report: &StatusReport, names: &Names) -> String {
    let mut out = processes(report, names);
    out.push('\n');
    write_problems(&mut out, &report.find_problems(names));
    out
}

/// All of it but what is wrong.
pub(super) fn processes(report: &StatusReport, names: &Names) -> String {
    let mut out = String::new();
    let mut rows = vec![["SENTINEL", "ID", "ADDRESS", "BUS", "STATE"].map(String::from).to_vec()];
    for s in &report.sentinels {
        let state = match (s.leader, s.up) {
            (true, _) => "leader",
            (false, true) => "up",
            (false, false) => "down",
        };
        rows.push(vec![
            s.name.clone(),
            s.id.to_string(),
            s.address.clone(),
            s.bus_address.clone(),
            state.into(),
        ]);
    }
    // Without sentinels there is nothing to tell of them but why, which is told before.
    if !report.from_nodes {
        write_rows(&mut out, &rows);
    }
    for shard in &report.shards {
        let slots =
            if shard.slots.is_empty() { String::new() } else { format!(", slots {}", shard.slots.join(" ")) };
        let none = if shard.primary.is_none() { ", NO PRIMARY" } else { "" };
        let title =
            if shard.name.is_empty() { shard.id.clone() } else { format!("{} ({})", shard.name, shard.id) };
        out.push_str(&format!("\nshard {title}{slots}, term {}{none}\n", shard.term));
        write_nodes(&mut out, &shard.nodes, names);
    }
    if !report.spares.is_empty() {
        out.push_str(if report.from_nodes { "\nnodes without a shard\n" } else { "\nspare nodes\n" });
        write_nodes(&mut out, &report.spares, names);
    }
    if !(report.shards.is_empty() && report.spares.is_empty()) {
        out.push('\n');
        out.push_str(LEGEND);
    }
    if !report.timeline.is_empty() {
        out.push_str("\nlatest changes of primaries (UTC)\n");
        write_timeline(&mut out, &report.timeline, CHANGES_SHOWN);
    }
    out
}

pub(super) fn write_problems(out: &mut String, problems: &[Problem]) {
    out.push_str(match verdict(problems) {
        Verdict::Well => "OK: everything serves and is in sync\n",
        Verdict::Degraded => "DEGRADED: everything is served, but\n",
        Verdict::Failing => "FAILING:\n",
    });
    for problem in problems {
        out.push_str(&format!("- {}\n  what to do: {}\n", problem.text, problem.todo));
    }
}

/// The latest changes, oldest first.
pub(super) fn write_timeline(out: &mut String, timeline: &[Change], count: usize) {
    for change in timeline.iter().take(count).rev() {
        out.push_str(&format!("{}  {}\n", utc(change.at_millis), told(change)));
    }
}

/// One line, without when.
pub(super) fn told(change: &Change) -> String {
    let Change { shard_name: name, term, from, to, .. } = change;
    let from = if from.is_empty() { "none" } else { from };
    let what = match change.kind {
        Kind::Formed => format!("{name} formed, led by {to}"),
        Kind::Handoff => format!("{name} handed over from {from} to {to}"),
        Kind::Failover => format!("{name} failed over from {from} to {to}"),
        Kind::Change => format!("{name} led by {to}, before by {from}"),
    };
    let phase = |(phase, micros): (&Phase, &u64)| {
        format!("{} {}.{} ms", phase.word().replace('_', " "), micros / 1000, micros % 1000 / 100)
    };
    let phases: Vec<String> = change.phases.iter().map(phase).collect();
    let phases = if phases.is_empty() { String::new() } else { format!(": {}", phases.join(", ")) };
    let reason = if change.reason.is_empty() { String::new() } else { format!(" ({})", change.reason) };
    format!("{what}, term {term}{reason}{phases}")
}

/// `2026-01-02 03:04:05`, of milliseconds since the Unix epoch.
pub(super) fn utc(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Days of the civil calendar, counted from 0000-03-01 in eras of 400 years.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// `1.5M`
fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match UNITS.iter().find(|(size, _)| *size <= count) {
        Some((size, unit)) => format!("{}.{}{unit}", count / size, count % size * 10 / size),
        None => format!("{count}B"),
    }
}

fn memory(node: &NodeStatus) -> String {
    let used = node.memory_bytes.map_or_else(|| "-".to_owned(), bytes);
    match node.memory_max_bytes {
        0 => used,
        max => format!("{used}/{}", bytes(max)),
    }
}

fn write_nodes(out: &mut String, nodes: &[NodeStatus], names: &Names) {
    let header = [
        "NODE", "ID", "ADDRESS", "ROLE", "STATE", "IN-SYNC", "LAST", "LAG", "KEYS", "MEMORY", "OPS/S", "ZONE",
    ];
    let mut rows = vec![header.map(String::from).to_vec()];
    let mut nodes: Vec<&NodeStatus> = nodes.iter().collect();
    nodes.sort_by_key(|node| node.name(names));
    for node in nodes {
        let in_sync = match (node.in_sync, node.restarted) {
            (true, true) => "restarted",
            (true, false) => "yes",
            (false, _) => "no",
        };
        let address =
            if node.address == "-" { format!("{} (bus)", node.bus_address) } else { node.address.clone() };
        rows.push(vec![
            names.get(&node.bus_address).cloned().unwrap_or_else(|| "-".into()),
            node.id.get(..8).unwrap_or("-").to_owned(),
            address,
            node.role.clone(),
            node.state.clone(),
            in_sync.into(),
            if node.last.is_empty() { "-".into() } else { node.last.clone() },
            node.lag.map(|lag| lag.to_string()).unwrap_or_else(|| "-".into()),
            node.keys.to_string(),
            memory(node),
            node.commands_per_second.map_or_else(|| "-".to_owned(), |ops| ops.to_string()),
            node.zone.clone(),
        ]);
    }
    // Only operators who have given names see a column of them.
    if names.is_empty() {
        rows.iter_mut().for_each(|row| drop(row.remove(0)));
        if let Some(id) = rows.first_mut().and_then(|row| row.first_mut()) {
            *id = "NODE".into();
        }
    }
    write_rows(out, &rows);
}

fn write_rows(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ").expect("writing to a String cannot fail");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn times_and_sizes_can_be_read() {
        for (millis, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_709_164_800_000, "2024-02-29 00:00:00"),
            (1_767_225_599_999, "2025-12-31 23:59:59"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(millis), text);
        }
        let shown = [999, 1024, 1536, 5 << 20, 3 << 30].map(bytes);
        assert_eq!(shown, ["999B", "1.0K", "1.5K", "5.0M", "3.0G"]);
    }

    #[test]
    fn a_change_is_one_line() {
        let mut change = Change {
            shard: String::new(),
            shard_name: "mymaster".into(),
            term: 4,
            kind: Kind::Failover,
            at_millis: 0,
            from: "h1:1".into(),
            to: "h2:1".into(),
            to_id: String::new(),
            reason: "h2:1 has lost it".into(),
            phases: BTreeMap::from([(Phase::Asking, 1_250), (Phase::Noticing, 123_456)]),
        };
        let line = "mymaster failed over from h1:1 to h2:1, term 4 (h2:1 has lost it): noticing 123.4 ms, asking 1.2 ms";
        assert_eq!(told(&change), line);
        (change.kind, change.from, change.reason) = (Kind::Formed, String::new(), String::new());
        change.phases.clear();
        assert_eq!(told(&change), "mymaster formed, led by h2:1, term 4");
    }
}
