//! The secret that all processes of a cluster know.
//!
//! There may be two: the first is what a process proves, both are what it accepts. So a secret is changed while everything
//! runs: everybody gets the new one as the second, then as the first, then alone.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Shorter ones could be guessed from what was overheard.
const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 1024;
/// The one that is left, and the one that comes.
const COUNT_MAX: usize = 2;

/// Bytes of a [`Proof`].
pub const PROOF_BYTES: usize = 32;

/// HMAC-SHA256 (RFC 2104, FIPS 180-4) of what was said.
pub type Proof = [u8; PROOF_BYTES];

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(Vec<Vec<u8>>);

/// What is wrong with a file of secrets; never what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("there is no secret in it")]
    None,
    #[error("there are more than {COUNT_MAX} secrets in it, one per line: one is used, another accepted")]
    TooMany,
    #[error("a secret has to have {BYTES_MIN} to {BYTES_MAX} bytes (make one with `openssl rand -hex 32`)")]
    Length,
}

impl Secrets {
    /// A secret per line; empty lines do not count.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(text: &[u8]) -> Result<Secrets, Unfit> {
        let lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let secrets: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
        match secrets.len() {
            0 => Err(Unfit::None),
            1..=COUNT_MAX if secrets.iter().all(|s| (BYTES_MIN..=BYTES_MAX).contains(&s.len())) => {
                Ok(Secrets(secrets))
            }
            1..=COUNT_MAX => Err(Unfit::Length),
            _ => Err(Unfit::TooMany),
        }
    }

    /// What everybody knows: where certificates prove who belongs to the cluster, a handshake says the rest.
    pub fn of_certificates() -> Secrets {
        Secrets(vec![b"proven by certificates".to_vec()])
    }

    /// Shows that one knows the first.
    pub(super) fn prove(&self, label: &[u8], said: &[u8]) -> Proof {
        keyed(&self.0[0], label, said).finalize().into_bytes().into()
    }

    /// Those of them that `proof` was made with, alone; `None`: another one.
    pub(super) fn check(&self, label: &[u8], said: &[u8], proof: &Proof) -> Option<Secrets> {
        let known = self.0.iter().find(|secret| keyed(secret, label, said).verify_slice(proof).is_ok());
        known.map(|secret| Secrets(vec![secret.clone()]))
    }
}

/// Nobody reads it in a log.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secret(s)", self.0.len())
    }
}

fn keyed(secret: &[u8], label: &[u8], said: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(label);
    mac.update(said);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_or_two_secrets() {
        let long = "0123456789abcdef";
        assert!(Secrets::parse(long.as_bytes()).is_ok());
        assert!(Secrets::parse(format!("\n {long}\r\n{long}x\n\n").as_bytes()).is_ok());
        for (text, why) in [
            (String::new(), Unfit::None),
            (" \n\r\n".into(), Unfit::None),
            ("0123456789abcde".into(), Unfit::Length),
            ("x".repeat(1025), Unfit::Length),
            (format!("{long}\nshort"), Unfit::Length),
            (format!("{long}\n{long}\n{long}"), Unfit::TooMany),
        ] {
            assert_eq!(Secrets::parse(text.as_bytes()), Err(why), "{text}");
        }
    }

    #[test]
    fn what_is_shown_of_them_is_how_many_there_are() {
        let secrets = Secrets::parse(b"a-secret-of-some-length").unwrap();
        assert_eq!(format!("{secrets:?}"), "1 secret(s)");
    }

    #[test]
    fn a_proof_is_of_the_label_and_of_all_that_was_said() {
        let secrets = Secrets::parse(b"a-secret-of-some-length\nanother-of-some-length").unwrap();
        let second = Secrets::parse(b"another-of-some-length").unwrap();
        let proof = second.prove(b"label", b"said");
        assert_eq!(secrets.check(b"label", b"said", &proof), Some(second));
        assert_eq!(secrets.check(b"another", b"said", &proof), None);
        assert_eq!(secrets.check(b"label", b"unsaid", &proof), None);
        let stranger = Secrets::parse(b"a-third-of-some-length").unwrap();
        assert_eq!(stranger.check(b"label", b"said", &proof), None);
    }
}
