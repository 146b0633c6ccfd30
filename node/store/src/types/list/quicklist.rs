//! A long list: a chain of listpacks of limited size, and of elements that are too large for one.
//!
//! When a node is full, split or merged is decided as in Valkey: it shows in the point at which a list that has shrunk
//! is compact again, in DUMP, and in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{End, Side};
use crate::types::listpack::{self, Listpack, ListpackRef};
use crate::types::{Element, fits_compact};

/// `list-max-listpack-size`: how full a node may be. Positive: a number of elements; -1 to -5: 4 to 64 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill(i16);

impl Default for Fill {
    fn default() -> Self {
        Fill(-2)
    }
}

impl Fill {
    /// Bytes of a node whose elements are limited by number.
    const SAFE_BYTES_MAX: usize = 8192;
    /// What an element is taken to need beside its bytes.
    const OVERHEAD_BYTES: usize = 8;

    pub fn new(fill: i64) -> Self {
        Fill(fill.clamp(-5, i64::from(i16::MAX)) as i16)
    }

    /// Limits of bytes and of elements; one of them is none.
    fn limits(self) -> (usize, usize) {
        match self.0 {
            0.. => (usize::MAX, usize::from(self.0.unsigned_abs()).max(1)),
            _ => (2048 << self.0.unsigned_abs(), usize::MAX),
        }
    }

    /// Whether so many bytes and elements are too much for one listpack.
    pub(super) fn is_exceeded(self, bytes: usize, count: usize) -> bool {
        match self.limits() {
            (usize::MAX, count_max) => Self::SAFE_BYTES_MAX < bytes || count_max < count,
            (bytes_max, _) => bytes_max < bytes,
        }
    }

    /// Whether an element has to be a node of its own.
    fn is_large(self, element: &[u8]) -> bool {
        let bytes_max = self.limits().0;
        element.len() > if bytes_max == usize::MAX { Self::SAFE_BYTES_MAX } else { bytes_max }
    }

    /// Whether a list of one listpack that has shrunk to this may do without a chain. Half of the limits, so that a
    /// list at a limit does not change its form with every command.
    fn is_small(self, bytes: usize, count: usize) -> bool {
        let (bytes_max, count_max) = self.limits();
        bytes <= bytes_max / 2 && count <= count_max / 2
    }
}

/// What the bytes of a node take beside themselves: counters, address and lengths, in an allocation of their own.
const NODE_OVERHEAD: usize = 2 * size_of::<usize>() + size_of::<Listpack>();

/// A part of the chain. None is empty. A copy shares its bytes until one of the two is changed, so that what a list is
/// at one moment can be kept without copying it.
#[derive(Debug, Clone)]
pub enum Node {
    Packed {
        list: Arc<Listpack>,
        len: u32,
    },
    /// One element that is too large for a listpack.
    Plain(Arc<[u8]>),
}

impl Node {
    fn packed(list: Listpack) -> Node {
        let len = u32::try_from(list.len()).expect("a node has limits");
        Node::Packed { list: Arc::new(list), len }
    }

    fn of(element: &[u8], fill: Fill) -> Node {
        if fill.is_large(element) {
            return Node::Plain(element.into());
        }
        let mut list = Listpack::default();
        list.push_back(element);
        Node::Packed { list: Arc::new(list), len: 1 }
    }

    pub fn len(&self) -> usize {
        match self {
            Node::Packed { len, .. } => *len as usize,
            Node::Plain(_) => 1,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn iter(&self) -> NodeIter<'_> {
        match self {
            Node::Packed { list, .. } => NodeIter::Packed(list.iter()),
            Node::Plain(element) => NodeIter::Plain(Some(element)),
        }
    }

    fn range(&self, start: usize, end: usize) -> NodeIter<'_> {
        match self {
            Node::Packed { list, .. } => NodeIter::Packed((**list).as_ref().range(start, end)),
            Node::Plain(element) => NodeIter::Plain((start < end).then_some(&**element)),
        }
    }

