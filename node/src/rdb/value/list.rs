//! Lists: elements in order; or nodes of a quicklist, which are compact lists or single large elements.

use super::super::compact::{listpack, ziplist};
use super::super::output::{push_len, push_text};
use super::super::{Compression, Input, RdbError, Text, type_byte as t};
use super::not_empty;
use crate::keyspace::types::{List, ListRef};

/// A node of a quicklist that is an element of its own.
const PLAIN: u64 = 1;
/// A node of a quicklist that is a listpack.
const PACKED: u64 = 2;

pub(super) fn save_body(list: ListRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    push_len(list.len(), out);
    list.iter().for_each(|element| push_text(&element, compression, out));
}

pub(super) fn load(type_byte: u8, input: &mut Input<'_>) -> Result<List, RdbError> {
    let mut list = List::default();
    match type_byte {
        t::LIST => {
            for _ in 0..input.count()? {
                list.push_back(&input.text()?);
            }
        }
        t::LIST_ZIPLIST => push_all(&mut list, ziplist::elements(&input.text()?)?)?,
        t::LIST_QUICKLIST => {
            for _ in 0..input.count()? {
                push_all(&mut list, ziplist::elements(&input.text()?)?)?;
            }
        }
        _ => {
            for _ in 0..input.count()? {
                let container = input.number()?;
                let node = input.text()?;
                match container {
                    PLAIN => list.push_back(&node),
                    PACKED => push_all(&mut list, listpack::elements(&node)?)?,
                    _ => return Err(RdbError::Corrupt("a quicklist has a node of an unknown kind")),
                }
            }
        }
    }
    not_empty(list.len())?;
    Ok(list)
}

fn push_all<'a>(
    list: &mut List,
    elements: impl Iterator<Item = Result<Text<'a>, RdbError>>,
) -> Result<(), RdbError> {
    for element in elements {
        list.push_back(&element?);
    }
    Ok(())
}

pub(super) fn skip(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
    for _ in 0..input.count()? {
        if type_byte == t::LIST_QUICKLIST_2 {
            input.number()?;
        }
        input.skip_text()?;
    }
    Ok(())
}
