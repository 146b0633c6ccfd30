//! The values of directives: checking them, and the text that CONFIG GET shows.

use super::directives::{Directive, Kind};
use crate::notify::EventClasses;
use crate::shutdown::Options;

/// The text that CONFIG GET shows for a value, or why it is refused; `current` is the value that it replaces.
pub(super) fn normalize(directive: &Directive, value: &str, current: &str) -> Result<String, String> {
    match directive.kind {
        Kind::Integer { min, max } => Ok(integer(value, min, max)?.to_string()),
        Kind::Clamped { min, max } => Ok(integer(value, 0, i64::from(i32::MAX))?.clamp(min, max).to_string()),
        // A negative number only where it stands for something.
        Kind::Memory { min, max } if min < 0 && value.starts_with('-') => {
            Ok(integer(value, min, max)?.to_string())
        }
        Kind::Memory { min, max } => {
            let bytes = parse_memory(value).ok_or("argument must be a memory value")?;
            if !i64::try_from(bytes).is_ok_and(|bytes| (min..=max).contains(&bytes)) {
                return Err(format!("argument must be between {min} and {max} inclusive"));
            }
            Ok(bytes.to_string())
        }
        Kind::MemoryOrPercent => match value.strip_suffix('%').map(str::parse::<u8>) {
            Some(Ok(percent)) if percent <= 100 => Ok(format!("{percent}%")),
            Some(Ok(_)) => Err("percentage argument must be less or equal to 100".into()),
            Some(Err(_)) => Err("argument must be a memory or percent value".into()),
            None => {
                let bytes = parse_memory(value).ok_or("argument must be a memory or percent value")?;
                Ok(bytes.to_string())
            }
        },
        Kind::YesNo => match value.to_ascii_lowercase().as_str() {
            "yes" => Ok("yes".into()),
            "no" => Ok("no".into()),
            _ => Err("argument must be 'yes' or 'no'".into()),
        },
        Kind::Text => Ok(value.to_owned()),
        Kind::Words => Ok(value.split_whitespace().collect::<Vec<_>>().join(" ")),
        Kind::FileName => {
            let what = if directive.name == "appenddirname" { "dirname" } else { "filename" };
            match value {
                "" => Err(format!("{} can't be empty", directive.name)),
                _ if value.contains('/') => Err(format!("{} can't be a path, just a {what}", directive.name)),
                "." | ".." => Err(format!("{} can't be a folder", directive.name)),
                name => Ok(name.to_owned()),
            }
        }
        Kind::Choice(choices) => {
            let found = choices.iter().find(|choice| choice.eq_ignore_ascii_case(value));
            let found = found.ok_or_else(|| must_be_one_of(choices))?;
            Ok((*found).to_owned())
        }
        Kind::Octal { max } => {
            let number = match value {
                "" => 0,
                _ => i64::from_str_radix(value, 8)
                    .map_err(|_| "argument couldn't be parsed as an octal number".to_owned())?,
            };
            if !(0..=i64::from(max)).contains(&number) {
                return Err(format!("argument must be between 0 and {max:o} inclusive"));
            }
            Ok(format!("{number:o}"))
        }
        Kind::Events => match EventClasses::parse(value) {
            Some(classes) => Ok(classes.to_text()),
            None => Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into()),
        },
        Kind::SavePoints => save_points(value),
        Kind::Ending => ending(value),
        Kind::OutputLimits => merge_output_limits(current, value),
        Kind::Percentiles => percentiles(value),
        Kind::OomScores => oom_scores(value),
        Kind::Primary => primary(value),
    }
}

fn integer(value: &str, min: i64, max: i64) -> Result<i64, String> {
    let number: i64 = keyward_proto::resp::number::parse_i64(value.as_bytes())
        .ok_or("argument couldn't be parsed into an integer".to_owned())?;
    if (min..=max).contains(&number) {
        return Ok(number);
    }
    Err(format!("argument must be between {min} and {max} inclusive"))
}

fn must_be_one_of(choices: &[&str]) -> String {
    format!("argument(s) must be one of the following: {}", choices.join(", "))
}

/// Words of SHUTDOWN, in the order in which CONFIG GET shows them.
fn ending(value: &str) -> Result<String, String> {
    const WORDS: &[&str] = &["default", "save", "nosave", "now", "force", "safe", "failover"];
    let given: Vec<String> = value.split(' ').map(str::to_ascii_lowercase).collect();
    if given.iter().any(|word| !WORDS.contains(&word.as_str())) {
        return Err(must_be_one_of(WORDS));
    }
    let words: Vec<&str> =
        WORDS[1..].iter().copied().filter(|word| given.iter().any(|g| g == word)).collect();
    if Options::parse(words.iter().map(|word| word.as_bytes())).is_none() {
        return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
    }
    Ok(if words.is_empty() { WORDS[0].to_owned() } else { words.join(" ") })
}

