//! How a connection to a bus port begins: both sides prove that they know the secret, before anything else is said.
//!
//! ```text
//! server                                  client
//! greeting: magic, nonce            ->
//!                                   <-    claim: role, name, nonce, proof of greeting and claim
//! verdict: proof of both, or words  ->
//! ```
//!
//! Both nonces are in both proofs, with a label for each side: no proof can be used again, or sent back. The client
//! proves first, so that a stranger gets nothing to guess the secret from. All messages are short; their lengths are
//! known before they are read.
//!
//! Pure: whoever calls brings nonces and bytes.

use super::rights::{Identity, NAME_BYTES_MAX, Role};
use super::secret::{PROOF_BYTES, Proof, Secrets};

/// What a server that wants the secret says first: to somebody who does not, too, who can tell by it what is wanted.
pub const MAGIC: &[u8; 8] = b"KEYWARD\x01";
const NONCE_BYTES: usize = 32;
pub const GREETING_BYTES: usize = MAGIC.len() + NONCE_BYTES;
/// Role and length of the name.
pub const CLAIM_HEAD_BYTES: usize = 2;
/// Whether it is let in, and the length of what follows.
pub const VERDICT_HEAD_BYTES: usize = 2;

const CLIENT: &[u8] = b"keyward bus client";
const SERVER: &[u8] = b"keyward bus server";

/// Random bytes that are used once.
pub type Nonce = [u8; NONCE_BYTES];

/// Why there is no connection; for the log of who wanted it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("it does not ask for the cluster secret: it has none, or is another kind of server")]
    NoGreeting,
    #[error("it does not know the cluster secret")]
    Impostor,
    #[error("{0}")]
    Refused(String),
    #[error("malformed handshake")]
    Malformed,
}

/// What the server says first.
pub fn greeting(nonce: &Nonce) -> Vec<u8> {
    [MAGIC.as_slice(), nonce].concat()
}

/// A client in the middle of its handshake.
#[derive(Debug)]
pub struct Claiming {
    secrets: Secrets,
    said: Vec<u8>,
}

impl Claiming {
    /// The claim that answers `greeting`, and what comes next.
    ///
    /// # Errors
    /// It is none.
    pub fn answer(
        greeting: &[u8; GREETING_BYTES],
        me: &Identity,
        nonce: &Nonce,
        secrets: &Secrets,
    ) -> Result<(Vec<u8>, Claiming), Failure> {
        if !greeting.starts_with(MAGIC) {
            return Err(Failure::NoGreeting);
        }
        let name = me.name().as_bytes();
        let length = u8::try_from(name.len()).map_err(|_| Failure::Malformed)?;
        let claim = [&[me.role() as u8, length], name, nonce].concat();
        let said = [greeting.as_slice(), &claim].concat();
        let proof = secrets.prove(CLIENT, &said);
        Ok(([claim.as_slice(), &proof].concat(), Claiming { secrets: secrets.clone(), said }))
    }

    /// What the server said of the claim: `body` has as many bytes as `head` says.
    ///
    /// # Errors
    /// There will be no connection.
    pub fn conclude(&self, head: [u8; VERDICT_HEAD_BYTES], body: &[u8]) -> Result<(), Failure> {
        if head[0] != ADMITTED {
            let words = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).collect();
            return Err(Failure::Refused(words));
        }
        let proof: Proof = body.try_into().map_err(|_| Failure::Malformed)?;
        self.secrets.check(SERVER, &self.said, &proof).map(|_| ()).ok_or(Failure::Impostor)
    }
}

/// Bytes of a verdict behind its head.
pub fn verdict_body_bytes(head: [u8; VERDICT_HEAD_BYTES]) -> usize {
    usize::from(head[1])
}

const REFUSED: u8 = 0;
const ADMITTED: u8 = 1;

/// What a server makes of a claim.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// To be sent.
    pub bytes: Vec<u8>,
    /// Who the other side is; why it is not let in otherwise.
    pub peer: Result<Identity, &'static str>,
}

/// Bytes of a claim behind its head.
pub fn claim_body_bytes(head: [u8; CLAIM_HEAD_BYTES]) -> usize {
    usize::from(head[1]) + NONCE_BYTES + PROOF_BYTES
}

/// Judges a claim: `body` has as many bytes as `head` says.
pub fn judge(nonce: &Nonce, head: [u8; CLAIM_HEAD_BYTES], body: &[u8], secrets: &Secrets) -> Verdict {
    match admit(nonce, head, body, secrets) {
        Ok((peer, proof)) => {
            let length = u8::try_from(PROOF_BYTES).expect("a proof is short");
            Verdict { bytes: [[ADMITTED, length].as_slice(), &proof].concat(), peer: Ok(peer) }
        }
        Err(words) => Verdict { bytes: refusal(words), peer: Err(words) },
    }
}

/// A verdict before there was a claim, too.
pub fn refusal(words: &'static str) -> Vec<u8> {
    let length = u8::try_from(words.len()).expect("a refusal is short");
    [&[REFUSED, length], words.as_bytes()].concat()
}

