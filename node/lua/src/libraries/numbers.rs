//! Numbers as C writes and reads them, and arguments as Lua's own libraries take them.

use mlua::{Lua, Value};

use crate::raised::{bad_argument, type_name};

/// C's `%.Ng`.
pub(super) fn general(value: f64, precision: usize) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-inf".into() } else { "inf".into() };
    }
    let precision = precision.max(1);
    let text = format!("{value:.*e}", precision - 1);
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let is_plain = -4 <= exponent && exponent < precision as i32;
    let text = if is_plain {
        format!("{value:.*}", (precision as i32 - 1 - exponent).max(0) as usize)
    } else {
        mantissa.to_owned()
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if is_plain {
        return text.to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{text}e{sign}{:02}", exponent.abs())
}

/// The number at the front of a text and how long it is, as `strtod` reads it.
pub(super) fn read(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let negative = text.first() == Some(&b'-');
    let signed = |value: f64| if negative { -value } else { value };
    let rest = &text[sign..];
    for (name, value) in
        [(b"infinity".as_slice(), f64::INFINITY), (b"inf", f64::INFINITY), (b"nan", f64::NAN)]
    {
        if rest.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name)) {
            return Some((signed(value), sign + name.len()));
        }
    }
    if let [b'0', b'x' | b'X', digits @ ..] = rest
        && let Some((value, len)) = read_hex(digits)
    {
        return Some((signed(value), sign + 2 + len));
    }
    let digits = |from: usize| rest[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(0);
    let mut end = whole;
    let mut fraction = 0;
    if rest.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        if 0 < whole + fraction {
            end += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(rest.get(end), Some(b'e' | b'E')) {
        let at = end + 1 + usize::from(matches!(rest.get(end + 1), Some(b'+' | b'-')));
        let exponent = if at <= rest.len() { digits(at) } else { 0 };
        if 0 < exponent {
            end = at + exponent;
        }
    }
    let value: f64 = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((signed(value), sign + end))
}

/// Hexadecimal digits, with a point and a binary exponent.
fn read_hex(text: &[u8]) -> Option<(f64, usize)> {
    let (mut value, mut at, mut digits, mut scale) = (0.0f64, 0, 0, 0i32);
    let mut behind_point = false;
    while let Some(&byte) = text.get(at) {
        if byte == b'.' && !behind_point {
            behind_point = true;
        } else if let Some(digit) = (byte as char).to_digit(16) {
            value = value * 16.0 + f64::from(digit);
            digits += 1;
            scale -= if behind_point { 4 } else { 0 };
        } else {
            break;
        }
        at += 1;
    }
    if digits == 0 {
        return None;
    }
    if matches!(text.get(at), Some(b'p' | b'P')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let begin = at + 1 + sign;
        let len = text.get(begin..).map_or(0, |t| t.iter().take_while(|b| b.is_ascii_digit()).count());
        if 0 < len {
            let number = std::str::from_utf8(&text[begin..begin + len]).ok()?.parse().unwrap_or(9999i32);
            scale = scale.saturating_add(if text[at + 1] == b'-' { -number } else { number });
            at = begin + len;
        }
    }
    Some((value * 2f64.powi(scale), at))
}

/// A number, or a text that is one.
pub(super) fn number(lua: &Lua, value: Option<&Value>, at: usize, function: &str) -> mlua::Result<f64> {
    let found = match value {
        Some(Value::Integer(number)) => Some(*number as f64),
        Some(Value::Number(number)) => Some(*number),
        Some(Value::String(text)) => text_as_number(&text.as_bytes()),
        _ => None,
    };
    found
        .ok_or_else(|| bad_argument(lua, at, function, &format!("number expected, got {}", type_name(value))))
}

fn text_as_number(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    let (value, len) = read(text)?;
    (len == text.len()).then_some(value)
}

/// A text, or a number written as one.
pub(super) fn text(lua: &Lua, value: Option<&Value>, at: usize, function: &str) -> mlua::Result<Vec<u8>> {
    match value {
        Some(Value::String(text)) => Ok(text.as_bytes().to_vec()),
        Some(Value::Integer(number)) => Ok(general(*number as f64, 14).into_bytes()),
        Some(Value::Number(number)) => Ok(general(*number, 14).into_bytes()),
        other => Err(bad_argument(lua, at, function, &format!("string expected, got {}", type_name(other)))),
    }
}
