use super::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn list(elements: &str) -> List {
    let mut list = List::default();
    elements.bytes().for_each(|b| list.push_back(&[b]));
    list
}

fn text(list: &List) -> String {
    list.as_ref().iter().map(|e| String::from_utf8_lossy(&e).into_owned()).collect()
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
        let removed = l.as_mut().remove_equal(end, b"a", count);
        assert_eq!((text(&l), removed), (expect.to_owned(), 8 - expect.len()), "{end:?} {count}");
    }
}

#[test]
fn ends() {
    let mut l = list("abcdef");
    assert!(l.as_ref().at_end(End::Right, 2).eq([b"f", b"e"].map(|e| Element::from(&e[..]))));
    assert_eq!(l.as_ref().at_end(End::Left, 9).len(), 6);
    assert_eq!(List::default().as_ref().at_end(End::Right, 9).count(), 0);
    l.as_mut().drop_at_end(End::Right, 2);
    l.as_mut().drop_at_end(End::Left, 1);
    l.as_mut().insert(0, Side::After, b"x");
    assert_eq!(text(&l), "bxcd");
    l.as_mut().drop_at_end(End::Left, usize::MAX);
    assert!(l.is_empty() && l.as_mut().pop(End::Left).is_none());
}

#[test]
fn a_long_list_becomes_a_chain_and_a_short_one_a_listpack_again() {
    let mut l = List::new(Fill::new(10));
    (0..10).for_each(|_| l.push_back(b"x"));
    assert!(l.as_ref().is_compact());
    l.push_back(b"x");
    assert!(!l.as_ref().is_compact());
    for _ in 0..6 {
        assert!(!l.as_ref().is_compact());
        l.as_mut().pop(End::Left);
        l.as_mut().shrink();
    }
    // The eleventh element is alone in its node; with five in the first one is a chain of two.
    assert!(!l.as_ref().is_compact());
    l.as_mut().pop(End::Right);
    l.as_mut().shrink();
    assert!(l.as_ref().is_compact() && l.len() == 4);
}

#[test]
fn behaves_as_a_vector_under_random_edits() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let fill = Fill::new([-1, -5, 0, 1, 3, 8, 100][seed as usize % 7]);
        let (mut list, mut model) = (List::new(fill), Vec::<Vec<u8>>::new());
        for step in 0..300 {
            let element = match rng.random_range(0..40) {
                0 => vec![b'L'; rng.random_range(4000..70_000)],
                1..6 => vec![b'm'; rng.random_range(0..1500)],
                _ => rng.random_range(0..9).to_string().into_bytes(),
            };
            let index = rng.random_range(0..=model.len());
            let end = if rng.random() { End::Left } else { End::Right };
            let mut edit = list.as_mut();
            match rng.random_range(0..12) {
                0..5 => {
                    edit.prepare([&element[..]].into_iter());
                    edit.push(end, &element);
                    model.insert(if end == End::Left { 0 } else { model.len() }, element);
                }
                5 | 6 if index < model.len() => {
                    let after = rng.random();
                    edit.prepare([&element[..]].into_iter());
                    edit.insert(index, if after { Side::After } else { Side::Before }, &element);
                    model.insert(index + usize::from(after), element);
                }
                7 | 8 if index < model.len() => {
                    edit.prepare([&element[..]].into_iter());
                    edit.set(index, &element);
                    model[index] = element;
                }
                9 => {
                    let count = rng.random_range(0..4.min(model.len() + 1));
                    edit.drop_at_end(end, count);
                    edit.shrink();
                    let start = if end == End::Left { 0 } else { model.len() - count };
                    model.drain(start..start + count);
                }
                10 => {
                    let count = rng.random_range(1..4);
                    let removed = edit.remove_equal(end, &element, count);
                    edit.shrink();
                    let mut places: Vec<usize> = (0..model.len()).filter(|i| model[*i] == element).collect();
                    if end == End::Right {
                        places.reverse();
                    }
                    places.truncate(count);
                    assert_eq!(removed, places.len());
                    places.sort_unstable();
                    places.iter().rev().for_each(|i| drop(model.remove(*i)));
                }
                _ => {
                    let end = rng.random_range(index..=model.len());
                    let range = edit.as_ref().range(index, end);
                    assert_eq!(range.len(), end - index);
                    assert!(range.eq(model[index..end].iter().map(|e| Element::from(&e[..]))));
                    let range = edit.as_ref().range(index, end).rev();
                    assert!(range.eq(model[index..end].iter().rev().map(|e| Element::from(&e[..]))));
                }
            }
            let view = list.as_ref();
            assert_eq!(view.len(), model.len());
            let expect = || model.iter().map(|e| Element::from(&e[..]));
            assert!(view.iter().eq(expect()), "seed {seed} step {step}");
            assert!(view.iter().rev().eq(expect().rev()), "seed {seed} step {step}");
            if let ListRef::Quicklist(chain) = view {
                assert!(chain.nodes().all(|node| !node.is_empty()));
                assert_eq!(chain.nodes().map(quicklist::Node::len).sum::<usize>(), model.len());
            }
            let index = rng.random_range(0..=model.len());
            assert_eq!(view.get(index).as_deref(), model.get(index).map(|e| &e[..]));
        }
    }
}
