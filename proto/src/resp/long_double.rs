//! The 80-bit floating point numbers of x86 (64 bits of mantissa), in which Valkey's INCRBYFLOAT and HINCRBYFLOAT
//! calculate: their replies show its digits, and what a client sees must not depend on the server.
//!
//! Only what these commands need: reading a text, adding, and writing with at most 17 decimals. All three round
//! to nearest, ties to even, exactly. Differs from the hardware: numbers below 2^-16382 keep their full precision,
//! which 17 decimals cannot show.

use std::cmp::Ordering;

/// Longest text that is read as a number, as in Valkey.
const TEXT_LEN_MAX: usize = 5 * 1024 - 1;
/// Numbers of 2^16384 and more are infinite.
const BITS_MAX: i64 = 16384;
/// Numbers below 2^-16445 are zero.
const BITS_MIN: i64 = -16445;
const DECIMALS: u32 = 17;

/// See the module documentation. Not NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Magnitude {
    Zero,
    /// `mantissa * 2^exponent`; the mantissa's highest bit is set.
    Finite {
        mantissa: u64,
        exponent: i64,
    },
    Infinite,
}

impl LongDouble {
    pub const ZERO: LongDouble = LongDouble { negative: false, magnitude: Magnitude::Zero };

    /// Reads what C's `strtold` reads, the whole text, without leading space: decimal, hexadecimal, `inf`. `None`
    /// also for NaN, and if the number is too large, or so small that it would be zero.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if TEXT_LEN_MAX < text.len() {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let magnitude = match text {
            [b'0', b'x' | b'X', digits @ ..] => parse_digits(digits, 16)?,
            _ if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") => {
                return Some(LongDouble { negative, magnitude: Magnitude::Infinite });
            }
            _ => parse_digits(text, 10)?,
        };
        (magnitude != Magnitude::Infinite).then_some(LongDouble { negative, magnitude })
    }

    pub fn is_infinite(self) -> bool {
        self.magnitude == Magnitude::Infinite
    }

    /// About the same number.
    pub fn to_f64(self) -> f64 {
        let magnitude = match self.magnitude {
            Magnitude::Zero => 0.0,
            Magnitude::Infinite => f64::INFINITY,
            Magnitude::Finite { mantissa, exponent } => {
                // In two steps, each of which is within the range of a double where the result is.
                let exponent = i32::try_from(exponent).expect("within BITS_MIN and BITS_MAX");
                let half = exponent / 2;
                mantissa as f64 * 2f64.powi(half) * 2f64.powi(exponent - half)
            }
        };
        if self.negative { -magnitude } else { magnitude }
    }

    /// The sum; `None` if it is infinite or not a number.
    pub fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
        let (m1, e1, m2, e2) = match (self.magnitude, other.magnitude) {
            (Magnitude::Infinite, _) | (_, Magnitude::Infinite) => return None,
            (Magnitude::Zero, Magnitude::Zero) => {
                return Some(LongDouble { negative: self.negative && other.negative, ..LongDouble::ZERO });
            }
            (Magnitude::Zero, Magnitude::Finite { .. }) => return Some(other),
            (Magnitude::Finite { .. }, Magnitude::Zero) => return Some(self),
            (
                Magnitude::Finite { mantissa: m1, exponent: e1 },
                Magnitude::Finite { mantissa: m2, exponent: e2 },
            ) => (m1, e1, m2, e2),
        };
        if (e1, m1) < (e2, m2) {
            return other.checked_add(self);
        }
        // 62 bits below the mantissa; what is shifted out beyond them only matters as "not zero".
        let large = u128::from(m1) << 62;
        let shifted = u128::from(m2) << 62;
        let distance = u32::try_from(e1 - e2).ok().filter(|d| *d < 126);
        let small = distance.map_or(1, |d| {
            let kept = shifted >> d;
            if kept << d == shifted { kept } else { kept | 1 }
        });
        let sum = if self.negative == other.negative { large + small } else { large - small };
        if sum == 0 {
            return Some(LongDouble::ZERO);
        }
        let sum = LongDouble { negative: self.negative, magnitude: round(sum, e1 - 62) };
        (!sum.is_infinite()).then_some(sum)
    }
}

