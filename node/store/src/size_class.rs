//! The sizes in which the allocator gives memory: what is asked for is rounded up to one of them, so a buffer may as
//! well have all of it and need not be reallocated as long as it stays within its class.

/// The smallest size class of jemalloc (16 bytes apart up to 128, then four to each doubling) that holds `len` bytes.
#[inline]
pub fn size_class(len: usize) -> usize {
    const QUANTUM: usize = 16;
    if len <= 8 {
        return 8;
    }
    // Spacing of the classes around `len`.
    let doubling = (len - 1).ilog2();
    let spacing = if len <= 8 * QUANTUM { QUANTUM } else { 1 << (doubling - 2) };
    len.next_multiple_of(spacing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_jemallocs() {
        for (len, class) in [
            (0, 8),
            (8, 8),
            (9, 16),
            (17, 32),
            (100, 112),
            (113, 128),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (257, 320),
            (1025, 1280),
            (8192, 8192),
            (8193, 10240),
        ] {
            assert_eq!(size_class(len), class, "{len}");
        }
    }
}
