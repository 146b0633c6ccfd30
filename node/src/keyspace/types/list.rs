//! A list of byte strings with fast ends.

use std::collections::VecDeque;

/// See the module documentation.
#[derive(Debug, Default, Clone)]
pub struct List(VecDeque<Box<[u8]>>);

impl List {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        self.0.iter().map(|e| &**e)
    }

    pub fn push_back(&mut self, element: &[u8]) {
        self.0.push_back(element.into());
    }
}
