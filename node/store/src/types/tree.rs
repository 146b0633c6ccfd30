//! Elements in order: a B+-tree in which every child knows how many elements are below it, so that rank, lookup by
//! index and the bounds of any range take logarithmic time. The members of a large sorted set lie in one by their
//! scores, the fields of a hash that expire by their times.
//!
//! Elements that arrive in ascending or descending order fill their leaves.
//!
//! Invariants, checked by the tests: a child's `first` is not above any element below it and is above every element
//! of the child before it; `len` is the number of elements below; only the root has fewer than two children; all
//! leaves are equally deep.

use std::ops::Range;

const LEAF_MAX: usize = 64;
const INNER_MAX: usize = 32;

/// What a tree holds: no two elements of it are at the same place.
pub(super) trait Ordered: Clone {
    fn is_before(&self, other: &Self) -> bool;
}

#[derive(Debug)]
enum Node<T> {
    Leaf(Vec<T>),
    Inner(Vec<Child<T>>),
}

#[derive(Debug)]
struct Child<T> {
    /// A lower bound of what is below.
    first: T,
    /// Number of elements below.
    len: usize,
    node: Box<Node<T>>,
}

/// Which element to remove.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a, T> {
    At(usize),
    /// The one at its place.
    Element(&'a T),
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Tree<T> {
    root: Node<T>,
    len: usize,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Tree { root: Node::Leaf(Vec::new()), len: 0 }
    }
}

impl<T: Ordered> Tree<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an element that is not in the tree.
    pub(super) fn insert(&mut self, item: T) {
        self.len += 1;
        if let Some(right) = self.root.insert(item) {
            let left = std::mem::replace(&mut self.root, Node::Inner(Vec::with_capacity(INNER_MAX)));
            let first = left.first().clone();
            let left = Child { first, len: self.len - right.len, node: Box::new(left) };
            if let Node::Inner(children) = &mut self.root {
                children.extend([left, right]);
            }
        }
    }

    /// Removes an element that is in the tree.
    pub(super) fn remove(&mut self, target: Target<'_, T>) -> T {
        self.len -= 1;
        let item = self.root.remove(target);
        if let Node::Inner(children) = &mut self.root
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            self.root = *only.node;
        }
        item
    }

    /// The first element.
    pub(super) fn first(&self) -> Option<&T> {
        (self.len != 0).then(|| self.root.first())
    }

    /// Number of elements for which `before` holds; it must hold for a first part of them and for none behind.
    #[inline]
    pub(super) fn partition_point(&self, before: impl Fn(&T) -> bool) -> usize {
        let mut node = &self.root;
        let mut index = 0;
        loop {
            match node {
                Node::Leaf(items) => return index + items.partition_point(&before),
                Node::Inner(children) => {
                    let at = children.partition_point(|c| before(&c.first)).saturating_sub(1);
                    index += children[..at].iter().map(|c| c.len).sum::<usize>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// The leaf with the element at an index below `len`, and its position in it.
    fn leaf_at(&self, mut index: usize) -> (&[T], usize) {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(items) => return (items, index),
                Node::Inner(children) => node = &children[child_at(children, &mut index)].node,
            }
        }
    }

    /// The elements of a range of indexes within the tree.
    pub(super) fn range(&self, range: Range<usize>) -> Iter<'_, T> {
        debug_assert!(range.end <= self.len);
        Iter { tree: self, range, front: [].iter(), back: [].iter() }
    }
}

/// The child with the element at `index`, which becomes relative to that child.
#[inline]
fn child_at<T>(children: &[Child<T>], index: &mut usize) -> usize {
    let mut at = 0;
    while children[at].len <= *index {
        *index -= children[at].len;
        at += 1;
    }
    at
}

