//! The 80-bit floating point numbers (C's `long double` on x86-64) in which INCRBYFLOAT and HINCRBYFLOAT add.
//!
//! Valkey adds in this format and prints 17 decimals without trailing zeros, so that 0.1 + 0.2 is 0.3. Clients see
//! the digits, so the same format is needed here; Rust has no such type. A number is `mantissa * 2^exponent` with a
//! mantissa of 64 bits, rounded to nearest, ties to even.

use std::fmt::Write as _;

/// Exponent of the smallest subnormal number.
const EXPONENT_MIN: i32 = -16445;
/// Exponent of the largest number.
const EXPONENT_MAX: i32 = 16320;
/// Longer texts are no numbers for Valkey.
const TEXT_LEN_MAX: usize = 5 * 1024 - 1;
/// Decimals that are printed, before trailing zeros are removed.
const DECIMALS: usize = 17;
const TEN_POW_DECIMALS: u128 = 10u128.pow(17);
/// Beyond these, a decimal number overflows or is zero whatever its digits are.
const DECIMAL_EXPONENT_MAX: i64 = 4940;
const DECIMAL_EXPONENT_MIN: i64 = -4960;

const BILLION: u32 = 1_000_000_000;

/// See the module documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LongDouble {
    negative: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Finite {
        mantissa: u64,
        exponent: i32,
    },
    Infinite,
    /// The sum of opposite infinities.
    NotANumber,
}

impl LongDouble {
    pub(super) const ZERO: LongDouble =
        LongDouble { negative: false, kind: Kind::Finite { mantissa: 0, exponent: EXPONENT_MIN } };

    /// Reads a number as C's `strtold` does, all of the text: decimal or hexadecimal, `inf`. `None` if it is none,
    /// if it is NaN, or if it is too large or too close to zero.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || TEXT_LEN_MAX < text.len() {
            return None;
        }
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble { negative, kind: Kind::Infinite });
        }
        let magnitude = match digits {
            [b'0', b'x' | b'X', rest @ ..] => parse_hexadecimal(rest)?,
            _ => parse_decimal(digits)?,
        };
        Some(LongDouble { negative, kind: magnitude })
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let (a, b) = match (self.kind, other.kind) {
            (Kind::Finite { mantissa: m, exponent: e }, Kind::Finite { mantissa, exponent }) => {
                ((self.negative, m, e), (other.negative, mantissa, exponent))
            }
            (Kind::Infinite, Kind::Infinite) if self.negative != other.negative => {
                return LongDouble { negative: false, kind: Kind::NotANumber };
            }
            (Kind::NotANumber | Kind::Infinite, _) => return self,
            (Kind::Finite { .. }, _) => return other,
        };
        if a.1 == 0 || b.1 == 0 {
            return if b.1 == 0 { self } else { other };
        }
        let ((negative, high, high_exponent), (other_negative, low, low_exponent)) =
            if b.2 <= a.2 { (a, b) } else { (b, a) };
        // The larger one gets up to 63 more bits; what the smaller one loses beyond them only decides ties.
        let distance = high_exponent.abs_diff(low_exponent);
        let up = distance.min(63);
        let down = distance - up;
        let exponent = high_exponent - i32::try_from(up).expect("at most 63");
        let high = u128::from(high) << up;
        let low_kept = if down < 64 { low >> down } else { 0 };
        let lost = down > 0 && (64 <= down || low & ((1 << down) - 1) != 0);
        let low = u128::from(low_kept);
        let (negative, sum) = match (negative == other_negative, low <= high) {
            (true, _) => (negative, high + low),
            // A lost part is taken off as well: the difference is a little smaller than that of the kept parts.
            (false, true) => (negative, high - low - u128::from(lost)),
            (false, false) => (other_negative, low - high),
        };
        LongDouble { negative, kind: rounded(sum, exponent, lost) }
    }

    /// The number with up to 17 decimals, never in exponent notation. `None` if it is not finite.
    pub(super) fn to_text(self) -> Option<String> {
        let Kind::Finite { mantissa, exponent } = self.kind else { return None };
        let mut text = String::new();
        if self.negative {
            text.push('-');
        }
        let infallible = "a String takes everything";
        if 0 <= exponent {
            let mut digits = Digits::from(mantissa);
            digits.shift_left(exponent.unsigned_abs() as usize);
            digits.write_decimal(&mut text);
        } else {
            let scaled = round_shift(u128::from(mantissa) * TEN_POW_DECIMALS, exponent.unsigned_abs(), false);
            write!(text, "{}", scaled / TEN_POW_DECIMALS).expect(infallible);
            write!(text, ".{:0DECIMALS$}", scaled % TEN_POW_DECIMALS).expect(infallible);
            text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        }
        Some(if text == "-0" { "0".into() } else { text })
    }
}

