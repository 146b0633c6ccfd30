//! Random choice among elements, of a table or in a list: each at most once, or with repetition.

use std::collections::HashSet;

use crate::table::{Keyed, Table};

/// `count` different elements, or all if there are fewer.
pub(super) fn sample<T: Keyed>(table: &Table<T>, count: usize, mut random: impl FnMut() -> u64) -> Vec<&T> {
    if table.len() <= count {
        return table.iter().collect();
    }
    if table.len() / 3 <= count {
        return shuffled(table.iter().collect(), count, random);
    }
    // Few of many: draw until there are enough. Each draw is new with a probability of two thirds or more; the bound
    // is there for a generator that does not play fair.
    let mut seen: HashSet<*const T> = HashSet::with_capacity(count);
    let mut chosen = Vec::with_capacity(count);
    for _ in 0..count * 8 + 64 {
        let Some(element) = table.random(&mut random) else { break };
        if seen.insert(std::ptr::from_ref(element)) {
            chosen.push(element);
            if chosen.len() == count {
                return chosen;
            }
        }
    }
    shuffled(table.iter().collect(), count, random)
}

/// `count` elements, each chosen independently.
pub(super) fn repeated<'a, T: Keyed>(
    table: &'a Table<T>,
    count: usize,
    mut random: impl FnMut() -> u64 + 'a,
) -> impl Iterator<Item = &'a T> + 'a {
    // For many draws a list of all elements is worth its making.
    let all: Vec<&T> = if table.len() <= count { table.iter().collect() } else { Vec::new() };
    (0..count).map_while(move |_| match all.len() {
        0 => table.random(&mut random),
        len => all.get(below(len, random())).copied(),
    })
}

/// As [`sample`], of elements that are all at hand.
pub(super) fn sample_of<T>(elements: Vec<T>, count: usize, random: impl FnMut() -> u64) -> Vec<T> {
    if elements.len() <= count { elements } else { shuffled(elements, count, random) }
}

/// As [`repeated`], of elements that are all at hand.
pub(super) fn repeated_of<T: Clone>(
    elements: Vec<T>,
    count: usize,
    mut random: impl FnMut() -> u64,
) -> impl Iterator<Item = T> {
    let count = if elements.is_empty() { 0 } else { count };
    (0..count).map(move |_| elements[below(elements.len(), random())].clone())
}

/// A random number below `len`.
pub(super) fn below(len: usize, random: u64) -> usize {
    usize::try_from((random >> 1) % len as u64).expect("below the length")
}

/// The first `count` elements of a random order.
fn shuffled<T>(mut elements: Vec<T>, count: usize, mut random: impl FnMut() -> u64) -> Vec<T> {
    for i in 0..count {
        let other = i + below(elements.len() - i, random());
        elements.swap(i, other);
    }
    elements.truncate(count);
    elements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::hash_of;
    use std::collections::BTreeSet;

    #[test]
    fn a_sample_has_no_element_twice() {
        let mut table: Table<Box<[u8]>> = Table::default();
        for i in 0..300 {
            let key: Box<[u8]> = format!("{i}").into_bytes().into();
            table.insert_new(hash_of(&key), key);
        }
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state ^ (state >> 29)
        };
        let mut ever = BTreeSet::new();
        for count in [0, 1, 5, 50, 99, 100, 101, 200, 299, 300, 1000] {
            let chosen = sample(&table, count, &mut next);
            assert_eq!(chosen.len(), count.min(300));
            assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            (count < 300).then(|| ever.extend(chosen));
        }
        assert!(ever.len() > 280);
        // A generator that always says the same still gives an answer.
        assert_eq!(sample(&table, 20, || 4).len(), 20);
    }
}
