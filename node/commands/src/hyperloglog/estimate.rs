//! How many elements there were, from how many registers have each value.
//!
//! Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), with the additions in the order
//! in which Valkey makes them: the last digit depends on it.

use super::registers::{LEN, RANK_MAX};

/// 1 / (2 ln 2)
const ALPHA: f64 = 0.721_347_520_444_481_7;

/// How many registers have each value; there are values that no hash has.
pub(super) type Histogram = [u32; 64];

/// The estimate, rounded.
pub(super) fn estimate(histogram: &Histogram) -> u64 {
    let all = LEN as f64;
    let mut z = all * tau((all - f64::from(histogram[RANK_MAX])) / all);
    for count in histogram[1..RANK_MAX].iter().rev() {
        z += f64::from(*count);
        z *= 0.5;
    }
    z += all * sigma(f64::from(histogram[0]) / all);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive")]
    let rounded = (ALPHA * all * all / z).round() as u64;
    rounded
}

/// The share of registers that are empty, x, as x + the sum of x^(2^k) * 2^(k - 1).
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if before == z {
            return z / 3.0;
        }
    }
}