fn admit(
    nonce: &Nonce,
    head: [u8; CLAIM_HEAD_BYTES],
    body: &[u8],
    secrets: &Secrets,
) -> Result<(Identity, Proof), &'static str> {
    let (name, rest) = body.split_at_checked(usize::from(head[1])).ok_or("malformed handshake")?;
    let (_, proof) = rest.split_at_checked(NONCE_BYTES).ok_or("malformed handshake")?;
    let proof: Proof = proof.try_into().map_err(|_| "malformed handshake")?;
    let claimed = &body[..body.len() - PROOF_BYTES];
    let said = [&greeting(nonce), head.as_slice(), claimed].concat();
    let known = secrets.check(CLIENT, &said, &proof).ok_or("it has another cluster secret")?;
    // Nobody but who knows the secret is told more.
    let role = Role::from_number(head[0]).ok_or("unknown role: its program is newer")?;
    if NAME_BYTES_MAX < name.len() {
        return Err("its name is too long");
    }
    let name = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8")?;
    let peer = Identity::new(role, name).ok_or("its name is malformed")?;
    Ok((peer, known.prove(SERVER, &said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "0123456789012345678901234567890123456789";

    fn secrets(text: &str) -> Secrets {
        Secrets::parse(text.as_bytes()).unwrap()
    }

    fn node() -> Identity {
        Identity::new(Role::Node, NODE).unwrap()
    }

    /// What both sides end with.
    fn meet(
        me: &Identity,
        mine: &Secrets,
        theirs: &Secrets,
    ) -> (Result<(), Failure>, Result<Identity, &'static str>) {
        let nonce = [7; NONCE_BYTES];
        let greeting: [u8; GREETING_BYTES] = greeting(&nonce).try_into().unwrap();
        let (claim, claiming) = Claiming::answer(&greeting, me, &[9; NONCE_BYTES], mine).unwrap();
        let (head, body) = claim.split_first_chunk().unwrap();
        assert_eq!(body.len(), claim_body_bytes(*head));
        let verdict = judge(&nonce, *head, body, theirs);
        let (head, body) = verdict.bytes.split_first_chunk().unwrap();
        assert_eq!(body.len(), verdict_body_bytes(*head));
        (claiming.conclude(*head, body), verdict.peer)
    }

    #[test]
    fn who_knows_the_secret_is_let_in_as_who_it_says() {
        let one = secrets("the-secret-of-this-cluster");
        for me in [node(), Identity::new(Role::Sentinel, "s1").unwrap(), Identity::operator()] {
            assert_eq!(meet(&me, &one, &one), (Ok(()), Ok(me.clone())));
        }
    }

    #[test]
    fn a_secret_is_changed_while_both_are_accepted() {
        let (old, new) = ("the-old-secret-of-the-cluster", "the-new-secret-of-the-cluster");
        let stages = [old.to_owned(), format!("{old}\n{new}"), format!("{new}\n{old}"), new.to_owned()];
        for pair in stages.windows(2) {
            for (mine, theirs) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                assert_eq!(meet(&node(), &secrets(mine), &secrets(theirs)), (Ok(()), Ok(node())));
            }
        }
        let (mine, theirs) = meet(&node(), &secrets(old), &secrets(new));
        assert_eq!(theirs, Err("it has another cluster secret"));
        assert_eq!(mine, Err(Failure::Refused("it has another cluster secret".into())));
    }

    #[test]
    fn nothing_that_was_said_can_be_changed_or_said_again() {
        let one = secrets("the-secret-of-this-cluster");
        let nonce = [7; NONCE_BYTES];
        let greeting: [u8; GREETING_BYTES] = greeting(&nonce).try_into().unwrap();
        let (claim, claiming) = Claiming::answer(&greeting, &node(), &[9; NONCE_BYTES], &one).unwrap();
        let judged = |nonce: &Nonce, claim: &[u8]| {
            let (head, body) = claim.split_first_chunk().unwrap();
            judge(nonce, *head, body, &one)
        };
        let verdict = judged(&nonce, &claim);
        assert_eq!(verdict.peer, Ok(node()));
        assert!(judged(&[8; NONCE_BYTES], &claim).peer.is_err(), "of another connection");
        for at in 0..claim.len() {
            let mut changed = claim.clone();
            changed[at] ^= 1;
            assert!(judged(&nonce, &changed).peer.is_err(), "byte {at}");
        }
        for at in VERDICT_HEAD_BYTES..verdict.bytes.len() {
            let mut changed = verdict.bytes.clone();
            changed[at] ^= 1;
            let (head, body) = changed.split_first_chunk().unwrap();
            assert_eq!(claiming.conclude(*head, body), Err(Failure::Impostor), "byte {at}");
        }
        // A server that has nothing but what the client has sent.
        let (_, proof) = claim.split_at(claim.len() - PROOF_BYTES);
        assert_eq!(claiming.conclude([ADMITTED, 32], proof), Err(Failure::Impostor));
    }

    #[test]
    fn whatever_comes_is_answered() {
        let one = secrets("the-secret-of-this-cluster");
        for length in 0..200 {
            let body = vec![b'x'; length];
            for head in [[0, 0], [1, 5], [2, 255], [9, 40]] {
                assert!(judge(&[0; NONCE_BYTES], head, &body, &one).peer.is_err());
            }
        }
        let wrong = [b'x'; GREETING_BYTES];
        assert_eq!(
            Claiming::answer(&wrong, &node(), &[0; NONCE_BYTES], &one).unwrap_err(),
            Failure::NoGreeting
        );
    }

    #[test]
    fn words_of_a_stranger_do_not_forge_lines_of_the_log() {
        let one = secrets("the-secret-of-this-cluster");
        let greeting: [u8; GREETING_BYTES] = greeting(&[7; NONCE_BYTES]).try_into().unwrap();
        let (_, claiming) = Claiming::answer(&greeting, &node(), &[9; NONCE_BYTES], &one).unwrap();
        assert_eq!(claiming.conclude([0, 3], b"a\nb"), Err(Failure::Refused("ab".into())));
    }
}
