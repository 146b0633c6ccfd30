//! Users as lines of a file: `user NAME rule ...` each, nothing else.

use super::{Channels, Users, rules_of};

/// The text of a file with all users.
pub(crate) fn text_of(users: &Users) -> Vec<u8> {
    users.iter().flat_map(|user| [b"user ", &**user.name(), b" ", &user.describe(), b"\n"].concat()).collect()
}

/// The users of a file. The default user is as it is at first if there is no line for it.
///
/// # Errors
/// All that is wrong in it, in Valkey's words.
pub(crate) fn parse(text: &[u8], path: &str, channels: Channels) -> Result<Users, String> {
    let mut users = Users::default();
    let mut faults = String::new();
    let mut names: Vec<&[u8]> = Vec::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let (Some(b"user"), Some(name)) = (words.next(), words.next()) else {
            faults.push_str(&format!(
                "{path}:{number} should start with user keyword followed by the username. "
            ));
            continue;
        };
        if names.contains(&name) {
            let name = String::from_utf8_lossy(name);
            faults.push_str(&format!("WARNING: Duplicate user '{name}' found on line {number}. "));
            continue;
        }
        names.push(name);
        let Ok(rules) = rules_of(words) else {
            faults.push_str(&format!("{path}:{number}: Unmatched parenthesis in selector definition."));
            continue;
        };
        if let Err((_, why)) = users.declare(name, &rules, channels) {
            faults.push_str(&format!("{path}:{number}: {}. ", why.text()));
        }
    }
    if faults.is_empty() {
        return Ok(users);
    }
    Err(faults + "WARNING: ACL errors detected, no change to the previously active ACL rules was performed")
}