    fn get(&self, index: usize) -> Option<Element<'_>> {
        self.range(index, index + 1).next()
    }

    fn has_room(&self, element: &[u8], fill: Fill) -> bool {
        match self {
            Node::Packed { list, len } => {
                !fill.is_large(element)
                    && !fill.is_exceeded(
                        list.as_bytes().len() + element.len() + Fill::OVERHEAD_BYTES,
                        *len as usize + 1,
                    )
            }
            Node::Plain(_) => false,
        }
    }

    /// Inserts an element before `index` of a packed node.
    fn insert(&mut self, index: usize, element: &[u8]) {
        if let Node::Packed { list, len } = self {
            Arc::make_mut(list).insert(index, element);
            *len += 1;
        }
    }

    /// Removes elements of a packed node, not all of them.
    fn remove(&mut self, index: usize, count: usize) {
        if let Node::Packed { list, len } = self {
            Arc::make_mut(list).remove(index, count);
            *len -= count as u32;
        }
    }

    /// Moves the elements of a packed node from `index` on to a new one.
    fn split_off(&mut self, index: usize) -> Option<Node> {
        let Node::Packed { list, len } = self else { return None };
        if *len as usize <= index {
            return None;
        }
        let right = Arc::new(Arc::make_mut(list).split_off(index));
        let right = Node::Packed { list: right, len: *len - index as u32 };
        *len = index as u32;
        Some(right)
    }
}

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub struct Quicklist {
    nodes: VecDeque<Node>,
    len: usize,
    fill: Fill,
}

impl Quicklist {
    pub fn new(fill: Fill) -> Self {
        Quicklist { nodes: VecDeque::new(), len: 0, fill }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn fill(&self) -> Fill {
        self.fill
    }

    /// What the list is now. Takes a moment for each node, not for each element.
    pub fn frozen(&self) -> VecDeque<Node> {
        self.nodes.clone()
    }

    /// The chain from left to right.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.iter()
    }

    /// Appends a listpack as a node, unless it is empty.
    pub fn push_listpack(&mut self, list: Listpack) {
        if !list.is_empty() {
            self.len += list.len();
            self.insert_node(self.nodes.len(), Node::packed(list));
        }
    }

    /// Appends an element as a node of its own.
    pub fn push_plain(&mut self, element: &[u8]) {
        self.len += 1;
        self.insert_node(self.nodes.len(), Node::Plain(element.into()));
    }

    /// Room for nodes is made in small steps: they are few, and a doubled chain would be mostly empty.
    fn insert_node(&mut self, at: usize, node: Node) {
        if self.nodes.len() == self.nodes.capacity() {
            self.nodes.reserve_exact((self.nodes.len() / 8).max(2));
        }
        self.nodes.insert(at, node);
    }

    fn remove_node(&mut self, at: usize) {
        self.nodes.remove(at);
        if self.nodes.len() < self.nodes.capacity() / 2 {
            self.nodes.shrink_to_fit();
        }
    }

    /// The node with the element of an index below the length, and the element's place in it.
    fn locate(&self, index: usize) -> (usize, usize) {
        debug_assert!(index < self.len);
        if index < self.len / 2 {
            let mut rest = index;
            for (at, node) in self.nodes.iter().enumerate() {
                match rest.checked_sub(node.len()) {
                    Some(r) => rest = r,
                    None => return (at, rest),
                }
            }
        } else {
            let mut rest = self.len - index;
            for (at, node) in self.nodes.iter().enumerate().rev() {
                match rest.checked_sub(node.len()) {
                    None | Some(0) => return (at, node.len() - rest),
                    Some(r) => rest = r,
                }
            }
        }
        unreachable!("the nodes have as many elements as the list")
    }

