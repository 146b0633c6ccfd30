//! The two servers that are compared, and how a sequence reaches them.

use super::generator::Step;
use super::pipeline;
use super::runner::{Difference, one_by_one, open, same_keyspace};

/// The two servers, known by their addresses.
#[derive(Clone, Debug)]
pub struct Pair {
    pub ours: String,
    pub theirs: String,
}

impl Pair {
    /// Runs a sequence on both, emptied, servers. `resp` is the protocol of all clients.
    pub fn run(&self, steps: &[Step], resp: u8, sending: Sending) -> Option<Difference> {
        let (mut ours, mut theirs) = match open((&self.ours, &self.theirs), steps, resp) {
            Ok(sides) => sides,
            Err(difference) => return Some(*difference),
        };
        let found = match sending {
            Sending::OneByOne => one_by_one(&mut ours, &mut theirs, steps),
            Sending::Pipelined { cuts } => pipeline::run(&mut ours, &mut theirs, steps, cuts),
        };
        let mut end = || same_keyspace(&mut ours, &mut theirs);
        found.or_else(|| end().map(|difference| Difference { step: steps.len(), ..difference }))
    }
}

/// How the commands of a sequence reach the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Each when the one before it is answered.
    OneByOne,
    /// Those of the main client all in one stream, cut at random bytes. The other clients do nothing.
    Pipelined { cuts: u64 },
}
