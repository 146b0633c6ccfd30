//! The token of whoever may act on the page: what is accepted as one, and how often a wrong one may be tried.
//!
//! Wrong tokens are counted by host. A host that has tried too many is not listened to for a while, with a right one
//! either: otherwise it would learn which one is right. A token must not pass through the clear, where others could
//! read it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use keyward_proto::time::Monotonic;
use subtle::ConstantTimeEq;

/// Shorter ones could be guessed.
const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 1024;
/// Wrong tokens of a host in a row.
const WRONG_MAX: u32 = 5;
/// After so long one of them is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);
/// Hosts that have tried wrong ones; the one that did so before all others is forgotten.
const HOSTS_MAX: usize = 1024;

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AdminToken(Vec<u8>);

/// Nobody reads it in a log.
impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }
}

impl AdminToken {
    /// The first line of a file.
    ///
    /// # Errors
    /// What is wrong with it, never what is in it.
    pub(crate) fn parse(text: &[u8]) -> Result<AdminToken, String> {
        let token = text.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
        if !(BYTES_MIN..=BYTES_MAX).contains(&token.len()) {
            return Err(format!(
                "its first line has to be a token of {BYTES_MIN} to {BYTES_MAX} bytes (make one with `openssl rand -hex 32`)"
            ));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(
                "a token has letters, digits and signs of ASCII only, since it travels in a header".into()
            );
        }
        Ok(AdminToken(token.to_vec()))
    }

    /// In a time that says nothing of how much of it is right.
    fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

/// Why somebody may not act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    NoToken,
    InTheClear,
    TooMany { wait: Duration },
    Missing,
    Wrong,
}

impl Denied {
    /// Of HTTP.
    pub(crate) fn status(self) -> u16 {
        match self {
            Denied::NoToken => 404,
            Denied::InTheClear => 403,
            Denied::TooMany { .. } => 429,
            Denied::Missing | Denied::Wrong => 401,
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::NoToken => f.write_str(
                "this sentinel has no token of those who may change something (http-admin-token-file)",
            ),
            Denied::InTheClear => f.write_str(
                "nothing can be done over this connection: a token would pass through the network unencrypted. Use \
                 http-tls, or come from the sentinel's own host, for example through an SSH tunnel",
            ),
            Denied::TooMany { wait } => {
                write!(f, "too many wrong tokens came from your address: try again in {} s", wait.as_secs() + 1)
            }
            Denied::Missing => f.write_str("the token is missing"),
            Denied::Wrong => f.write_str("the token is wrong"),
        }
    }
}

/// How somebody is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Encrypted, or within this host.
    Private,
    Clear,
}

#[derive(Debug)]
struct Wrong {
    count: u32,
    /// When the last one came, or one was forgiven.
    since: Monotonic,
}

/// Who has tried wrong tokens.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    wrong: BTreeMap<IpAddr, Wrong>,
}