    pub fn get(&self, index: usize) -> Option<Element<'_>> {
        if self.len <= index {
            return None;
        }
        let (node, at) = self.locate(index);
        self.nodes[node].get(at)
    }

    /// The elements from `start` up to but not including `end`, which are within the list.
    pub fn range(&self, start: usize, end: usize) -> Iter<'_> {
        let empty = || NodeIter::Plain(None);
        if end <= start {
            return Iter { list: self, front_node: 0, front: empty(), back_node: 0, back: empty(), left: 0 };
        }
        let ((front_node, first), (back_node, last)) = (self.locate(start), self.locate(end - 1));
        let front = self.nodes[front_node].range(first, self.nodes[front_node].len());
        let back = self.nodes[back_node].range(0, last + 1);
        Iter { list: self, front_node, front, back_node, back, left: end - start }
    }

    pub fn push(&mut self, end: End, element: &[u8]) {
        let fill = self.fill;
        self.len += 1;
        let node = match end {
            End::Left => self.nodes.front_mut(),
            End::Right => self.nodes.back_mut(),
        };
        match node {
            Some(node) if node.has_room(element, fill) => {
                let at = if end == End::Left { 0 } else { node.len() };
                node.insert(at, element);
            }
            Some(_) | None => {
                let at = if end == End::Left { 0 } else { self.nodes.len() };
                self.insert_node(at, Node::of(element, fill));
            }
        }
    }

    /// Drops up to `count` elements from an end.
    pub fn drop_at_end(&mut self, end: End, count: usize) {
        let mut rest = count.min(self.len);
        self.len -= rest;
        while rest > 0 {
            let at = if end == End::Left { 0 } else { self.nodes.len() - 1 };
            let node = &mut self.nodes[at];
            let len = node.len();
            if len <= rest {
                self.remove_node(at);
                rest -= len;
                continue;
            }
            node.remove(if end == End::Left { 0 } else { len - rest }, rest);
            break;
        }
    }

    /// Replaces the element at an index below the length.
    pub fn set(&mut self, index: usize, element: &[u8]) {
        let (at, place) = self.locate(index);
        let is_large = self.fill.is_large(element);
        match &mut self.nodes[at] {
            Node::Packed { list, .. } if !is_large => Arc::make_mut(list).replace(place, element),
            Node::Plain(old) if is_large => *old = element.into(),
            Node::Plain(_) => {
                self.insert(index, Side::After, element);
                self.remove_node(at);
                self.len -= 1;
            }
            node @ Node::Packed { .. } => {
                let right = node.split_off(place + 1);
                if let Some(right) = right {
                    self.insert_node(at + 1, right);
                }
                self.insert_node(at + 1, Node::of(element, self.fill));
                if self.nodes[at].len() == 1 {
                    self.remove_node(at);
                } else {
                    self.nodes[at].remove(place, 1);
                    self.merge_around(at);
                }
            }
        }
    }

    /// Inserts an element before or after the one at an index below the length.
    pub fn insert(&mut self, index: usize, side: Side, element: &[u8]) {
        let after = side == Side::After;
        let fill = self.fill;
        let (at, place) = self.locate(index);
        let node_len = self.nodes[at].len();
        let at_edge = if after { place + 1 == node_len } else { place == 0 };
        let neighbour = if after { Some(at + 1) } else { at.checked_sub(1) };
        self.len += 1;
        // Where a node that goes to the side of this one is put.
        let beside = if after { at + 1 } else { at };
        if fill.is_large(element) {
            let middle = if at_edge { None } else { self.nodes[at].split_off(place + usize::from(after)) };
            match middle {
                None => self.insert_node(beside, Node::of(element, fill)),
                Some(right) => {
                    self.insert_node(at + 1, right);
                    self.insert_node(at + 1, Node::of(element, fill));
                }
            }
            return;
        }
        if self.nodes[at].has_room(element, fill) {
            return self.nodes[at].insert(place + usize::from(after), element);
        }
        if at_edge {
            let neighbour = neighbour.and_then(|n| self.nodes.get_mut(n));
            match neighbour {
                Some(node) if node.has_room(element, fill) => {
                    let end = if after { 0 } else { node.len() };
                    node.insert(end, element);
                }
                Some(_) | None => self.insert_node(beside, Node::of(element, fill)),
            }
            return;
        }
        // In the middle of a full node: the new one gets the element and what is behind (or before) it.
        let right = self.nodes[at].split_off(place + usize::from(after));
        let Some(mut right) = right else { unreachable!("an element in the middle has others behind it") };
        if after {
            right.insert(0, element);
        } else {
            let left = &mut self.nodes[at];
            left.insert(left.len(), element);
        }
        self.insert_node(at + 1, right);
        // The node that keeps the pivot is the centre.
        self.merge_around(if after { at } else { at + 1 });
    }

    /// Whether a node and the next one fit into one listpack.
    fn may_merge(&self, at: usize) -> bool {
        match (self.nodes.get(at), self.nodes.get(at + 1)) {
            (Some(Node::Packed { list: a, len: m }), Some(Node::Packed { list: b, len: n })) => {
                let bytes = a.as_bytes().len() + b.as_bytes().len() - listpack::EMPTY.len();
                !self.fill.is_exceeded(bytes, (m + n) as usize)
            }
            _ => false,
        }
    }

    /// Merges a node and the next one if they fit; whether they did.
    fn merge(&mut self, at: usize) -> bool {
        if !self.may_merge(at) {
            return false;
        }
        let Some(Node::Packed { list: right, len: n }) = self.nodes.remove(at + 1) else {
            unreachable!("only listpacks are merged")
        };
        if let Node::Packed { list, len } = &mut self.nodes[at] {
            Arc::make_mut(list).append(&right);
            *len += n;
        }
        true
    }

    /// Merges what fits among the node at `centre` and two neighbours on each side.
    fn merge_around(&mut self, centre: usize) {
        let mut centre = centre;
        if 2 <= centre && self.merge(centre - 2) {
            centre -= 1;
        }
        self.merge(centre + 1);
        if 1 <= centre && self.merge(centre - 1) {
            centre -= 1;
        }
        self.merge(centre);
    }

    /// Removes up to `count` elements equal to `element`, searching from an end; returns how many.
    pub fn remove_equal(&mut self, end: End, element: &[u8], count: usize) -> usize {
        let mut removed = 0;
        let mut at = if end == End::Left { 0 } else { self.nodes.len() };
        while removed < count {
            match end {
                End::Left if at == self.nodes.len() => break,
                End::Right if at == 0 => break,
                End::Left => {}
                End::Right => at -= 1,
            }
            let taken = match &mut self.nodes[at] {
                Node::Plain(plain) => usize::from(**plain == *element),
                Node::Packed { list, len } => {
                    let taken = remove_equal(Arc::make_mut(list).buffer(), end, element, count - removed);
                    *len -= taken as u32;
                    taken
                }
            };
            removed += taken;
            let is_gone = match &self.nodes[at] {
                Node::Plain(_) => taken == 1,
                Node::Packed { len, .. } => *len == 0,
            };
            if is_gone {
                self.remove_node(at);
            } else if end == End::Left {
                at += 1;
            }
        }
        self.len -= removed;
        removed
    }

    /// The only listpack of a list that needs no chain.
    ///
    /// # Errors
    /// The chain, if it is needed.
    pub fn into_single(mut self, fill: Fill) -> Result<Listpack, Quicklist> {
        let is_small = |node: &Node| match node {
            Node::Packed { list, len } => {
                let (bytes, len) = (list.as_bytes().len(), *len as usize);
                !fill.is_exceeded(bytes, len) && fits_compact(bytes, 0)
            }
            Node::Plain(_) => false,
        };
        if self.nodes.len() != 1 || !self.nodes.iter().all(is_small) {
            return Err(self);
        }
        match self.nodes.pop_front() {
            Some(Node::Packed { list, .. }) => Ok(Arc::unwrap_or_clone(list)),
            Some(Node::Plain(_)) | None => unreachable!("its only node is packed"),
        }
    }

    /// The only listpack of a list that has become so small that it needs no chain any more.
    pub(super) fn as_small(&self, fill: Fill) -> Option<&Listpack> {
        match (self.nodes.len(), self.nodes.front()) {
            (1, Some(Node::Packed { list, .. })) if fill.is_small(list.as_bytes().len(), self.len) => {
                Some(list)
            }
            _ => None,
        }
    }

    /// About how many bytes it takes.
    pub fn memory_bytes(&self) -> usize {
        let nodes: usize = self
            .nodes
            .iter()
            .map(|node| match node {
                Node::Packed { list, .. } => list.as_bytes().len(),
                Node::Plain(element) => element.len(),
            })
            .sum();
        nodes + self.nodes.capacity() * size_of::<Node>() + self.nodes.len() * NODE_OVERHEAD
    }
}