impl<T: Ordered> Node<T> {
    /// The first element; the node is not empty.
    fn first(&self) -> &T {
        match self {
            Node::Leaf(items) => &items[0],
            Node::Inner(children) => children[0].node.first(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(items) => items.len(),
            Node::Inner(children) => children.iter().map(|c| c.len).sum(),
        }
    }

    /// A new right neighbour of what has become too large.
    fn into_child(self) -> Child<T> {
        Child { first: self.first().clone(), len: self.len(), node: Box::new(self) }
    }

    /// Adds an element; returns the right part if the node had to be split.
    fn insert(&mut self, item: T) -> Option<Child<T>> {
        match self {
            Node::Leaf(items) => {
                let at = items.partition_point(|i| i.is_before(&item));
                if items.len() < LEAF_MAX {
                    items.insert(at, item);
                    return None;
                }
                // At an end: probably the next ones come there too, and this leaf stays full.
                let right = if at == items.len() {
                    vec![item]
                } else if at == 0 {
                    std::mem::replace(items, vec![item])
                } else {
                    let mut right = items.split_off(LEAF_MAX / 2);
                    if at <= items.len() {
                        items.insert(at, item);
                    } else {
                        right.insert(at - items.len(), item);
                    }
                    right
                };
                Some(Node::Leaf(right).into_child())
            }
            Node::Inner(children) => {
                let at = children.partition_point(|c| !item.is_before(&c.first)).saturating_sub(1);
                let child = &mut children[at];
                if item.is_before(&child.first) {
                    child.first = item.clone();
                }
                child.len += 1;
                let right = child.node.insert(item)?;
                child.len -= right.len;
                children.insert(at + 1, right);
                if children.len() <= INNER_MAX {
                    return None;
                }
                let at_end = at + 2 == children.len();
                let kept = if at_end { children.len() - 2 } else { children.len() / 2 };
                Some(Node::Inner(children.split_off(kept)).into_child())
            }
        }
    }

    fn remove(&mut self, target: Target<'_, T>) -> T {
        match self {
            Node::Leaf(items) => {
                let at = match target {
                    Target::At(index) => index,
                    Target::Element(element) => items.partition_point(|i| i.is_before(element)),
                };
                items.remove(at)
            }
            Node::Inner(children) => {
                let (at, target) = match target {
                    Target::At(mut index) => (child_at(children, &mut index), Target::At(index)),
                    Target::Element(element) => {
                        let behind = children.partition_point(|c| !element.is_before(&c.first));
                        (behind.saturating_sub(1), target)
                    }
                };
                let child = &mut children[at];
                child.len -= 1;
                let item = child.node.remove(target);
                if child.node.is_sparse() {
                    level(children, at);
                }
                item
            }
        }
    }

    fn is_sparse(&self) -> bool {
        match self {
            Node::Leaf(items) => items.len() < LEAF_MAX / 4,
            Node::Inner(children) => children.len() < INNER_MAX / 4,
        }
    }
}

/// Merges the sparse child at `at` with a neighbour, or takes some of the neighbour's elements.
fn level<T: Ordered>(children: &mut Vec<Child<T>>, at: usize) {
    let left_at = at.saturating_sub(1);
    let Some([left, right]) = children.get_mut(left_at..left_at + 2) else { return };
    let merged = match (&mut *left.node, &mut *right.node) {
        (Node::Leaf(l), Node::Leaf(r)) => share(l, r, LEAF_MAX),
        (Node::Inner(l), Node::Inner(r)) => {
            // The first child's bound was not needed inside its node; behind another child it is.
            r[0].first = right.first.clone();
            share(l, r, INNER_MAX)
        }
        (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => {
            unreachable!("all leaves are equally deep")
        }
    };
    let total = left.len + right.len;
    if merged {
        left.len = total;
        children.remove(left_at + 1);
    } else {
        left.len = left.node.len();
        right.len = total - left.len;
        right.first = match &*right.node {
            Node::Leaf(items) => items[0].clone(),
            Node::Inner(children) => children[0].first.clone(),
        };
    }
}

/// Moves everything into `left` if it has room for it (returns true), else half of the elements to each side.
fn share<T>(left: &mut Vec<T>, right: &mut Vec<T>, max: usize) -> bool {
    let total = left.len() + right.len();
    if total <= max * 3 / 4 {
        left.append(right);
        return true;
    }
    let half = total / 2;
    if left.len() < half {
        left.extend(right.drain(..half - left.len()));
    } else {
        right.splice(..0, left.drain(half..));
    }
    false
}

/// Elements of a range, from both ends.
#[derive(Debug, Clone)]
pub(super) struct Iter<'a, T> {
    tree: &'a Tree<T>,
    /// What is still to come.
    range: Range<usize>,
    /// The rest of the leaf that holds the next element, maybe beyond the range.
    front: std::slice::Iter<'a, T>,
    back: std::slice::Iter<'a, T>,
}

impl<'a, T: Ordered> Iterator for Iter<'a, T> {
    type Item = &'a T;

    #[inline]
    fn next(&mut self) -> Option<&'a T> {
        if self.range.is_empty() {
            return None;
        }
        if self.front.len() == 0 {
            let (leaf, at) = self.tree.leaf_at(self.range.start);
            self.front = leaf[at..].iter();
        }
        self.range.start += 1;
        self.front.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.range.len(), Some(self.range.len()))
    }
}

impl<T: Ordered> DoubleEndedIterator for Iter<'_, T> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.range.is_empty() {
            return None;
        }
        if self.back.len() == 0 {
            let (leaf, at) = self.tree.leaf_at(self.range.end - 1);
            self.back = leaf[..=at].iter();
        }
        self.range.end -= 1;
        self.back.next_back()
    }
}

impl<T: Ordered> ExactSizeIterator for Iter<'_, T> {}

#[cfg(test)]
impl<T: Ordered> Tree<T> {
    /// Panics if the invariants do not hold.
    pub(super) fn check(&self) {
        fn visit<T: Ordered>(node: &Node<T>) -> (usize, usize) {
            match node {
                Node::Leaf(items) => {
                    assert!(items.is_sorted_by(|a, b| a.is_before(b)));
                    (items.len(), 0)
                }
                Node::Inner(children) => {
                    assert!(2 <= children.len() && children.len() <= INNER_MAX);
                    let mut depth = None;
                    let mut total = 0;
                    for (i, child) in children.iter().enumerate() {
                        let (len, d) = visit(&child.node);
                        assert_eq!(len, child.len);
                        assert!(0 < len, "only the root may be empty");
                        assert!(depth.is_none_or(|depth| depth == d));
                        depth = Some(d);
                        total += len;
                        assert!(!child.node.first().is_before(&child.first));
                        if i + 1 < children.len() {
                            assert!(child.node.last().is_before(&children[i + 1].first));
                        }
                    }
                    (total, depth.unwrap() + 1)
                }
            }
        }
        assert_eq!(visit(&self.root).0, self.len);
    }
}

#[cfg(test)]
impl<T: Ordered> Node<T> {
    fn last(&self) -> &T {
        match self {
            Node::Leaf(items) => items.last().unwrap(),
            Node::Inner(children) => children.last().unwrap().node.last(),
        }
    }
}
