//! Patterns of PSUBSCRIBE and SENTINEL RESET: `*`, `?`, `[a-z]`, `[^a]`, backslash escapes.

/// Whether the whole text matches. The work is bounded by the product of the two lengths.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // After a star: where to go on when what follows does not match.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t));
            p += 1;
            continue;
        }
        let Some(&byte) = text.get(t) else {
            return pattern.get(p..).is_none_or(|rest| rest.iter().all(|b| *b == b'*'));
        };
        if let Some(len) = one(pattern.get(p..).unwrap_or_default(), byte) {
            (p, t) = (p + len, t + 1);
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (p, t) = (star, from + 1);
        } else {
            return false;
        }
    }
}

/// The length of the pattern's first element if it matches the byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', rest @ ..] => {
            let end = rest.iter().skip(1).position(|b| *b == b']').map(|i| i + 1).unwrap_or(rest.len());
            let class = rest.get(..end).unwrap_or_default();
            let (negated, class) = match class {
                [b'^', class @ ..] => (true, class),
                class => (false, class),
            };
            (in_class(class, byte) != negated).then_some((end + 2).min(pattern.len()))
        }
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

fn in_class(mut class: &[u8], byte: u8) -> bool {
    loop {
        class = match class {
            [] => return false,
            [low, b'-', high, rest @ ..] => {
                if (*low.min(high)..=*low.max(high)).contains(&byte) {
                    return true;
                }
                rest
            }
            [literal, rest @ ..] => {
                if *literal == byte {
                    return true;
                }
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("+s*", "+switch-master", true),
            ("*master", "+switch-master", true),
            ("*a*b", "xaxxbxb", true),
            ("?down", "+sdown", false),
            ("+[so]down", "+odown", true),
            ("+[^s]down", "+sdown", false),
            ("[a-c]x", "bx", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[", "[", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
