//! What others are shown of a request, by SLOWLOG and its like: passwords are left out.

use keyward_proto::resp::Args;

use crate::command::ascii_eq;
use crate::command::table::Row;

/// Stands in place of what nobody is to see.
pub(crate) const REDACTED: &[u8] = b"(redacted)";

/// Directives whose values nobody is to see.
const SECRETS: [&str; 6] = [
    "requirepass",
    "primaryauth",
    "masterauth",
    "primaryuser",
    "tls-key-file-pass",
    "tls-client-key-file-pass",
];

/// The arguments of a request without its secrets.
pub(crate) fn visible<'a>(row: &Row, args: Args<'a>) -> Vec<&'a [u8]> {
    let mut shown: Vec<&[u8]> = args.iter().collect();
    match row.name {
        "auth" => redact(&mut shown, 1..usize::MAX),
        "acl|setuser" | "acl|getuser" | "acl|deluser" => redact(&mut shown, 2..usize::MAX),
        "hello" => redact_options(&mut shown, 2, &[("AUTH", 2), ("SETNAME", 1)]),
        "migrate" => redact_options(&mut shown, 6, &[("AUTH", 1), ("AUTH2", 2)]),
        "config|set" => {
            for at in (3..shown.len()).step_by(2) {
                if SECRETS.iter().any(|name| ascii_eq(shown[at - 1], name)) {
                    shown[at] = REDACTED;
                }
            }
        }
        _ => {}
    }
    shown
}

fn redact(shown: &mut [&[u8]], range: std::ops::Range<usize>) {
    let end = range.end.min(shown.len());
    if let Some(secrets) = shown.get_mut(range.start..end) {
        secrets.fill(REDACTED);
    }
}

/// What stands behind an option that begins with `AUTH`; the others are passed over with their values.
fn redact_options(shown: &mut [&[u8]], first: usize, options: &[(&str, usize)]) {
    let mut at = first;
    while at < shown.len() {
        let found = options.iter().find(|(name, _)| ascii_eq(shown[at], name));
        let values = found.map_or(0, |(_, values)| *values);
        if found.is_some_and(|(name, _)| name.starts_with("AUTH")) {
            redact(shown, at + 1..at + 1 + values);
        }
        at += 1 + values;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    fn check(request: &str, expect: &str) {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let row = table::find(words[0]).unwrap();
        let row = match words.get(1) {
            Some(name) if row.has_subcommands() => table::find_subcommand(row, name).unwrap(),
            Some(_) | None => row,
        };
        let shown = visible(row, Args::from_slices(&words)).join(&b' ');
        assert_eq!(String::from_utf8(shown).unwrap(), expect);
    }

    #[test]
    fn passwords_are_not_shown() {
        check("auth secret", "auth (redacted)");
        check("AUTH user secret", "AUTH (redacted) (redacted)");
        check("hello 3 setname auth AUTH u p", "hello 3 setname auth AUTH (redacted) (redacted)");
        check("hello 3 auth u", "hello 3 auth (redacted)");
        check("config set requirepass a timeout 3", "config set requirepass (redacted) timeout 3");
        check("config set timeout requirepass", "config set timeout requirepass");
        check("set auth secret", "set auth secret");
    }
}