/// `value / 2^shift`, rounded to nearest, ties to even. `more`: the value is a little larger than it says.
fn round_shift(value: u128, shift: u32, more: bool) -> u128 {
    match shift {
        0 => value,
        1..128 => {
            let (quotient, rest) = (value >> shift, value & ((1 << shift) - 1));
            let half = 1u128 << (shift - 1);
            let up = half < rest || rest == half && (more || quotient & 1 == 1);
            quotient + u128::from(up)
        }
        // Far less than one half: callers pass less than 2^127 with such shifts.
        _ => 0,
    }
}

/// `value * 2^exponent` as a number with a mantissa of 64 bits.
fn rounded(value: u128, exponent: i32, more: bool) -> Kind {
    let bits = 128 - value.leading_zeros();
    let wanted = i64::from(bits) - 64;
    let shift = wanted.max(i64::from(EXPONENT_MIN) - i64::from(exponent));
    let (mantissa, exponent) = match u32::try_from(shift) {
        Ok(shift) => (round_shift(value, shift, more), i64::from(exponent) + i64::from(shift)),
        Err(_) => (value << shift.unsigned_abs(), i64::from(exponent) + shift),
    };
    let (mantissa, exponent) = match u64::try_from(mantissa) {
        Ok(mantissa) => (mantissa, exponent),
        // It was rounded up to 2^64.
        Err(_) => (1 << 63, exponent + 1),
    };
    match i32::try_from(exponent) {
        Ok(exponent) if exponent <= EXPONENT_MAX => Kind::Finite { mantissa, exponent },
        Ok(_) | Err(_) => Kind::Infinite,
    }
}

/// As [`rounded`], but a number that became zero or infinite is refused.
fn in_range(value: u128, exponent: i32, more: bool) -> Option<Kind> {
    match rounded(value, exponent, more) {
        Kind::Finite { mantissa: 0, .. } | Kind::Infinite | Kind::NotANumber => None,
        finite @ Kind::Finite { .. } => Some(finite),
    }
}

/// Digits before and behind a point, and the exponent's text.
struct Parts<'a> {
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

/// Splits `12.5e-3`; at least one digit is needed.
fn split(text: &[u8], is_digit: fn(&u8) -> bool, marker: u8) -> Option<Parts<'_>> {
    let end = text.iter().position(|b| b.to_ascii_lowercase() == marker).unwrap_or(text.len());
    let (number, exponent) = text.split_at(end);
    let point = number.iter().position(|b| *b == b'.').unwrap_or(number.len());
    let (whole, fraction) = (&number[..point], number.get(point + 1..).unwrap_or_default());
    let digits = || whole.iter().chain(fraction);
    if digits().next().is_none() || !digits().all(is_digit) {
        return None;
    }
    let exponent = match exponent {
        [] => 0,
        [_, sign @ (b'+' | b'-'), digits @ ..] => {
            let value = parse_exponent(digits)?;
            if *sign == b'-' { -value } else { value }
        }
        [_, digits @ ..] => parse_exponent(digits)?,
    };
    Some(Parts { whole, fraction, exponent })
}

/// Saturates far beyond all exponents that matter.
fn parse_exponent(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value: i64, d| (value * 10 + i64::from(d - b'0')).min(1_000_000_000)))
}

fn parse_decimal(text: &[u8]) -> Option<Kind> {
    let parts = split(text, u8::is_ascii_digit, b'e')?;
    let mut digits: Vec<u8> = parts.whole.iter().chain(parts.fraction).copied().collect();
    let zeros = digits.iter().take_while(|d| **d == b'0').count();
    digits.drain(..zeros);
    let mut exponent = parts.exponent - i64::try_from(parts.fraction.len()).ok()?;
    while digits.last() == Some(&b'0') {
        digits.pop();
        exponent += 1;
    }
    if digits.is_empty() {
        return Some(LongDouble::ZERO.kind);
    }
    let magnitude = exponent + i64::try_from(digits.len()).ok()?;
    if !(DECIMAL_EXPONENT_MIN..=DECIMAL_EXPONENT_MAX).contains(&magnitude) {
        return None;
    }
    let mut number = Digits::default();
    for digit in &digits {
        number.multiply_add(10, u32::from(digit - b'0'));
    }
    let tens = exponent.unsigned_abs();
    if 0 <= exponent {
        for _ in 0..tens / 9 {
            number.multiply_add(BILLION, 0);
        }
        number.multiply_add(10u32.pow((tens % 9) as u32), 0);
        let (value, exponent, more) = number.top();
        return in_range(value, exponent, more);
    }
    // Enough bits that the quotient has at least 66: log2(10) < 3.33.
    let quotient_bits = 67 + tens as usize * 333 / 100 + 1;
    let shift = quotient_bits.saturating_sub(number.bits());
    number.shift_left(shift);
    let mut more = false;
    for _ in 0..tens / 9 {
        more |= number.divide(BILLION) != 0;
    }
    more |= number.divide(10u32.pow((tens % 9) as u32)) != 0;
    let (value, exponent, lost) = number.top();
    in_range(value, exponent - i32::try_from(shift).ok()?, more | lost)
}