/// Removes up to `count` elements equal to `element` from a listpack, searching from an end; returns how many.
pub(super) fn remove_equal(
    buffer: &mut impl crate::types::buffer::Buffer,
    end: End,
    element: &[u8],
    count: usize,
) -> usize {
    let mut places = ListpackRef::trusted(buffer.bytes()).places_of(element);
    match end {
        End::Left => places.truncate(count),
        End::Right => drop(places.drain(..places.len().saturating_sub(count))),
    }
    // From the end on, so that the other places stay right.
    places.iter().rev().for_each(|at| listpack::remove(buffer, *at, 1));
    places.len()
}

#[derive(Debug, Clone)]
enum NodeIter<'a> {
    Packed(listpack::Iter<'a>),
    Plain(Option<&'a [u8]>),
}

impl<'a> NodeIter<'a> {
    fn next(&mut self) -> Option<Element<'a>> {
        match self {
            NodeIter::Packed(iter) => iter.next(),
            NodeIter::Plain(element) => element.take().map(Into::into),
        }
    }

    fn next_back(&mut self) -> Option<Element<'a>> {
        match self {
            NodeIter::Packed(iter) => iter.next_back(),
            NodeIter::Plain(element) => element.take().map(Into::into),
        }
    }
}

/// Elements of a range, from both ends.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    list: &'a Quicklist,
    /// The node that `front` walks over, and the one of `back`.
    front_node: usize,
    front: NodeIter<'a>,
    back_node: usize,
    back: NodeIter<'a>,
    /// What is still to come: it stops both walks.
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(element) = self.front.next() {
                return Some(element);
            }
            self.front_node += 1;
            self.front = self.list.nodes[self.front_node].iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(element) = self.back.next_back() {
                return Some(element);
            }
            self.back_node -= 1;
            self.back = self.list.nodes[self.back_node].iter();
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}
