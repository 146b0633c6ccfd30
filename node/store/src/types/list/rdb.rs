//! Lists: elements in order; or a quicklist, whose nodes are compact lists or single large elements.

use super::quicklist::{Fill, Node, Quicklist};
use crate::entry::Compact;
use crate::rdb::compact::ziplist;
use crate::rdb::output::{push_len, push_length, push_text};
use crate::rdb::value::{Loaded, listpack, not_empty};
use crate::rdb::{Compression, Input, RdbError, Text, type_byte as t};
use crate::types::collection::{Body, Codec, Encoding};
use crate::types::{End, List, ListRef};

/// A node of a quicklist that is an element of its own.
const PLAIN: u64 = 1;
/// A node of a quicklist that is a listpack.
const PACKED: u64 = 2;

pub(crate) static CODEC: Codec = Codec {
    encodings: &[
        Encoding { type_byte: t::LIST, name: "list", body: Body::Elements },
        Encoding { type_byte: t::LIST_ZIPLIST, name: "list as ziplist", body: Body::OneString },
        Encoding {
            type_byte: t::LIST_QUICKLIST,
            name: "list as quicklist of ziplists",
            body: Body::Elements,
        },
        Encoding { type_byte: t::LIST_QUICKLIST_2, name: "list as quicklist", body: Body::Elements },
    ],
    load: |type_byte, input, limits| load(type_byte, input, limits.list),
    skip,
};

pub(super) fn save_body(list: ListRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    match list {
        ListRef::Listpack(list) => {
            push_len(1, out);
            push_node(PACKED, list.as_bytes(), compression, out);
        }
        ListRef::Quicklist(chain) => {
            push_len(chain.nodes().len(), out);
            chain.nodes().for_each(|node| push_node_of(node, compression, out));
        }
    }
}

pub(crate) fn push_node_of(node: &Node, compression: Compression, out: &mut Vec<u8>) {
    match node {
        Node::Packed { list, .. } => push_node(PACKED, list.as_bytes(), compression, out),
        Node::Plain(element) => push_node(PLAIN, element, compression, out),
    }
}

fn push_node(container: u64, node: &[u8], compression: Compression, out: &mut Vec<u8>) {
    push_length(container, out);
    push_text(node, compression, out);
}

fn load(type_byte: u8, input: &mut Input<'_>, fill: Fill) -> Result<Loaded<'static>, RdbError> {
    let mut chain = Quicklist::new(fill);
    match type_byte {
        t::LIST => {
            for _ in 0..input.count()? {
                chain.push(End::Right, &input.text()?);
            }
        }
        t::LIST_ZIPLIST => push_all(&mut chain, ziplist::elements(&input.text()?)?)?,
        t::LIST_QUICKLIST => {
            for _ in 0..input.count()? {
                push_all(&mut chain, ziplist::elements(&input.text()?)?)?;
            }
        }
        _ => {
            for _ in 0..input.count()? {
                let container = input.number()?;
                let node = input.text()?;
                match container {
                    PLAIN => chain.push_plain(&node),
                    PACKED => chain.push_listpack(listpack(node)?),
                    _ => return Err(RdbError::Corrupt("a quicklist has a node of an unknown kind")),
                }
            }
        }
    }
    not_empty(chain.len())?;
    Ok(match chain.into_single(fill) {
        Ok(list) => Loaded::Compact(Compact::List, list.into_bytes()),
        Err(chain) => Loaded::Collection(List::from(chain).into()),
    })
}

fn push_all<'a>(
    chain: &mut Quicklist,
    elements: impl Iterator<Item = Result<Text<'a>, RdbError>>,
) -> Result<(), RdbError> {
    for element in elements {
        chain.push(End::Right, &element?);
    }
    Ok(())
}

fn skip(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
    for _ in 0..input.count()? {
        if type_byte == t::LIST_QUICKLIST_2 {
            input.number()?;
        }
        input.skip_text()?;
    }
    Ok(())
}
