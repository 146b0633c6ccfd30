//! The digits of a double: Grisu2 (Florian Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with
//! Integers", PLDI 2010).
//!
//! Valkey prints doubles with Grisu2, whose result always reads back as the same double but is not the shortest in
//! about one case of a thousand. Replies must not differ in these either, so the shortest digits, which the
//! standard library offers, do not do. The choice of the cached power and the roundings are part of the result.

/// A number `fraction * 2^exponent`.
#[derive(Debug, Clone, Copy)]
struct Fp {
    fraction: u64,
    exponent: i32,
}

impl Fp {
    fn normalized(self) -> Fp {
        let shift = self.fraction.leading_zeros();
        Fp { fraction: self.fraction << shift, exponent: self.exponent - shift as i32 }
    }

    /// The product, rounded to 64 bits.
    fn times(self, other: Fp) -> Fp {
        let product = u128::from(self.fraction) * u128::from(other.fraction);
        let fraction = ((product + (1 << 63)) >> 64) as u64;
        Fp { fraction, exponent: self.exponent + other.exponent + 64 }
    }
}

/// Decimal digits and the exponent of ten of the last one.
#[derive(Debug)]
pub(super) struct Decimal {
    digits: [u8; 20],
    len: usize,
    pub(super) exponent: i32,
}

impl Decimal {
    pub(super) fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    fn push(&mut self, digit: u64) {
        if digit != 0 || self.len != 0 {
            self.digits[self.len] = b'0' + digit as u8;
            self.len += 1;
        }
    }
}

const FRACTION_BITS: u32 = 52;
const HIDDEN_BIT: u64 = 1 << FRACTION_BITS;

/// The digits of a finite double above zero.
pub(super) fn digits(value: f64) -> Decimal {
    let bits = value.to_bits();
    let (fraction, biased) = (bits & (HIDDEN_BIT - 1), (bits >> FRACTION_BITS) as i32);
    let exact = match biased {
        0 => Fp { fraction, exponent: -1074 },
        _ => Fp { fraction: fraction | HIDDEN_BIT, exponent: biased - 1075 },
    };
    // The neighbours half-way to the next doubles; below a power of two the lower one is half as far.
    let upper = Fp { fraction: exact.fraction * 2 + 1, exponent: exact.exponent - 1 }.normalized();
    let lower_shift = if exact.fraction == HIDDEN_BIT { 2 } else { 1 };
    let lower = Fp { fraction: (exact.fraction << lower_shift) - 1, exponent: exact.exponent - lower_shift };
    let lower =
        Fp { fraction: lower.fraction << (lower.exponent - upper.exponent), exponent: upper.exponent };

    let (power, power_of_ten) = cached_power(upper.exponent);
    let exact = exact.normalized().times(power);
    let mut upper = upper.times(power);
    let mut lower = lower.times(power);
    // The products are off by at most one unit: stay inside the interval that is safe.
    upper.fraction -= 1;
    lower.fraction += 1;
    generate(exact, lower, upper, -power_of_ten)
}

/// Generates the fewest digits that lie between `lower` and `upper`, then moves the last one closer to `exact`.
fn generate(exact: Fp, lower: Fp, upper: Fp, power_of_ten: i32) -> Decimal {
    let mut decimal = Decimal { digits: [0; 20], len: 0, exponent: power_of_ten };
    let distance = upper.fraction - exact.fraction;
    let mut delta = upper.fraction - lower.fraction;
    let one_bits = (-upper.exponent) as u32;
    let one = 1u64 << one_bits;
    let mut integral = upper.fraction >> one_bits;
    let mut fractional = upper.fraction & (one - 1);

    let mut unit: u64 = 1_000_000_000;
    for kappa in (0..10).rev() {
        decimal.push(integral / unit);
        integral %= unit;
        let rest = (integral << one_bits) + fractional;
        if rest <= delta {
            decimal.exponent += kappa;
            round(&mut decimal, delta, rest, unit << one_bits, distance);
            return decimal;
        }
        unit /= 10;
    }
    let mut scale: u64 = 1;
    loop {
        fractional *= 10;
        delta *= 10;
        scale *= 10;
        decimal.exponent -= 1;
        decimal.push(fractional >> one_bits);
        fractional &= one - 1;
        if fractional < delta {
            round(&mut decimal, delta, fractional, one, distance.wrapping_mul(scale));
            return decimal;
        }
    }
}

/// Lowers the last digit as long as that comes closer to the exact value, which is `distance` below the upper end.
fn round(decimal: &mut Decimal, delta: u64, mut rest: u64, unit: u64, distance: u64) {
    while rest < distance
        && unit <= delta - rest
        && (rest + unit < distance || distance - rest > rest + unit - distance)
    {
        decimal.digits[decimal.len - 1] -= 1;
        rest += unit;
    }
}