fn parse_hexadecimal(text: &[u8]) -> Option<Kind> {
    let parts = split(text, u8::is_ascii_hexdigit, b'p')?;
    let mut number = Digits::default();
    for digit in parts.whole.iter().chain(parts.fraction) {
        number.multiply_add(16, char::from(*digit).to_digit(16)?);
    }
    if number.bits() == 0 {
        return Some(LongDouble::ZERO.kind);
    }
    let (value, exponent, more) = number.top();
    let shift = parts.exponent - 4 * i64::try_from(parts.fraction.len()).ok()?;
    in_range(value, i32::try_from(i64::from(exponent) + shift).ok()?, more)
}

/// A natural number of any size, in 32-bit digits, the least significant one first; no zero digit at the end.
#[derive(Debug, Default)]
struct Digits(Vec<u32>);

impl From<u64> for Digits {
    #[allow(clippy::cast_possible_truncation, reason = "it is split into its halves")]
    fn from(value: u64) -> Self {
        let mut digits = Digits(vec![value as u32, (value >> 32) as u32]);
        digits.trim();
        digits
    }
}

#[allow(clippy::cast_possible_truncation, reason = "64-bit results are split into digits")]
impl Digits {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn bits(&self) -> usize {
        self.0.last().map_or(0, |top| self.0.len() * 32 - top.leading_zeros() as usize)
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for digit in &mut self.0 {
            carry += u64::from(*digit) * u64::from(factor);
            *digit = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    /// Divides; returns the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0u64;
        for digit in self.0.iter_mut().rev() {
            rest = rest << 32 | u64::from(*digit);
            *digit = (rest / u64::from(divisor)) as u32;
            rest %= u64::from(divisor);
        }
        self.trim();
        rest as u32
    }

    fn shift_left(&mut self, bits: usize) {
        self.multiply_add(1 << (bits % 32), 0);
        if !self.0.is_empty() {
            self.0.splice(0..0, std::iter::repeat_n(0, bits / 32));
        }
    }

    /// The number as `value * 2^exponent`; the last part tells whether lower bits were left out.
    fn top(&self) -> (u128, i32, bool) {
        let skipped = self.0.len().saturating_sub(4);
        let value = self.0[skipped..].iter().rev().fold(0u128, |value, d| value << 32 | u128::from(*d));
        let exponent = i32::try_from(skipped * 32).expect("texts are short");
        (value, exponent, self.0[..skipped].iter().any(|d| *d != 0))
    }

    fn write_decimal(mut self, text: &mut String) {
        let mut groups = Vec::new();
        while !self.0.is_empty() {
            groups.push(self.divide(BILLION));
        }
        let infallible = "a String takes everything";
        write!(text, "{}", groups.pop().unwrap_or(0)).expect(infallible);
        for group in groups.iter().rev() {
            write!(text, "{group:09}").expect(infallible);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        LongDouble::parse(a.as_bytes())?.plus(LongDouble::parse(b.as_bytes())?).to_text()
    }

    /// The results are those of a real Valkey server.
    #[test]
    fn sums_are_valkeys() {
        for (a, b, expect) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3", "0"),
            ("-1e-30", "0", "0"),
            ("0", "0x10", "16"),
            ("0", "0x1.8p3", "12"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("-9223372036854775805", "0.1", "-9223372036854775805"),
            ("1e30", "-1e30", "0"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("1.5", "+.5", "2"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expect), "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in
            ["", " 1", "1 ", "abc", "nan", "1e", "1e+", ".", "-", "0x", "1e5000", "1e-5000", "1.2.3", "1e5.0"]
        {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(LongDouble::parse(&[b'1'; TEXT_LEN_MAX + 1]), None);
        assert!(LongDouble::parse(&[b'9'; 4000]).is_some());
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("inf", "-inf"), None);
    }

    #[test]
    fn doubles_survive() {
        for value in [0.1f64, 1.0 / 3.0, 123_456_789.123_456_79, 1e-5, 2f64.powi(62), 4_503_599_627_370_497.5]
        {
            let text = sum(&format!("{value}"), "0").unwrap();
            assert_eq!(text.parse::<f64>().unwrap(), value, "{text}");
        }
    }
}
