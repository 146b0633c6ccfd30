//! A published message, and how far it reaches. Known to sessions, channels and the relay, and knows none of them.

use bytes::Bytes;

/// How far a channel reaches: over the whole cluster, or over the shard that serves its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    Global,
    Shard,
}

/// What PUBLISH or SPUBLISH was called with.
#[derive(Debug, Clone)]
pub struct Message {
    pub channel: Bytes,
    pub payload: Bytes,
    pub kind: ChannelKind,
}

impl Message {
    pub fn new(channel: &[u8], payload: &[u8], kind: ChannelKind) -> Message {
        let (channel, payload) = (Bytes::copy_from_slice(channel), Bytes::copy_from_slice(payload));
        Message { channel, payload, kind }
    }

    pub fn len_bytes(&self) -> usize {
        self.channel.len() + self.payload.len()
    }
}
