//! A list of byte strings with fast ends, and every index within reach.

use std::collections::VecDeque;

/// One of a list's ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Left,
    Right,
}

/// Lists of up to this length keep the room of elements that were taken away.
const ROOM_KEPT: usize = 32;

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

    /// The elements from `start` up to but not including `end`, which are within the list.
    pub fn range(
        &self,
        start: usize,
        end: usize,
    ) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        self.0.range(start..end).map(|e| &**e)
    }

    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.0.get(index).map(|e| &**e)
    }

    /// Replaces an element; whether there is one at `index`.
    pub fn set(&mut self, index: usize, element: &[u8]) -> bool {
        match self.0.get_mut(index) {
            Some(place) => {
                *place = element.into();
                true
            }
            None => false,
        }
    }

    pub fn push_back(&mut self, element: &[u8]) {
        self.0.push_back(element.into());
    }

    pub fn push(&mut self, end: End, element: &[u8]) {
        match end {
            End::Left => self.0.push_front(element.into()),
            End::Right => self.0.push_back(element.into()),
        }
    }

    pub fn pop(&mut self, end: End) -> Option<Box<[u8]>> {
        let element = match end {
            End::Left => self.0.pop_front(),
            End::Right => self.0.pop_back(),
        };
        self.give_room();
        element
    }

    /// The up to `count` elements at an end, the outermost first.
    pub fn at_end(&self, end: End, count: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        let count = count.min(self.len());
        let last = self.len() - 1.min(self.len());
        (0..count).map(move |i| match end {
            End::Left => &*self.0[i],
            End::Right => &*self.0[last - i],
        })
    }

    /// Drops up to `count` elements from an end.
    pub fn drop_at_end(&mut self, end: End, count: usize) {
        let len = self.len();
        match end {
            End::Left => drop(self.0.drain(..count.min(len))),
            End::Right => self.0.truncate(len.saturating_sub(count)),
        }
        self.give_room();
    }

    /// Inserts an element before `index`, which is at most the length.
    pub fn insert(&mut self, index: usize, element: &[u8]) {
        self.0.insert(index, element.into());
    }

    /// Removes up to `count` elements equal to `element`, searching from an end; returns how many.
    pub fn remove_equal(&mut self, end: End, element: &[u8], count: usize) -> usize {
        let len = self.len();
        let mut skip = match end {
            End::Left => 0,
            // The ones to keep are those that come first from the left.
            End::Right => self.iter().filter(|e| *e == element).count().saturating_sub(count),
        };
        let mut left = count;
        self.0.retain(|e| {
            if left == 0 || **e != *element {
                return true;
            }
            if skip > 0 {
                skip -= 1;
                return true;
            }
            left -= 1;
            false
        });
        self.give_room();
        len - self.len()
    }

    /// Frees room that a much longer list has needed.
    fn give_room(&mut self) {
        if ROOM_KEPT < self.0.capacity() && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to((self.0.capacity() / 2).max(ROOM_KEPT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(elements: &str) -> List {
        List(elements.bytes().map(|b| vec![b].into()).collect())
    }

    fn text(list: &List) -> String {
        list.iter().map(String::from_utf8_lossy).collect()
    }

    #[test]
    fn removes_equal_elements_from_either_end() {
        for (end, count, expect) in [
            (End::Left, 2, "bcabca"),
            (End::Right, 2, "aabcbc"),
            (End::Left, usize::MAX, "bcbc"),
            (End::Right, usize::MAX, "bcbc"),
            (End::Right, 1, "aabcabc"),
        ] {
            let mut l = list("aabcabca");
            let removed = l.remove_equal(end, b"a", count);
            assert_eq!((text(&l), removed), (expect.to_owned(), 8 - expect.len()), "{end:?} {count}");
        }
    }

    #[test]
    fn ends() {
        let mut l = list("abcdef");
        assert_eq!(l.at_end(End::Right, 2).collect::<Vec<_>>(), [b"f", b"e"]);
        assert_eq!(l.at_end(End::Left, 9).len(), 6);
        assert_eq!(List::default().at_end(End::Right, 9).count(), 0);
        l.drop_at_end(End::Right, 2);
        l.drop_at_end(End::Left, 1);
        l.insert(1, b"x");
        assert_eq!(text(&l), "bxcd");
        l.drop_at_end(End::Left, usize::MAX);
        assert!(l.is_empty() && l.pop(End::Left).is_none());
    }

    #[test]
    fn a_list_that_was_long_gives_its_room_back() {
        let mut l = List::default();
        (0..10_000).for_each(|_| l.push(End::Left, b"x"));
        (0..9_990).for_each(|_| drop(l.pop(End::Right)));
        assert!(l.len() == 10 && l.0.capacity() <= 64);
    }
}
