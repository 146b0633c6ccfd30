//! The hash by which elements choose their registers: MurmurHash64A, so that servers agree on them.

const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
const SHIFT: u32 = 47;
const SEED: u64 = 0xadc8_3b19;

/// The hash of an element.
pub(super) fn hash(element: &[u8]) -> u64 {
    let (words, rest) = element.as_chunks::<8>();
    let start = SEED ^ (element.len() as u64).wrapping_mul(MULTIPLIER);
    let mut state = words.iter().fold(start, |state, word| {
        let mut mixed = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        (state ^ mixed.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER)
    });
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = (state ^ u64::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    }
    state = (state ^ state >> SHIFT).wrapping_mul(MULTIPLIER);
    state ^ state >> SHIFT
}

#[cfg(test)]
mod tests {
    use super::hash;

    /// Against what a real server keeps of these elements is compared elsewhere; here, that each byte counts.
    #[test]
    fn every_byte_and_the_length_count() {
        let mut seen = std::collections::HashSet::new();
        for len in 0..40 {
            let mut element = vec![0; len];
            assert!(seen.insert(hash(&element)), "{len} zeros");
            for at in 0..len {
                element[at] = 1;
                assert!(seen.insert(hash(&element)), "{len} bytes, {at}");
                element[at] = 0;
            }
        }
    }
}