/// As `%.17Lf`, without the zeros at the end of the fraction.
impl std::fmt::Display for LongDouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (integer, fraction) = match self.magnitude {
            Magnitude::Infinite => ("inf".to_owned(), 0),
            Magnitude::Zero => ("0".to_owned(), 0),
            Magnitude::Finite { mantissa, exponent: exponent @ 0.. } => {
                let mut big = Big::from(mantissa);
                big.shift_left(exponent.unsigned_abs());
                (big.into_decimal(), 0)
            }
            Magnitude::Finite { mantissa, exponent } => {
                let one = 10u128.pow(DECIMALS);
                let scaled = shift_right_rounded(u128::from(mantissa) * one, exponent.unsigned_abs());
                ((scaled / one).to_string(), scaled % one)
            }
        };
        if self.negative && (integer != "0" || fraction != 0) {
            f.write_str("-")?;
        }
        f.write_str(&integer)?;
        if fraction == 0 {
            return Ok(());
        }
        let digits = format!("{fraction:017}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

/// `value / 2^by`, to nearest, ties to even.
fn shift_right_rounded(value: u128, by: u64) -> u128 {
    let Some(by) = u32::try_from(by).ok().filter(|by| *by < 128) else { return 0 };
    if by == 0 {
        return value;
    }
    let (kept, half) = (value >> by, 1u128 << (by - 1));
    let rest = value & ((half << 1).wrapping_sub(1));
    match rest.cmp(&half) {
        Ordering::Less => kept,
        Ordering::Equal => kept + (kept & 1),
        Ordering::Greater => kept + 1,
    }
}

/// `value * 2^exponent` with a mantissa of 64 bits; `value` is not zero.
fn round(value: u128, exponent: i64) -> Magnitude {
    let bits = 128 - value.leading_zeros();
    let (mut mantissa, mut exponent) = match bits.checked_sub(64) {
        Some(excess) => (shift_right_rounded(value, u64::from(excess)), exponent + i64::from(excess)),
        None => (value << (64 - bits), exponent - i64::from(64 - bits)),
    };
    if mantissa >> 64 != 0 {
        mantissa >>= 1;
        exponent += 1;
    }
    let mantissa = u64::try_from(mantissa).expect("64 bits are left");
    match exponent + 64 {
        bits if BITS_MAX < bits => Magnitude::Infinite,
        bits if bits < BITS_MIN => Magnitude::Zero,
        _ => Magnitude::Finite { mantissa, exponent },
    }
}

/// Digits with an optional point and exponent, in base 10 or 16 (then the exponent is one of 2, behind a `p`).
fn parse_digits(text: &[u8], base: u32) -> Option<Magnitude> {
    let marker = if base == 10 { b'e' } else { b'p' };
    let (digits, exponent) = match text.iter().position(|b| b.to_ascii_lowercase() == marker) {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let (mut number, mut seen, mut decimals) = (Big::from(0), false, None);
    for byte in digits {
        if *byte == b'.' && decimals.is_none() {
            decimals = Some(0i64);
            continue;
        }
        number.multiply_add(base, char::from(*byte).to_digit(base)?);
        seen = true;
        decimals = decimals.map(|n| n + 1);
    }
    if !seen {
        return None;
    }
    if number.is_zero() {
        return Some(Magnitude::Zero);
    }
    let decimals = decimals.unwrap_or(0);
    let magnitude = if base == 16 {
        quotient(number, Big::from(1), exponent - 4 * decimals)
    } else {
        let power = exponent - decimals;
        // Far outside of what can be represented, whatever the digits are.
        if power > 5000 || power < -5000 - i64::try_from(TEXT_LEN_MAX).ok()? {
            return None;
        }
        let mut scale = Big::from(1);
        let target = if power < 0 { &mut scale } else { &mut number };
        (0..power.unsigned_abs()).for_each(|_| target.multiply_add(10, 0));
        quotient(number, scale, 0)
    };
    // Not zero, but too small: C reports a range error.
    (magnitude != Magnitude::Zero).then_some(magnitude)
}

/// Clamped to a range far beyond what can be represented.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0i64, |value, d| (value * 10 + i64::from(d - b'0')).min(1_000_000));
    Some(sign * value)
}

/// `numerator / denominator * 2^exponent`; neither is zero.
fn quotient(mut numerator: Big, mut denominator: Big, exponent: i64) -> Magnitude {
    let (n, d) = (numerator.bits(), denominator.bits());
    if n < d {
        numerator.shift_left(d - n)
    } else {
        denominator.shift_left(n - d)
    }
    // Now the quotient is between 1/2 and 2: 67 bits of it, and one that says whether anything follows.
    let mut bits = 0u128;
    for _ in 0..67 {
        bits <<= 1;
        if denominator.compare(&numerator) != Ordering::Greater {
            numerator.subtract(&denominator);
            bits |= 1;
        }
        numerator.shift_left(1);
    }
    bits = bits << 1 | u128::from(!numerator.is_zero());
    let scale = i64::try_from(n).expect("a text is short") - i64::try_from(d).expect("a text is short");
    round(bits, exponent + scale - 67)
}

/// A natural number of any size: limbs of 32 bits, lowest first, without zeros at the top.
#[derive(Debug, Clone)]
struct Big(Vec<u32>);

impl From<u64> for Big {
    fn from(value: u64) -> Self {
        let mut big = Big(vec![low(value), low(value >> 32)]);
        big.trim();
        big
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn low(value: u64) -> u32 {
    value as u32
}

impl Big {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> u64 {
        self.0.last().map_or(0, |top| self.0.len() as u64 * 32 - u64::from(top.leading_zeros()))
    }

    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.0 {
            let value = u64::from(*limb) * u64::from(factor) + carry;
            *limb = low(value);
            carry = value >> 32;
        }
        if carry != 0 {
            self.0.push(low(carry));
        }
    }

    fn shift_left(&mut self, by: u64) {
        if self.is_zero() || by == 0 {
            return;
        }
        let (limbs, bits) = (usize::try_from(by / 32).expect("numbers are small"), by % 32);
        let mut carry = 0;
        for limb in &mut self.0 {
            let value = u64::from(*limb) << bits | carry;
            *limb = low(value);
            carry = value >> 32;
        }
        if carry != 0 {
            self.0.push(low(carry));
        }
        self.0.splice(0..0, std::iter::repeat_n(0, limbs));
    }

    fn compare(&self, other: &Big) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// `other` is not larger.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = 0;
        for (i, limb) in self.0.iter_mut().enumerate() {
            let (value, first) = limb.overflowing_sub(other.0.get(i).copied().unwrap_or(0));
            let (value, second) = value.overflowing_sub(borrow);
            *limb = value;
            borrow = u32::from(first || second);
        }
        debug_assert_eq!(borrow, 0);
        self.trim();
    }

    fn into_decimal(mut self) -> String {
        const GROUP: u64 = 1_000_000_000;
        let mut groups = Vec::new();
        while !self.is_zero() {
            let mut rest = 0u64;
            for limb in self.0.iter_mut().rev() {
                let value = rest << 32 | u64::from(*limb);
                *limb = low(value / GROUP);
                rest = value % GROUP;
            }
            groups.push(rest);
            self.trim();
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        groups.iter().rev().for_each(|group| text.push_str(&format!("{group:09}")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<LongDouble> {
        LongDouble::parse(text.as_bytes())
    }

    #[test]
    fn sums_show_the_digits_of_the_hardware() {
        for (a, b, sum) in [
            ("0.1", "0.2", "0.3"),
            ("1.1", "3.0e3", "3001.10000000000000009"),
            ("3001.10000000000000009", "1e17", "100000000000003001.1015625"),
            ("0", "1e-17", "0.00000000000000001"),
            ("0.00000000000000001", "5e-18", "0.00000000000000002"),
            ("0", "-1e-18", "0"),
            ("16", "0x10", "32"),
            ("5", "-5", "0"),
            ("1e19", "-1", "9999999999999999999"),
            ("1", "0x1p-1", "1.5"),
            ("10.5", "-0.5", "10"),
            ("-3", "1.25", "-1.75"),
            ("0", "0x1.8p3", "12"),
            ("-1e-30", "0", "0"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("-9223372036854775805", "0.1", "-9223372036854775805"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("1e30", "-1e30", "0"),
        ] {
            let (a, b) = (parse(a).unwrap(), parse(b).unwrap());
            assert_eq!(a.checked_add(b).unwrap().to_string(), sum, "{a} + {b}");
            assert_eq!(b.checked_add(a).unwrap().to_string(), sum, "{b} + {a}");
        }
        let large = parse("1e400").unwrap().to_string();
        assert!(large.starts_with("1000000000000000000028188068394758651458645343362905203862591069353968"));
        assert_eq!(large.len(), 401);
    }

    #[test]
    fn whole_numbers_are_exact() {
        for i in [0u64, 1, 7, 1 << 52, u64::MAX, u64::MAX - 1] {
            assert_eq!(parse(&i.to_string()).unwrap().to_string(), i.to_string());
        }
        let max = parse("1.18973149535723176502e4932").unwrap();
        assert_eq!(max.checked_add(max), None);
        assert_eq!(parse("inf").unwrap().checked_add(max), None);
    }

    #[test]
    fn doubles_survive() {
        for value in
            [0.1f64, 1.0 / 3.0, 123_456_789.123_456_79, 1e-5, 2f64.powi(62), 0.0, -1.5, 1e300, 1e-300]
        {
            assert_eq!(parse(&format!("{value:e}")).unwrap().to_f64(), value);
        }
        assert_eq!(parse("1e400").unwrap().to_f64(), f64::INFINITY);
        assert_eq!(parse("-1e-400").unwrap().to_f64(), 0.0);
    }

    #[test]
    fn texts_that_are_no_numbers() {
        for text in ["", " 1", "1 ", "nan", "1e", "e1", ".", "-", "0x", "1e5000", "1e-5000", "1.2.3", "--1"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        for text in ["1.", ".5", "+1", "1E+2", "-Inf", "0e99999", "-0"] {
            assert!(parse(text).is_some(), "{text:?}");
        }
    }
}
