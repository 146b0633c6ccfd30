//! A sequence's commands in one stream: as a client sends them that does not wait for replies.
//!
//! The stream is cut at random bytes, so that the servers find half a length, half an argument, or some hundred
//! commands at once. A command that ends a server's batch early must lose nothing of what stands behind it, and no
//! reply may be out of step.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::resp_client::{Frame, NoReply, encode};

use super::equality::normal_pushes;
use super::generator::{Action, Client, Step};
use super::runner::{BARRIER, Difference, Side, Transaction, difference};
use super::words::Args;

/// How long a piece may wait for an answer to what came before it, so that the server reads the pieces apart.
/// Nothing depends on it.
const BETWEEN_PIECES: Duration = Duration::from_millis(2);
/// Pieces that are sent apart; the rest of the stream is the last one.
const PIECES_MAX: usize = 12;

/// The commands of the main client, each with the number of its step.
fn commands(steps: &[Step]) -> Vec<(usize, &Args)> {
    let numbered = steps.iter().enumerate();
    let actions = numbered.flat_map(|(index, step)| step.actions.iter().map(move |action| (index, action)));
    actions
        .filter_map(|(index, action)| match action {
            Action::Command(Client::Main, args) | Action::Scan(args) => Some((index, args)),
            _ => None,
        })
        .collect()
}

/// The seed by which nothing is cut.
pub const UNCUT: u64 = u64::MAX;

/// Where the stream is cut: not at all, into a few large pieces, or into small ones.
fn cut(mut stream: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let piece_max = match rng.random_range(0..4) {
        _ if seed == UNCUT => return vec![stream],
        0 => return vec![stream],
        1 => (stream.len() / 4).max(1),
        2 => 300,
        _ => 20,
    };
    let mut pieces = Vec::new();
    while !stream.is_empty() && pieces.len() + 1 < PIECES_MAX {
        let (piece, rest) = stream.split_at(rng.random_range(1..=piece_max.min(stream.len())));
        pieces.push(piece);
        stream = rest;
    }
    pieces.push(stream);
    pieces
}

/// What ends whatever a sequence may have left open, so that the barrier behind it is answered.
const CLOSING: [&str; 2] = ["DISCARD", "CLIENT REPLY ON"];

pub(super) fn run(ours: &mut Side, theirs: &mut Side, steps: &[Step], cuts: u64) -> Option<Difference> {
    let closing = CLOSING.map(|line| line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Args>());
    let mut commands = commands(steps);
    commands.extend(closing.iter().map(|args| (steps.len(), args)));
    let mut stream = Vec::new();
    commands.iter().for_each(|(_, args)| encode(args, &mut stream));
    encode(&["PING", BARRIER], &mut stream);
    for side in [&mut *theirs, &mut *ours] {
        let connection = side.client(Client::Main);
        for piece in cut(&stream, cuts) {
            connection.send_raw(piece);
            connection.await_more(BETWEEN_PIECES);
        }
    }
    let (their_replies, their_pushes) = theirs.until_barrier(Client::Main, 0);
    let (our_replies, our_pushes) = ours.until_barrier(Client::Main, their_pushes.len());
    // Where each command has one reply, a reply is compared by its command's rule.
    let in_turn = their_replies.len() == commands.len();
    let mut transaction = Transaction::default();
    for at in 0..our_replies.len().max(their_replies.len()) {
        let none = Err(NoReply::Late);
        let (our_reply, their_reply) =
            (our_replies.get(at).unwrap_or(&none), their_replies.get(at).unwrap_or(&none));
        let (step, args) = commands[at.min(commands.len() - 1)];
        let equal =
            if in_turn { transaction.equal(args, our_reply, their_reply) } else { our_reply == their_reply };
        if !equal {
            return Some(Difference { step, ..difference(args, our_reply, their_reply) });
        }
    }
    let show = |pushes: &[Frame]| pushes.iter().map(Frame::to_string).collect::<Vec<_>>().join(" ");
    (normal_pushes(our_pushes.iter()) != normal_pushes(their_pushes.iter())).then(|| Difference {
        step: steps.len(),
        command: "pushes".into(),
        what: "all that was pushed".into(),
        ours: show(&our_pushes),
        theirs: show(&their_pushes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_stream_and_not_always_one() {
        let stream: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let cuts: Vec<Vec<&[u8]>> = (0..50).map(|seed| cut(&stream, seed)).collect();
        assert!(cuts.iter().all(|pieces| pieces.concat() == stream));
        assert!(cuts.iter().any(|pieces| pieces.len() == PIECES_MAX));
        assert!(cuts.iter().any(|pieces| pieces.len() < 4));
        assert_eq!(cut(&stream, 7), cut(&stream, 7));
        assert_eq!(cut(&stream, UNCUT), [stream.as_slice()]);
        assert_eq!(cut(b"", 7).concat(), b"");
    }
}
