//! Integers and doubles as Valkey reads and writes them.

use super::grisu;

/// A decimal integer in its one canonical form: no sign but `-`, no leading zeros, no spaces.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    if digits.len() > 19 {
        return None;
    }
    let mut value: u64 = 0;
    for d in digits {
        let d = d.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(d))?;
    }
    if negative {
        if value == 1 << 63 { Some(i64::MIN) } else { i64::try_from(value).ok().map(|v| -v) }
    } else {
        i64::try_from(value).ok()
    }
}

/// A double as Valkey accepts it in arguments: decimal with or without exponent, `inf`, `infinity`; not hexadecimal,
/// not NaN, no spaces, and not a number whose nearest double is infinite or, though it is not zero, zero.
#[inline]
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let value = parse_f64_unbounded(text)?;
    if value == 0.0 || value.is_infinite() {
        let mantissa = text.split(|b| matches!(b, b'e' | b'E')).next().unwrap_or_default();
        let lost = if value == 0.0 {
            mantissa.iter().any(|b| matches!(b, b'1'..=b'9'))
        } else {
            mantissa.iter().any(u8::is_ascii_digit)
        };
        if lost {
            return None;
        }
    }
    Some(value)
}

/// As [`parse_f64`], but what is too large becomes infinite and what is too small becomes zero: bounds of ranges.
#[inline]
pub fn parse_f64_unbounded(text: &[u8]) -> Option<f64> {
    // Most scores are short integers.
    if let [b'0'..=b'9', ..] = text
        && text.len() <= 15
        && text.iter().all(u8::is_ascii_digit)
    {
        let value = text.iter().fold(0u64, |value, d| value * 10 + u64::from(d - b'0'));
        return Some(value as f64);
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// Integers up to this magnitude are written as such.
const INTEGER_MAX: f64 = (1u64 << 62) as f64;

/// A text that reads back as the same double, as Valkey writes it: `3`, `0.1`, `1e+20`, `inf`, `-0`.
pub fn format_double(value: f64) -> String {
    let mut text = String::with_capacity(24);
    push_double(&mut text, value);
    text
}

/// Appends what [`format_double`] returns.
pub fn push_double(text: &mut String, value: f64) {
    if value.is_nan() {
        return text.push_str("nan");
    }
    if value.is_infinite() {
        return text.push_str(if value > 0.0 { "inf" } else { "-inf" });
    }
    if value == 0.0 {
        return text.push_str(if value.is_sign_negative() { "-0" } else { "0" });
    }
    if value.abs() <= INTEGER_MAX && value == (value as i64) as f64 {
        return text.push_str(itoa::Buffer::new().format(value as i64));
    }
    if value < 0.0 {
        text.push('-');
    }
    let decimal = grisu::digits(value.abs());
    let digits = std::str::from_utf8(decimal.digits()).expect("decimal digits are ASCII");
    push_digits(text, digits, decimal.exponent);
}

/// Appends `digits * 10^exponent`, in plain form as long as that is not much longer than the digits.
fn push_digits(text: &mut String, digits: &str, exponent: i32) {
    let len = digits.len() as i32;
    let scientific = exponent + len - 1;
    if 0 <= exponent && scientific < len + 7 {
        text.push_str(digits);
        text.extend(std::iter::repeat_n('0', exponent as usize));
    } else if exponent < 0 && (-7 < exponent || scientific.abs() < 4) {
        let point = len + exponent;
        if point <= 0 {
            text.push_str("0.");
            text.extend(std::iter::repeat_n('0', -point as usize));
            text.push_str(digits);
        } else {
            let (integral, fraction) = digits.split_at(point as usize);
            text.push_str(integral);
            text.push('.');
            text.push_str(fraction);
        }
    } else {
        let (first, rest) = digits.split_at(1);
        text.push_str(first);
        if !rest.is_empty() {
            text.push('.');
            text.push_str(rest);
        }
        text.push_str(if scientific < 0 { "e-" } else { "e+" });
        text.push_str(itoa::Buffer::new().format(scientific.unsigned_abs()));
    }
}

/// C's `%.17g`: up to 17 significant digits. Valkey writes the scores of a large sorted set like this in ZSCAN.
pub fn format_double_17(value: f64) -> String {
    if value.is_infinite() || value.is_nan() || value == 0.0 {
        return format_double(value);
    }
    let text = format!("{value:.16e}");
    let (mantissa, exponent) = text.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let text = if (-4..17).contains(&exponent) {
        format!("{value:.*}", (16 - exponent) as usize)
    } else {
        mantissa.into()
    };
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if (-4..17).contains(&exponent) {
        return trimmed.into();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{trimmed}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("", None),
            ("-", None),
            ("1a", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn doubles_as_valkey_writes_them() {
        for (value, text) in [
            (3.0, "3"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (-0.0, "-0"),
            (1e15, "1000000000000000"),
            (4_611_686_018_427_387_904.0, "4611686018427387904"),
            (9_223_372_036_854_775_807.0, "9223372036854776000"),
            (1e20, "1e+20"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (123e20, "12300000000000001000000"),
            (0.000001, "0.000001"),
            (0.0000001, "1e-7"),
            (12345.678e-10, "1.2345678e-6"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            // Where Grisu2 is not the shortest.
            (0.56744, "0.5674400000000001"),
            (912_884_737_284_223.8, "912884737284223.7"),
            (9.9755e20, "997550000000000100000"),
        ] {
            assert_eq!(format_double(value), text);
            assert_eq!(parse_f64(text.as_bytes()), Some(value));
        }
    }

    #[test]
    fn doubles_read_back() {
        let mut bits = 1u64;
        for _ in 0..100_000 {
            bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let value = f64::from_bits(bits ^ (bits >> 31));
            if value.is_finite() {
                assert_eq!(parse_f64(format_double(value).as_bytes()), Some(value));
                assert_eq!(parse_f64(format_double_17(value).as_bytes()), Some(value));
            }
        }
    }

    #[test]
    fn seventeen_digits() {
        for (value, text) in [
            (3.0, "3"),
            (0.3, "0.29999999999999999"),
            (1e17, "1e+17"),
            (1e16, "10000000000000000"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (5e-324, "4.9406564584124654e-324"),
            (12345678901234567890.0, "1.2345678901234567e+19"),
            (f64::NEG_INFINITY, "-inf"),
            (-0.0, "-0"),
        ] {
            assert_eq!(format_double_17(value), text);
        }
    }

    #[test]
    fn what_is_a_double() {
        for (text, value) in [
            ("inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("+5", Some(5.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1E5", Some(1e5)),
            ("0e999", Some(0.0)),
            ("5e-324", Some(5e-324)),
            ("2e-324", None),
            ("1e400", None),
            ("-1e400", None),
            ("nan", None),
            ("0x10", None),
            ("1e", None),
            (" 5", None),
            ("5 ", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), value, "{text:?}");
        }
        assert_eq!(parse_f64_unbounded(b"1e400"), Some(f64::INFINITY));
        assert_eq!(parse_f64_unbounded(b"1e-400"), Some(0.0));
    }
}
