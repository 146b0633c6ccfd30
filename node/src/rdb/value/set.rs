//! Sets: members in any order, each once.

use super::super::compact::{intset, listpack};
use super::super::input::Digits;
use super::super::output::{push_len, push_text};
use super::super::{Compression, Input, RdbError, type_byte as t};
use super::not_empty;
use crate::keyspace::types::{Set, SetRef};

pub(super) fn save_body(set: SetRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    push_len(set.len(), out);
    set.iter().for_each(|member| push_text(&member, compression, out));
}

pub(super) fn load(type_byte: u8, input: &mut Input<'_>) -> Result<Set, RdbError> {
    let mut set = Set::default();
    let mut insert = |member: &[u8]| {
        if set.insert(member) { Ok(()) } else { Err(RdbError::Corrupt("a set has a member twice")) }
    };
    match type_byte {
        t::SET => {
            for _ in 0..input.count()? {
                insert(&input.text()?)?;
            }
        }
        t::SET_INTSET => {
            for integer in intset::integers(&input.text()?)? {
                insert(&Digits::new(integer))?;
            }
        }
        _ => {
            for member in listpack::elements(&input.text()?)? {
                insert(&member?)?;
            }
        }
    }
    not_empty(set.len())?;
    Ok(set)
}

pub(super) fn skip(input: &mut Input<'_>) -> Result<(), RdbError> {
    for _ in 0..input.count()? {
        input.skip_text()?;
    }
    Ok(())
}
