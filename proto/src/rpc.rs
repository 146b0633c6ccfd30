//! gRPC messages, clients and servers, generated from `proto/keyward.proto`.

#![allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// What encodes and decodes them.
pub use prost::Message;

tonic::include_proto!("keyward.v1");

impl From<Position> for crate::ids::Position {
    fn from(p: Position) -> Self {
        crate::ids::Position::new(p.term, p.index)
    }
}

impl From<crate::ids::Position> for Position {
    fn from(p: crate::ids::Position) -> Self {
        Position { term: p.term.get(), index: p.index.get() }
    }
}