const POWERS_FIRST: i32 = -348;
const POWERS_STEP: i32 = 8;

/// A power of ten whose product with a 64-bit fraction of this exponent has an exponent in -60..=-32.
fn cached_power(exponent: i32) -> (Fp, i32) {
    let approximate = (-f64::from(exponent + POWERS.len() as i32) * std::f64::consts::LOG10_2) as i32;
    let mut index = (approximate - POWERS_FIRST) / POWERS_STEP;
    loop {
        let power_of_ten = POWERS_FIRST + index * POWERS_STEP;
        // floor(log2(10^power)) - 63
        let power_exponent = ((power_of_ten * 217_706) >> 16) - 63;
        let product = exponent + power_exponent + 64;
        if product < -60 {
            index += 1;
        } else if -32 < product {
            index -= 1;
        } else {
            return (Fp { fraction: POWERS[index as usize], exponent: power_exponent }, power_of_ten);
        }
    }
}

/// 10^-348, 10^-340 ... 10^340 as 64-bit fractions with the highest bit set, rounded to nearest.
#[rustfmt::skip]
const POWERS: [u64; 87] = [
    0xfa8fd5a0081c0288, 0xbaaee17fa23ebf76, 0x8b16fb203055ac76, 0xcf42894a5dce35ea,
    0x9a6bb0aa55653b2d, 0xe61acf033d1a45df, 0xab70fe17c79ac6ca, 0xff77b1fcbebcdc4f,
    0xbe5691ef416bd60c, 0x8dd01fad907ffc3c, 0xd3515c2831559a83, 0x9d71ac8fada6c9b5,
    0xea9c227723ee8bcb, 0xaecc49914078536d, 0x823c12795db6ce57, 0xc21094364dfb5637,
    0x9096ea6f3848984f, 0xd77485cb25823ac7, 0xa086cfcd97bf97f4, 0xef340a98172aace5,
    0xb23867fb2a35b28e, 0x84c8d4dfd2c63f3b, 0xc5dd44271ad3cdba, 0x936b9fcebb25c996,
    0xdbac6c247d62a584, 0xa3ab66580d5fdaf6, 0xf3e2f893dec3f126, 0xb5b5ada8aaff80b8,
    0x87625f056c7c4a8b, 0xc9bcff6034c13053, 0x964e858c91ba2655, 0xdff9772470297ebd,
    0xa6dfbd9fb8e5b88f, 0xf8a95fcf88747d94, 0xb94470938fa89bcf, 0x8a08f0f8bf0f156b,
    0xcdb02555653131b6, 0x993fe2c6d07b7fac, 0xe45c10c42a2b3b06, 0xaa242499697392d3,
    0xfd87b5f28300ca0e, 0xbce5086492111aeb, 0x8cbccc096f5088cc, 0xd1b71758e219652c,
    0x9c40000000000000, 0xe8d4a51000000000, 0xad78ebc5ac620000, 0x813f3978f8940984,
    0xc097ce7bc90715b3, 0x8f7e32ce7bea5c70, 0xd5d238a4abe98068, 0x9f4f2726179a2245,
    0xed63a231d4c4fb27, 0xb0de65388cc8ada8, 0x83c7088e1aab65db, 0xc45d1df942711d9a,
    0x924d692ca61be758, 0xda01ee641a708dea, 0xa26da3999aef774a, 0xf209787bb47d6b85,
    0xb454e4a179dd1877, 0x865b86925b9bc5c2, 0xc83553c5c8965d3d, 0x952ab45cfa97a0b3,
    0xde469fbd99a05fe3, 0xa59bc234db398c25, 0xf6c69a72a3989f5c, 0xb7dcbf5354e9bece,
    0x88fcf317f22241e2, 0xcc20ce9bd35c78a5, 0x98165af37b2153df, 0xe2a0b5dc971f303a,
    0xa8d9d1535ce3b396, 0xfb9b7cd9a4a7443c, 0xbb764c4ca7a44410, 0x8bab8eefb6409c1a,
    0xd01fef10a657842c, 0x9b10a4e5e9913129, 0xe7109bfba19c0c9d, 0xac2820d9623bf429,
    0x80444b5e7aa7cf85, 0xbf21e44003acdd2d, 0x8e679c2f5e44ff8f, 0xd433179d9c8cb841,
    0x9e19db92b4e31ba9, 0xeb96bf6ebadf77d9, 0xaf87023b9bf0ee6b,
];
