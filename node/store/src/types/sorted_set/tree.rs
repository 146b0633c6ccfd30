//! The members of a large sorted set in order: a B+-tree in which every child knows how many members are below it,
//! so that rank, lookup by index and the bounds of any range take logarithmic time.
//!
//! A leaf holds scores beside the pointers to the members, so that a descent reads names only where scores are
//! equal. Members that arrive in ascending or descending order fill their leaves.
//!
//! Invariants, checked by the tests: a child's `first` is not above any member below it and is above every member
//! of the child before it; `len` is the number of members below; only the root has fewer than two children; all
//! leaves are equally deep.

use std::ops::Range;

use crate::entry::thin::Member;

const LEAF_MAX: usize = 64;
const INNER_MAX: usize = 32;

/// A member and a copy of its score.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) score: f64,
    pub(super) member: Member,
}

impl Item {
    #[inline]
    fn is_before(&self, score: f64, name: &[u8]) -> bool {
        if self.score == score { self.member.name() < name } else { self.score < score }
    }

    #[inline]
    fn is_after(&self, score: f64, name: &[u8]) -> bool {
        if self.score == score { name < self.member.name() } else { score < self.score }
    }

    #[inline]
    fn is_before_item(&self, other: &Item) -> bool {
        self.score < other.score || self.is_before(other.score, other.member.name())
    }
}

#[derive(Debug)]
enum Node {
    Leaf(Vec<Item>),
    Inner(Vec<Child>),
}

#[derive(Debug)]
struct Child {
    /// A lower bound of what is below.
    first: Item,
    /// Number of members below.
    len: usize,
    node: Box<Node>,
}

/// Which member to remove.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    At(usize),
    Member(f64, &'a [u8]),
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Tree {
    root: Node,
    len: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Tree { root: Node::Leaf(Vec::new()), len: 0 }
    }
}

impl Tree {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a member that is not in the tree.
    pub(super) fn insert(&mut self, member: Member) {
        let item = Item { score: member.score(), member };
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

    /// Removes a member that is in the tree.
    pub(super) fn remove(&mut self, target: Target<'_>) -> Member {
        self.len -= 1;
        let item = self.root.remove(target);
        if let Node::Inner(children) = &mut self.root
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            self.root = *only.node;
        }
        item.member
    }

    /// Number of members for which `before` holds; it must hold for a first part of the members and for none behind.
    #[inline]
    pub(super) fn partition_point(&self, before: impl Fn(&Item) -> bool) -> usize {
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

    /// The index at which this member is, or would be.
    pub(super) fn index_of(&self, score: f64, name: &[u8]) -> usize {
        self.partition_point(|item| item.is_before(score, name))
    }

    /// The leaf with the member at an index below `len`, and its position in it.
    fn leaf_at(&self, mut index: usize) -> (&[Item], usize) {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(items) => return (items, index),
                Node::Inner(children) => node = &children[child_at(children, &mut index)].node,
            }
        }
    }

    /// The members of a range of indexes within the tree.
    pub(super) fn range(&self, range: Range<usize>) -> Iter<'_> {
        debug_assert!(range.end <= self.len);
        Iter { tree: self, range, front: [].iter(), back: [].iter() }
    }
}

/// The child with the member at `index`, which becomes relative to that child.
#[inline]
fn child_at(children: &[Child], index: &mut usize) -> usize {
    let mut at = 0;
    while children[at].len <= *index {
        *index -= children[at].len;
        at += 1;
    }
    at
}

impl Node {
    /// The first member; the node is not empty.
    fn first(&self) -> &Item {
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
    fn into_child(self) -> Child {
        Child { first: self.first().clone(), len: self.len(), node: Box::new(self) }
    }

    /// Adds a member; returns the right part if the node had to be split.
    fn insert(&mut self, item: Item) -> Option<Child> {
        match self {
            Node::Leaf(items) => {
                let at = items.partition_point(|i| i.is_before_item(&item));
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
                let at = children.partition_point(|c| !item.is_before_item(&c.first)).saturating_sub(1);
                let child = &mut children[at];
                if item.is_before_item(&child.first) {
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

    fn remove(&mut self, target: Target<'_>) -> Item {
        match self {
            Node::Leaf(items) => {
                let at = match target {
                    Target::At(index) => index,
                    Target::Member(score, name) => items.partition_point(|i| i.is_before(score, name)),
                };
                items.remove(at)
            }
            Node::Inner(children) => {
                let (at, target) = match target {
                    Target::At(mut index) => (child_at(children, &mut index), Target::At(index)),
                    Target::Member(score, name) => {
                        let behind = children.partition_point(|c| !c.first.is_after(score, name));
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
fn level(children: &mut Vec<Child>, at: usize) {
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

/// Members of a range, from both ends.
#[derive(Debug, Clone)]
pub(super) struct Iter<'a> {
    tree: &'a Tree,
    /// What is still to come.
    range: Range<usize>,
    /// The rest of the leaf that holds the next member, maybe beyond the range.
    front: std::slice::Iter<'a, Item>,
    back: std::slice::Iter<'a, Item>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Item;

    #[inline]
    fn next(&mut self) -> Option<&'a Item> {
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

impl DoubleEndedIterator for Iter<'_> {
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

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
impl Tree {
    /// Panics if the invariants do not hold.
    pub(super) fn check(&self) {
        fn visit(node: &Node) -> (usize, usize) {
            match node {
                Node::Leaf(items) => {
                    assert!(items.is_sorted_by(|a, b| a.is_before_item(b)));
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
                        assert!(!child.node.first().is_before_item(&child.first));
                        if i + 1 < children.len() {
                            assert!(child.node.last().is_before_item(&children[i + 1].first));
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
impl Node {
    fn last(&self) -> &Item {
        match self {
            Node::Leaf(items) => items.last().unwrap(),
            Node::Inner(children) => children.last().unwrap().node.last(),
        }
    }
}