impl Guard {
    /// Whether whoever sends this header (`Authorization`) may act.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn judge(
        &mut self,
        now: Monotonic,
        token: Option<&AdminToken>,
        host: IpAddr,
        line: Line,
        header: Option<&[u8]>,
    ) -> Result<(), Denied> {
        let token = token.ok_or(Denied::NoToken)?;
        if line == Line::Clear {
            return Err(Denied::InTheClear);
        }
        self.forgive(now, host);
        if let Some(wrong) = self.wrong.get(&host).filter(|wrong| WRONG_MAX <= wrong.count) {
            let wait = FORGIVEN_AFTER.saturating_sub(now.since(wrong.since));
            return Err(Denied::TooMany { wait });
        }
        let given = header.and_then(|header| header.strip_prefix(b"Bearer ")).ok_or(Denied::Missing)?;
        if token.is(given.trim_ascii()) {
            self.wrong.remove(&host);
            return Ok(());
        }
        self.note(now, host);
        Err(Denied::Wrong)
    }

    fn forgive(&mut self, now: Monotonic, host: IpAddr) {
        let Some(wrong) = self.wrong.get_mut(&host) else { return };
        while 0 < wrong.count && FORGIVEN_AFTER <= now.since(wrong.since) {
            wrong.count -= 1;
            wrong.since = wrong.since + FORGIVEN_AFTER;
        }
        if wrong.count == 0 {
            self.wrong.remove(&host);
        }
    }

    fn note(&mut self, now: Monotonic, host: IpAddr) {
        if HOSTS_MAX <= self.wrong.len() && !self.wrong.contains_key(&host) {
            let oldest = self.wrong.iter().min_by_key(|(_, wrong)| wrong.since).map(|(host, _)| *host);
            oldest.map(|host| self.wrong.remove(&host));
        }
        let wrong = self.wrong.entry(host).or_insert(Wrong { count: 0, since: now });
        wrong.count += 1;
        wrong.since = now;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const TOKEN: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn at(seconds: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_secs(seconds)
    }

    fn host(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    fn bearer(token: &[u8]) -> Vec<u8> {
        [b"Bearer ", token].concat()
    }

    #[test]
    fn a_token_is_long_and_fits_into_a_header() {
        assert_eq!(AdminToken::parse(&[TOKEN, b"\nsecond line"].concat()), Ok(AdminToken(TOKEN.to_vec())));
        for (text, reason) in
            [(&b"short\n"[..], "16 to 1024 bytes"), (b"", "bytes"), ("0123456789abcdefä".as_bytes(), "ASCII")]
        {
            assert!(AdminToken::parse(text).unwrap_err().contains(reason));
        }
        assert_eq!(format!("{:?}", AdminToken(TOKEN.to_vec())), "a token");
    }

    #[test]
    fn only_the_right_token_on_a_private_line_is_accepted() {
        let (token, mut guard) = (AdminToken(TOKEN.to_vec()), Guard::default());
        let mut judge = |token: Option<&AdminToken>, line, header: Option<&[u8]>| {
            guard.judge(at(0), token, host(1), line, header)
        };
        let right = bearer(TOKEN);
        assert_eq!(judge(Some(&token), Line::Private, Some(&right)), Ok(()));
        assert_eq!(judge(Some(&token), Line::Clear, Some(&right)), Err(Denied::InTheClear));
        assert_eq!(judge(None, Line::Private, Some(&right)), Err(Denied::NoToken));
        assert_eq!(judge(Some(&token), Line::Private, None), Err(Denied::Missing));
        assert_eq!(judge(Some(&token), Line::Private, Some(b"Basic eDp5")), Err(Denied::Missing));
        for wrong in [&TOKEN[1..], b"", &[TOKEN, b"0"].concat()] {
            assert_eq!(judge(Some(&token), Line::Private, Some(&bearer(wrong))), Err(Denied::Wrong));
        }
    }

    #[test]
    fn whoever_tries_too_many_has_to_wait_and_nobody_else() {
        let (token, mut guard) = (AdminToken(TOKEN.to_vec()), Guard::default());
        let mut judge = |seconds, n, given: &[u8]| {
            guard.judge(at(seconds), Some(&token), host(n), Line::Private, Some(&bearer(given)))
        };
        for _ in 0..5 {
            assert_eq!(judge(0, 1, b"x"), Err(Denied::Wrong));
        }
        let wait = Duration::from_secs(7);
        assert_eq!(judge(3, 1, TOKEN), Err(Denied::TooMany { wait }), "the right one either");
        assert_eq!(judge(3, 2, TOKEN), Ok(()));
        assert_eq!(judge(10, 1, b"x"), Err(Denied::Wrong), "one is forgiven");
        assert!(matches!(judge(11, 1, TOKEN), Err(Denied::TooMany { .. })));
        assert_eq!(judge(20, 1, TOKEN), Ok(()));
        assert_eq!(judge(20, 1, b"x"), Err(Denied::Wrong));
    }

    #[test]
    fn few_hosts_are_remembered() {
        let (token, mut guard) = (AdminToken(TOKEN.to_vec()), Guard::default());
        for n in 0..5000 {
            _ = guard.judge(at(n.into()), Some(&token), host(n), Line::Private, Some(b"Bearer x"));
        }
        assert_eq!(guard.wrong.len(), HOSTS_MAX);
    }
}