fn percentiles(value: &str) -> Result<String, String> {
    const NAME: &str = "latency-tracking-info-percentiles";
    let mut found = Vec::new();
    for word in value.split(' ').filter(|_| !value.is_empty()) {
        let number: f64 = word.parse().map_err(|_| format!("Invalid {NAME} parameters"))?;
        if !(0.0..=100.0).contains(&number) {
            return Err(format!("{NAME} parameters should sit between [0.0,100.0]"));
        }
        found.push(number.to_string());
    }
    Ok(found.join(" "))
}

/// Scores of a primary, a replica, and a process in the background.
fn oom_scores(value: &str) -> Result<String, String> {
    let words: Vec<&str> = value.split(' ').collect();
    if words.len() != 3 {
        return Err("wrong number of arguments".into());
    }
    let valid = |word: &&str| word.parse::<i32>().is_ok_and(|score| (-2000..=2000).contains(&score));
    if !words.iter().all(valid) {
        return Err("Invalid oom-score-adj-values, elements must be between -2000 and 2000.".into());
    }
    Ok(value.to_owned())
}

/// `no one` is nothing.
fn primary(value: &str) -> Result<String, String> {
    let Some((host, port)) = value.split_once(' ') else { return Ok(value.to_owned()) };
    if host.eq_ignore_ascii_case("no") && port.eq_ignore_ascii_case("one") {
        return Ok(String::new());
    }
    if port.parse::<u16>().is_err() {
        return Err("Invalid primary port".into());
    }
    Ok(value.to_owned())
}

/// Pairs of seconds and changes, parted by single spaces; what is between two of them, if nothing is, counts as zero.
fn save_points(value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Ok(String::new());
    }
    let number = |word: &str| if word.is_empty() { Some(0) } else { word.parse::<i32>().ok() };
    let numbers: Option<Vec<i32>> = value.split(' ').map(number).collect();
    let valid = |pair: &[i32]| pair.len() == 2 && 1 <= pair[0] && 0 <= pair[1];
    let points = numbers.filter(|n| n.chunks(2).all(valid)).ok_or("Invalid save parameters")?;
    Ok(points.iter().map(i32::to_string).collect::<Vec<_>>().join(" "))
}

/// Groups of class, hard limit, soft limit, seconds; classes that are not named keep their limits.
pub(super) fn merge_output_limits(current: &str, value: &str) -> Result<String, String> {
    let mut merged: Vec<(&str, String)> =
        ["normal", "slave", "pubsub"].map(|class| (class, String::new())).into();
    for text in [current, value] {
        let words: Vec<&str> = text.split_whitespace().collect();
        if !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        for group in words.chunks(4) {
            let class = match group[0].to_ascii_lowercase().as_str() {
                "normal" => 0,
                "slave" | "replica" => 1,
                "pubsub" => 2,
                _ => return Err("Invalid client class specified in buffer limit configuration.".into()),
            };
            let limits = (parse_memory(group[1]), parse_memory(group[2]), group[3].parse::<u32>());
            let (Some(hard), Some(soft), Ok(seconds)) = limits else {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration.".into()
                );
            };
            merged[class].1 = format!("{hard} {soft} {seconds}");
        }
    }
    Ok(merged.iter().map(|(class, limits)| format!("{class} {limits}")).collect::<Vec<_>>().join(" "))
}

/// Bytes: `1k` is 1000, `1kb` 1024, and so on. What does not fit into 64 bits only by its unit counts as the largest,
/// and no number as zero.
pub(super) fn parse_memory(text: &str) -> Option<u64> {
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

    #[test]
    fn output_limits_are_merged() {
        let all = "normal 0 0 0 slave 1 2 3 pubsub 4 5 6";
        let check = |value: &str, expect: &str| assert_eq!(merge_output_limits(all, value).unwrap(), expect);
        check("", all);
        check("replica 1kb 0 7", "normal 0 0 0 slave 1024 0 7 pubsub 4 5 6");
        check("PUBSUB 0 0 0 normal 9 9 9", "normal 9 9 9 slave 1 2 3 pubsub 0 0 0");
        assert!(merge_output_limits(all, "normal 1").is_err());
        assert!(merge_output_limits(all, "master 0 0 0").is_err());
        assert!(merge_output_limits(all, "normal 0 x 0").is_err());
    }

    #[test]
    fn save_points_are_pairs() {
        for (value, points) in
            [("900 1 300 10", "900 1 300 10"), ("", ""), ("1 ", "1 0"), ("1  3 ", "1 0 3 0")]
        {
            assert_eq!(save_points(value).unwrap(), points);
        }
        for bad in ["900", "0 1", "x 1", "900 -1", " 1 2", " ", "1\t2", "1 2 3"] {
            assert!(save_points(bad).is_err(), "{bad}");
        }
    }
}
