//! Sessions that clients may resume: `tls-session-caching`.
//!
//! They lie here and not encrypted at the clients, so that they end with the material that they were made under: after a
//! change of the CA, or of what clients have to show, nobody comes back without showing it.
#![allow(clippy::disallowed_methods, reason = "shell: reads the clock")]

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use keyward_proto::time::Monotonic;
use parking_lot::Mutex;
use rustls::server::StoresServerSessions;

use super::SessionLimits;
use crate::clock::monotonic;

/// No cache has more sessions, whatever is configured: each takes some kilobytes if it has a client's certificate.
const SESSIONS_MAX: usize = 1 << 18;

/// Sessions that are forgotten in one go, so that nobody waits for long.
const FORGOTTEN_AT_ONCE: usize = 1000;

/// The cache of one configuration, for all threads.
#[derive(Debug)]
pub struct Sessions {
    /// Held for one look-up.
    kept: Mutex<Kept>,
}

impl Sessions {
    pub fn new(limits: SessionLimits) -> Sessions {
        let count_max = if limits.count == 0 { SESSIONS_MAX } else { limits.count.min(SESSIONS_MAX) };
        Sessions { kept: Mutex::new(Kept { count_max, age_max: limits.age, ..Kept::default() }) }
    }
}

impl Sessions {
    /// Gives memory back of sessions that are too old, some at a time: to be called now and then.
    pub fn forget_old(&self) {
        self.kept.lock().forget_old(monotonic());
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.kept.lock().put(key, value, monotonic());
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.lock().get(key, monotonic())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.lock().take(key, monotonic())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Session {
    kept_at: Monotonic,
    value: Vec<u8>,
}

/// Sessions in the order in which they were put.
#[derive(Debug, Default)]
struct Kept {
    count_max: usize,
    age_max: Duration,
    sessions: HashMap<Vec<u8>, Session>,
    /// Keys with the time at which they were put; what was taken or replaced since may still be here.
    order: VecDeque<(Monotonic, Vec<u8>)>,
}

impl Kept {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, now: Monotonic) {
        self.order.push_back((now, key.clone()));
        self.sessions.insert(key, Session { kept_at: now, value });
        self.forget(now);
    }

    /// Forgets what is too old, and the oldest while there are too many.
    fn forget(&mut self, now: Monotonic) {
        while let Some((kept_at, _)) = self.order.front() {
            let is_old = self.age_max <= now.since(*kept_at);
            if !is_old && self.order.len() <= self.count_max {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((kept_at, key)) = self.order.pop_front() else { return };
        if self.sessions.get(&key).is_some_and(|session| session.kept_at == kept_at) {
            self.sessions.remove(&key);
        }
    }

    fn forget_old(&mut self, now: Monotonic) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            if self.order.front().is_none_or(|(kept_at, _)| now.since(*kept_at) < self.age_max) {
                break;
            }
            self.forget_oldest();
        }
        if self.order.is_empty() {
            self.order.shrink_to_fit();
            self.sessions.shrink_to_fit();
        }
    }

    fn get(&self, key: &[u8], now: Monotonic) -> Option<Vec<u8>> {
        let session = self.sessions.get(key).filter(|session| now.since(session.kept_at) < self.age_max)?;
        Some(session.value.clone())
    }

    fn take(&mut self, key: &[u8], now: Monotonic) -> Option<Vec<u8>> {
        let session = self.sessions.remove(key)?;
        (now.since(session.kept_at) < self.age_max).then_some(session.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_secs(seconds)
    }

    fn kept(count_max: usize) -> Kept {
        Kept { count_max, age_max: Duration::from_secs(10), ..Kept::default() }
    }

    #[test]
    fn the_oldest_session_gives_way() {
        let mut kept = kept(2);
        for key in 1..=3 {
            kept.put(vec![key], vec![key, key], at(1));
        }
        assert_eq!([1, 2, 3].map(|key| kept.get(&[key], at(1))), [None, Some(vec![2, 2]), Some(vec![3, 3])]);
    }

    #[test]
    fn a_session_can_be_resumed_for_its_time() {
        let mut kept = kept(9);
        kept.put(vec![1], vec![1], at(0));
        assert_eq!(kept.get(&[1], at(9)), Some(vec![1]));
        assert_eq!(kept.get(&[1], at(10)), None);
        assert_eq!(kept.take(&[1], at(10)), None);
        kept.put(vec![1], vec![2], at(11));
        assert_eq!((kept.take(&[1], at(12)), kept.take(&[1], at(12))), (Some(vec![2]), None));
    }

    #[test]
    fn memory_is_given_back_when_nobody_comes_any_more() {
        let mut kept = kept(5000);
        for n in 0..2500_u32 {
            kept.put(n.to_be_bytes().to_vec(), vec![1], at(0));
        }
        let mut left = || {
            kept.forget_old(at(10));
            (kept.order.len(), kept.sessions.len(), kept.sessions.capacity() == 0)
        };
        assert_eq!([left(), left(), left()], [(1500, 1500, false), (500, 500, false), (0, 0, true)]);
    }

    #[test]
    fn nothing_stays_of_sessions_that_were_taken_or_are_old() {
        let mut kept = kept(4);
        for n in 0..100_u8 {
            kept.put(vec![n], vec![n], at(0));
            kept.take(&[n], at(0));
            assert!(kept.order.len() <= 4 && kept.sessions.is_empty());
        }
        kept.put(vec![0], vec![0], at(20));
        assert_eq!((kept.order.len(), kept.sessions.len()), (1, 1));
    }
}
