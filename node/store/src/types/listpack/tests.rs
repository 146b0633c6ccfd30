use super::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn listpack(elements: &[&[u8]]) -> Listpack {
    let mut list = Listpack::default();
    elements.iter().for_each(|e| list.push_back(e));
    list
}

#[test]
fn the_bytes_are_valkeys() {
    assert_eq!(Listpack::default().as_bytes(), [7, 0, 0, 0, 0, 0, 0xff]);
    for (element, expect) in [
        (&b"0"[..], &[0, 1][..]),
        (b"127", &[127, 1]),
        (b"128", &[0xc0, 128, 2]),
        (b"-1", &[0xdf, 0xff, 2]),
        (b"4095", &[0xcf, 0xff, 2]),
        (b"-4096", &[0xd0, 0, 2]),
        (b"4096", &[0xf1, 0, 0x10, 3]),
        (b"-32769", &[0xf2, 0xff, 0x7f, 0xff, 4]),
        (b"8388608", &[0xf3, 0, 0, 0x80, 0, 5]),
        (b"-2147483649", &[0xf4, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 9]),
        (b"a", &[0x81, b'a', 2]),
        (b"", &[0x80, 1]),
        (b"007", &[0x83, b'0', b'0', b'7', 4]),
        (b"-0", &[0x82, b'-', b'0', 3]),
    ] {
        let list = listpack(&[element]);
        assert_eq!(&list.as_bytes()[HEADER_LEN..list.as_bytes().len() - 1], expect, "{element:?}");
        assert_eq!(encoded_len(element), expect.len());
        assert_eq!(list.get(0).unwrap(), element);
    }
    let long = listpack(&[&[b'x'; 300]]);
    assert_eq!(long.as_bytes()[6..8], [0xe1, 0x2c]);
    assert_eq!(long.as_bytes()[308..], [0x02, 0xae, 0xff]);
    let longest = listpack(&[&vec![b'x'; 5000]]);
    assert_eq!(longest.as_bytes()[6..11], [0xf0, 0x88, 0x13, 0, 0]);
}

fn random_element(rng: &mut SmallRng) -> Vec<u8> {
    let number: i64 = rng.random();
    match rng.random_range(0..8) {
        0 => vec![b'x'; rng.random_range(0..70)],
        1 => vec![b'y'; rng.random_range(60..300)],
        2 if rng.random_range(0..10) == 0 => vec![b'z'; rng.random_range(4000..40_000)],
        _ => (number >> rng.random_range(0..64)).to_string().into_bytes(),
    }
}

#[test]
fn behaves_as_a_vector_under_random_edits() {
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut list, mut model) = (Listpack::default(), Vec::<Vec<u8>>::new());
        for step in 0..400 {
            let element = random_element(&mut rng);
            let index = rng.random_range(0..=model.len());
            match rng.random_range(0..9) {
                0 | 1 => {
                    list.push_back(&element);
                    model.push(element);
                }
                2 => {
                    list.push_front(&element);
                    model.insert(0, element);
                }
                3 | 4 => {
                    list.insert(index, &element);
                    model.insert(index, element);
                }
                5 if index < model.len() => {
                    list.replace(index, &element);
                    model[index] = element;
                }
                6 => {
                    let count = rng.random_range(0..=(model.len() - index).min(5));
                    list.remove(index, count);
                    model.drain(index..index + count);
                }
                7 => {
                    let (right, expect) = (list.split_off(index), model.split_off(index));
                    assert!(right.iter().eq(expect.iter().map(|e| Element::from(&e[..]))));
                    list.append(&right);
                    model.extend(expect);
                }
                _ => {
                    let expect = model.iter().position(|e| *e == element);
                    assert_eq!(list.find(&element), expect, "seed {seed} step {step}");
                }
            }
            assert!(list.iter().eq(model.iter().map(|e| Element::from(&e[..]))), "seed {seed} step {step}");
            assert!(list.iter().rev().eq(model.iter().rev().map(|e| Element::from(&e[..]))));
            assert_eq!((list.len(), list.is_empty()), (model.len(), model.is_empty()));
            let index = rng.random_range(0..=model.len());
            assert_eq!(list.get(index).as_deref(), model.get(index).map(|e| &e[..]));
            let end = rng.random_range(index..=model.len());
            let range = list.as_ref().range(index, end);
            assert!(range.eq(model[index..end].iter().map(|e| Element::from(&e[..]))));
            assert_eq!(Listpack::from_bytes(list.as_bytes().to_vec()).as_ref(), Ok(&list));
        }
    }
}

#[test]
fn more_elements_than_the_header_can_count() {
    let mut list = Listpack::default();
    (0..70_000).for_each(|_| list.push_back(b"1"));
    assert_eq!((list.len(), list.iter().count()), (70_000, 70_000));
    list.remove(10, 69_000);
    assert_eq!(list.len(), 1000);
    assert!(Listpack::from_bytes(list.into_bytes()).is_ok());
}

#[test]
fn damaged_bytes_are_refused() {
    let good = listpack(&[b"12345", b"text", &[b'x'; 100], &vec![b'y'; 5000], b"-70000", b""]).into_bytes();
    assert!(Listpack::from_bytes(good.clone()).is_ok());
    for len in 0..good.len() {
        assert!(Listpack::from_bytes(good[..len].to_vec()).is_err());
    }
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..rng.random_range(1..4) {
            // Mostly in the short elements and the header, where the structure is.
            let at = if rng.random() { rng.random_range(0..20) } else { rng.random_range(0..bytes.len()) };
            bytes[at] = rng.random();
        }
        // Whatever is accepted can be walked in both directions.
        if let Ok(list) = Listpack::from_bytes(bytes) {
            let forward: Vec<_> = list.iter().collect();
            let mut backward: Vec<_> = list.iter().rev().collect();
            backward.reverse();
            assert_eq!(forward, backward);
        }
    }
    for bad in [
        &[7, 0, 0, 0, 1, 0, 0xff][..],
        &[8, 0, 0, 0, 0, 0, 0xff, 0xff],
        &[9, 0, 0, 0, 1, 0, 0x80, 2, 0xff],
        &[9, 0, 0, 0, 2, 0, 0x80, 1, 0xff],
        &[13, 0, 0, 0, 1, 0, 0xf0, 0xff, 0xff, 0xff, 0xff, 5, 0xff],
        &[0; 7],
    ] {
        assert_eq!(Listpack::from_bytes(bad.to_vec()), Err(MalformedListpack), "{bad:?}");
    }
}
