//! Bytes that grow and shrink in their middle: what listpacks and intsets are edited in. It is a vector, or the end
//! of an entry.

use crate::size_class::size_class;

/// See the module documentation.
pub trait Buffer {
    fn bytes(&self) -> &[u8];

    /// Replaces `removed` bytes at `at` by `added` bytes, whose content is to be written by the caller; returns all
    /// bytes.
    fn replace_range(&mut self, at: usize, removed: usize, added: usize) -> &mut [u8];
}

impl Buffer for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn replace_range(&mut self, at: usize, removed: usize, added: usize) -> &mut [u8] {
        if removed == added {
            return self;
        }
        let len = self.len();
        let new_len = len - removed + added;
        if len < new_len {
            // Exactly what the allocator would give anyway.
            if self.capacity() < new_len {
                self.reserve_exact(size_class(new_len) - len);
            }
            self.resize(new_len, 0);
            self.copy_within(at + removed..len, at + added);
        } else {
            self.copy_within(at + removed.., at + added);
            self.truncate(new_len);
            if size_class(new_len) < self.capacity() {
                self.shrink_to(size_class(new_len));
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splices_as_a_vector_does() {
        let mut buffer = b"0123456789".to_vec();
        for (at, removed, added) in [(3, 2, 5), (0, 0, 200), (210, 3, 0), (5, 190, 1), (21, 0, 4), (0, 25, 0)]
        {
            let mut expected = buffer.clone();
            expected.splice(at..at + removed, vec![b'x'; added]);
            buffer.replace_range(at, removed, added)[at..at + added].fill(b'x');
            assert_eq!(buffer, expected);
            assert!(buffer.capacity() <= size_class(buffer.len()).max(10));
        }
    }
}
