//! The values of directives: checking them, and the text that CONFIG GET shows.

use super::directives::{Directive, Kind};
use crate::notify::EventClasses;
use crate::shutdown::Options;

/// The text that CONFIG GET shows for a value, or why it is refused; `current` is the value that it replaces.
pub(super) fn normalize(directive: &Directive, value: &str, current: &str) -> Result<String, String> {
    match directive.kind {
        Kind::Integer { min, max } => Ok(integer(value, min, max)?.to_string()),
        Kind::Clamped { min, max } => Ok(integer(value, 0, i64::from(i32::MAX))?.clamp(min, max).to_string()),
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
        Kind::Choice(choices) => {
            let value = value.to_ascii_lowercase();
            if choices.contains(&value.as_str()) {
                return Ok(value);
            }
            Err(format!("argument(s) must be one of the following: {}", choices.join(", ")))
        }
        Kind::Events => match EventClasses::parse(value) {
            Some(classes) => Ok(classes.to_text()),
            None => Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into()),
        },
        Kind::SavePoints => save_points(value),
        Kind::Ending => {
            let value = value.to_ascii_lowercase();
            let parsed = Options::parse(value.split_whitespace().map(str::as_bytes));
            parsed.map(|_| value).ok_or_else(|| "Invalid shutdown options".into())
        }
        Kind::OutputLimits => merge_output_limits(current, value),
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

/// Bytes: `1k` is 1000, `1kb` 1024, and so on. What does not fit into 64 bits only by its unit counts as the largest.
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
    Some(text[..digits].parse::<u64>().ok()?.saturating_mul(unit))
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
