//! LZF, the compression of strings in RDB: runs of literals, and copies of up to 264 bytes from up to 8 KiB back.
//!
//! A control byte below 32 announces so many literals and one more. Otherwise its upper three bits are the length of
//! a copy minus two (7: one more byte is added to it), and its lower five bits with the following byte the distance
//! minus one. Written from the description of the format: fast enough for saving, and every step of decompressing is
//! checked, as the bytes come from outside.

use super::RdbError;

const LITERALS_MAX: usize = 32;
const COPY_LEN_MIN: usize = 3;
const COPY_LEN_MAX: usize = 264;
const DISTANCE_MAX: usize = 8192;
/// Three bytes make at most one copy.
const RATIO_MAX: usize = COPY_LEN_MAX / 3;
const RATIO_BELIEVED: usize = 8;

/// Appends the compressed bytes if they are at most `len_max`; else appends nothing. Whether it did.
pub(super) fn compress(input: &[u8], len_max: usize, out: &mut Vec<u8>) -> bool {
    // A small table is cleared in less time than it takes to compress a short string.
    if input.len() < 1024 {
        compress_with::<256>(input, len_max, out)
    } else {
        compress_with::<8192>(input, len_max, out)
    }
}

fn compress_with<const TABLE_LEN: usize>(input: &[u8], len_max: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if u32::try_from(input.len()).is_err() {
        return false;
    }
    // Where three bytes with this hash were last, plus one.
    let mut table = [0_u32; TABLE_LEN];
    let (mut at, mut literals) = (0, 0);
    while at + COPY_LEN_MIN <= input.len() {
        let place = &mut table[hash::<TABLE_LEN>(&input[at..])];
        let candidate = std::mem::replace(place, at as u32 + 1) as usize;
        let found = candidate.checked_sub(1).filter(|from| {
            at - from <= DISTANCE_MAX && input[*from..*from + COPY_LEN_MIN] == input[at..at + COPY_LEN_MIN]
        });
        let Some(from) = found else {
            at += 1;
            continue;
        };
        let (behind, ahead) = (&input[from..], &input[at..input.len().min(at + COPY_LEN_MAX)]);
        let len = behind.iter().zip(ahead).take_while(|(a, b)| a == b).count();
        push_literals(&input[literals..at], out);
        push_copy(at - from, len, out);
        if len_max < out.len() - start {
            out.truncate(start);
            return false;
        }
        at += len;
        literals = at;
    }
    push_literals(&input[literals..], out);
    let fits = out.len() - start <= len_max;
    if !fits {
        out.truncate(start);
    }
    fits
}

fn hash<const TABLE_LEN: usize>(bytes: &[u8]) -> usize {
    let word = u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2]);
    (word.wrapping_mul(0x9E37_79B1) >> 16) as usize % TABLE_LEN
}

fn push_literals(literals: &[u8], out: &mut Vec<u8>) {
    for run in literals.chunks(LITERALS_MAX) {
        out.push((run.len() - 1) as u8);
        out.extend_from_slice(run);
    }
}

fn push_copy(distance: usize, len: usize, out: &mut Vec<u8>) {
    let (distance, len) = (distance - 1, len - 2);
    let high = (distance >> 8) as u8;
    if len < 7 {
        out.push((len as u8) << 5 | high);
    } else {
        out.extend([7 << 5 | high, (len - 7) as u8]);
    }
    out.push((distance & 0xff) as u8);
}

/// # Errors
/// The input is not the compressed form of exactly `len` bytes. Of a length that is much more than the input memory is
/// taken as the bytes turn up.
pub(super) fn decompress(input: &[u8], len: usize) -> Result<Vec<u8>, RdbError> {
    const BAD: RdbError = RdbError::Corrupt("a compressed string is damaged");
    if input.len().saturating_mul(RATIO_MAX) < len {
        return Err(BAD);
    }
    let mut out = Vec::with_capacity(len.min(input.len().saturating_mul(RATIO_BELIEVED)));
    let mut rest = input;
    while let Some((control, after)) = rest.split_first() {
        rest = after;
        let control = usize::from(*control);
        if control < LITERALS_MAX {
            let (literals, after) = rest.split_at_checked(control + 1).ok_or(BAD)?;
            if len - out.len() < literals.len() {
                return Err(BAD);
            }
            out.extend_from_slice(literals);
            rest = after;
            continue;
        }
        let mut copy_len = control >> 5;
        if copy_len == 7 {
            let (more, after) = rest.split_first().ok_or(BAD)?;
            copy_len += usize::from(*more);
            rest = after;
        }
        copy_len += 2;
        let (low, after) = rest.split_first().ok_or(BAD)?;
        rest = after;
        let distance = ((control & 0x1f) << 8 | usize::from(*low)) + 1;
        let from = out.len().checked_sub(distance).ok_or(BAD)?;
        if len - out.len() < copy_len {
            return Err(BAD);
        }
        if copy_len <= distance {
            out.extend_from_within(from..from + copy_len);
        } else {
            // The copy reads what it writes: a repeated pattern.
            (from..from + copy_len).for_each(|i| out.push(out[i]));
        }
    }
    if out.len() != len {
        return Err(BAD);
    }
    out.shrink_to_fit();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn what_was_compressed_is_restored() {
        let mut rng = SmallRng::seed_from_u64(1);
        for round in 0..2000 {
            let (len, letters) = (rng.random_range(0..3000), rng.random_range(1..=40));
            let mut input: Vec<u8> = (0..len).map(|_| rng.random_range(0..letters)).collect();
            if round % 3 == 0 {
                let pattern = input.clone();
                (0..5).for_each(|_| input.extend_from_slice(&pattern));
            }
            let mut out = b"before".to_vec();
            if compress(&input, input.len() * 2 + 2, &mut out) {
                assert_eq!(decompress(&out[6..], input.len()).as_ref(), Ok(&input), "round {round}");
                assert!(decompress(&out[6..], input.len() + 1).is_err());
            }
            assert_eq!(&out[..6], b"before");
        }
    }

    #[test]
    fn a_repeated_byte_becomes_small_and_noise_stays() {
        let mut out = Vec::new();
        assert!(compress(&[b'x'; 1000], 100, &mut out) && out.len() < 20);
        let noise: Vec<u8> = SmallRng::seed_from_u64(2).random_iter().take(1000).collect();
        out.clear();
        assert!(!compress(&noise, 996, &mut out) && out.is_empty());
    }

    #[test]
    fn damage_is_an_error_and_takes_no_memory() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut valid = Vec::new();
        assert!(compress(&b"abcabcabcabdabdabd".repeat(20), 200, &mut valid));
        for _ in 0..20_000 {
            let mut input = valid.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..input.len());
                input[at] = rng.random();
            }
            input.truncate(rng.random_range(0..=input.len()));
            if let Ok(out) = decompress(&input, 360) {
                assert_eq!(out.len(), 360);
            }
        }
        assert!(decompress(&[0xff; 10], usize::MAX).is_err());
    }
}
