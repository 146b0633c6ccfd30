//! The scripts that clients know by their hashes. Those that EVAL has brought are forgotten if there are too many; those
//! that SCRIPT LOAD has brought stay until SCRIPT FLUSH.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use sha1::{Digest, Sha1};

use super::flags::ScriptFlags;

/// Scripts of EVAL that are kept.
pub const EVALS_MAX: usize = 500;

/// The hash of a script's text.
pub type Sha = [u8; 20];

pub fn sha_of(source: &[u8]) -> Sha {
    Sha1::digest(source).into()
}

/// A hash that a client has written, in any case.
pub fn parse_sha(text: &[u8]) -> Option<Sha> {
    let text: &[u8; 40] = text.try_into().ok()?;
    let digit = |byte: u8| (byte as char).to_digit(16);
    let mut sha = [0; 20];
    for (byte, pair) in sha.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(sha)
}

pub fn hex(sha: &Sha) -> String {
    sha.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is known of how a script behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It has never run.
    Unknown,
    /// So far it has used only keys that it was given.
    Tame,
    /// It uses others, too.
    Wild,
}

/// A script or function as threads share it: what it has done so far.
#[derive(Debug)]
pub struct Conduct(AtomicU8);

impl Default for Conduct {
    fn default() -> Conduct {
        Conduct(AtomicU8::new(0))
    }
}

impl Conduct {
    pub fn get(&self) -> Manner {
        match self.0.load(Ordering::Relaxed) {
            0 => Manner::Unknown,
            1 => Manner::Tame,
            _ => Manner::Wild,
        }
    }

    /// It has run and used only its own keys; who was wild once stays it.
    pub fn note_tame(&self) {
        self.0.fetch_max(1, Ordering::Relaxed);
    }

    pub fn note_wild(&self) {
        self.0.store(2, Ordering::Relaxed);
    }
}

/// A script.
#[derive(Debug)]
pub struct Script {
    pub sha: Sha,
    pub source: Vec<u8>,
    pub flags: ScriptFlags,
    pub conduct: Conduct,
    /// When EVAL has used it last, by the cache's count; zero: it is not forgotten.
    used: AtomicU64,
}

impl Script {
    /// What it takes, with its place in the table.
    fn len_bytes(&self) -> usize {
        self.source.len() + size_of::<Script>() + 64
    }
}

/// Who has brought a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Eval,
    Load,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Cache {
    scripts: BTreeMap<Sha, Arc<Script>>,
    evals: usize,
    count: u64,
    len_bytes: usize,
    evicted: u64,
}

impl Cache {
    pub fn get(&mut self, sha: &Sha) -> Option<Arc<Script>> {
        let script = self.scripts.get(sha)?;
        if script.used.load(Ordering::Relaxed) != 0 {
            self.count += 1;
            script.used.store(self.count, Ordering::Relaxed);
        }
        Some(Arc::clone(script))
    }

    pub fn has(&self, sha: &Sha) -> bool {
        self.scripts.contains_key(sha)
    }

    /// Adds a script that was compiled; one that is there is used, and kept if it was loaded now.
    pub fn add(&mut self, sha: Sha, source: &[u8], flags: ScriptFlags, origin: Origin) -> Arc<Script> {
        if let Some(script) = self.get(&sha) {
            if origin == Origin::Load && script.used.swap(0, Ordering::Relaxed) != 0 {
                self.evals -= 1;
            }
            return script;
        }
        if origin == Origin::Eval {
            if self.evals == EVALS_MAX {
                self.forget_oldest();
            }
            self.evals += 1;
            self.count += 1;
        }
        let used = if origin == Origin::Eval { self.count } else { 0 };
        let (source, conduct) = (source.to_vec(), Conduct::default());
        let script = Arc::new(Script { sha, source, flags, conduct, used: AtomicU64::new(used) });
        self.len_bytes += script.len_bytes();
        self.scripts.insert(sha, Arc::clone(&script));
        script
    }

    fn forget_oldest(&mut self) {
        let used = |script: &Script| script.used.load(Ordering::Relaxed);
        let evals = self.scripts.values().filter(|script| used(script) != 0);
        let Some(oldest) = evals.min_by_key(|script| used(script)).map(|script| script.sha) else { return };
        if let Some(script) = self.scripts.remove(&oldest) {
            self.len_bytes -= script.len_bytes();
            self.evals -= 1;
            self.evicted += 1;
        }
    }

    pub fn clear(&mut self) {
        *self = Cache { evicted: self.evicted, ..Cache::default() };
    }

    pub fn len(&self) -> usize {
        self.scripts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scripts.is_empty()
    }

    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(cache: &mut Cache, number: usize, origin: Origin) -> Sha {
        let source = number.to_string().into_bytes();
        cache.add(sha_of(&source), &source, ScriptFlags::SILENT, origin).sha
    }

    #[test]
    fn scripts_of_eval_are_forgotten_the_oldest_first() {
        let mut cache = Cache::default();
        let loaded = add(&mut cache, 1_000_000, Origin::Load);
        let first = add(&mut cache, 0, Origin::Eval);
        let second = add(&mut cache, 1, Origin::Eval);
        for number in 2..EVALS_MAX {
            add(&mut cache, number, Origin::Eval);
        }
        assert!(cache.get(&first).is_some());
        add(&mut cache, EVALS_MAX, Origin::Eval);
        assert!(cache.has(&first) && !cache.has(&second) && cache.has(&loaded));
        assert_eq!((cache.len(), cache.evicted()), (EVALS_MAX + 1, 1));
        add(&mut cache, 0, Origin::Load);
        for number in 10_000..10_000 + 2 * EVALS_MAX {
            add(&mut cache, number, Origin::Eval);
        }
        assert!(cache.has(&first) && cache.has(&loaded));
        cache.clear();
        assert_eq!((cache.len(), cache.len_bytes()), (0, 0));
    }

    #[test]
    fn hashes_are_read_in_any_case() {
        let sha = sha_of(b"return 1");
        assert_eq!(hex(&sha), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(parse_sha(hex(&sha).to_uppercase().as_bytes()), Some(sha));
        assert_eq!(parse_sha(b"x"), None);
        assert_eq!(parse_sha(&[b'g'; 40]), None);
    }
}
