//! Scripts and functions: which of them there are ([`cache`], [`libraries`]), what their first line asks for ([`flags`]),
//! which of them run just now ([`runs`]), and each thread's interpreters ([`engine`]). How one is executed is in
//! `execute/script.rs`.

pub mod cache;
pub mod engine;
pub mod flags;
pub mod libraries;
pub mod runs;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cache::{Cache, Origin, Script};
use engine::{Engine, Loading};
use keyward_commands::CommandError;
use libraries::{Existing, Libraries, Library};
use parking_lot::Mutex;
use runs::Runs;

use crate::server::Server;

/// What all threads share of scripts and functions.
#[derive(Debug)]
pub struct Scripts {
    /// No other in this process has it.
    id: u64,
    pub cache: Mutex<Cache>,
    pub libraries: Mutex<Libraries>,
    /// Grows with each change of the libraries.
    pub(crate) libraries_version: AtomicU64,
    /// Grows when the cache is emptied.
    pub(crate) flushes: AtomicU64,
    pub runs: Runs,
}

/// What INFO shows of scripts and functions.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub eval_vm_bytes: usize,
    pub function_vm_bytes: usize,
    pub cached: usize,
    pub cached_bytes: usize,
    pub libraries: usize,
    pub functions: usize,
    pub library_bytes: usize,
}

impl Default for Scripts {
    fn default() -> Scripts {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Scripts {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            cache: Mutex::default(),
            libraries: Mutex::default(),
            libraries_version: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            runs: Runs::default(),
        }
    }
}

impl Scripts {
    /// SCRIPT FLUSH.
    pub fn flush(&self) {
        self.cache.lock().clear();
        self.flushes.fetch_add(1, Ordering::Release);
    }

    /// Sources of all libraries, for a file.
    pub fn sources(&self) -> Vec<Vec<u8>> {
        self.libraries.lock().sources()
    }

    /// For INFO.
    pub fn figures(&self) -> Figures {
        let (eval_vm_bytes, function_vm_bytes) = self.runs.interpreter_bytes();
        let (cached, cached_bytes) = {
            let cache = self.cache.lock();
            (cache.len(), cache.len_bytes())
        };
        let libraries = self.libraries.lock();
        Figures {
            eval_vm_bytes,
            function_vm_bytes,
            cached,
            cached_bytes,
            libraries: libraries.len(),
            functions: libraries.functions_len(),
            library_bytes: libraries.len_bytes(),
        }
    }

    /// Changes the libraries; threads notice.
    pub fn change_libraries<R>(&self, change: impl FnOnce(&mut Libraries) -> R) -> R {
        let result = change(&mut self.libraries.lock());
        self.libraries_version.fetch_add(1, Ordering::Release);
        result
    }
}

/// The script with this text, which is compiled if it is new.
///
/// # Errors
/// It cannot be compiled.
pub fn load(server: &Arc<Server>, source: &[u8], origin: Origin) -> Result<Arc<Script>, CommandError> {
    let sha = cache::sha_of(source);
    if origin == Origin::Eval
        && let Some(script) = server.scripts.cache.lock().get(&sha)
    {
        return Ok(script);
    }
    let (flags, text) = flags::of_script(source)?;
    let mut engine = Engine::take(server);
    let compiled = engine.script(&sha, text).map(drop);
    engine.keep();
    compiled?;
    Ok(server.scripts.cache.lock().add(sha, source, flags, origin))
}

/// A library that a client brings.
///
/// # Errors
/// What is wrong with it, or what of its names there is already.
pub fn examine_library(
    server: &Arc<Server>,
    source: &[u8],
    existing: Existing,
) -> Result<Library, CommandError> {
    let (name, _) = flags::of_library(source)?;
    if existing == Existing::Refused && server.scripts.libraries.lock().has(&name) {
        return Err(CommandError::err(format!("Library '{name}' already exists")));
    }
    let library = examine(server, source, Loading::Limited)?;
    server.scripts.libraries.lock().check_functions(&library)?;
    Ok(library)
}

/// Libraries that come together, beside those that are known.
///
/// # Errors
/// What is wrong with one of them, or what of its names there is already.
pub fn examine_restored(
    server: &Arc<Server>,
    sources: &[Vec<u8>],
    known: Libraries,
    existing: Existing,
    loading: Loading,
) -> Result<Vec<Arc<Library>>, CommandError> {
    let mut together = Libraries::default();
    for source in sources {
        let library = examine(server, source, loading)?;
        if together.has(&library.name) || existing == Existing::Refused && known.has(&library.name) {
            return Err(CommandError::err(format!("Library {} already exists", library.name)));
        }
        together.check_functions(&library)?;
        together.add(Arc::new(library));
    }
    let mut others = known;
    for library in together.iter() {
        others.remove(&library.name);
    }
    for library in together.iter() {
        others.check_functions(library)?;
    }
    Ok(together.iter().cloned().collect())
}

fn examine(server: &Arc<Server>, source: &[u8], loading: Loading) -> Result<Library, CommandError> {
    let engine = Engine::take(server);
    let library = engine.examine(source, loading);
    engine.keep();
    library
}

/// A library that another node has accepted. One that cannot be loaded here, for whatever reason, is kept without
/// functions: what is stored must not differ.
///
/// # Errors
/// It has no name.
pub fn accept_library(server: &Arc<Server>, source: &[u8]) -> Result<Library, CommandError> {
    let (name, _) = flags::of_library(source)?;
    Ok(examine(server, source, Loading::Unlimited).unwrap_or_else(|error| {
        tracing::error!(library = name, %error, "a library of functions cannot be loaded: it has none here");
        Library::new(name, source, Vec::new())
    }))
}

/// Takes over the libraries that a file had, in place of all others.
///
/// # Errors
/// One of them cannot be loaded.
pub fn replace_libraries(server: &Arc<Server>, sources: Vec<Vec<u8>>) -> Result<(), String> {
    let examined =
        examine_restored(server, &sources, Libraries::default(), Existing::Refused, Loading::Unlimited);
    put_in_place(server, examined.map_err(|error| format!("a library of functions: {error}"))?);
    Ok(())
}

/// Takes over the libraries that another node has, in place of all others.
///
/// # Errors
/// One of them has no name.
pub fn copy_libraries(server: &Arc<Server>, sources: &[Vec<u8>]) -> Result<(), CommandError> {
    let accepted = sources.iter().map(|source| accept_library(server, source));
    put_in_place(server, accepted.map(|library| library.map(Arc::new)).collect::<Result<_, _>>()?);
    Ok(())
}

fn put_in_place(server: &Server, libraries: Vec<Arc<Library>>) {
    if libraries.is_empty() && server.scripts.libraries.lock().is_empty() {
        return;
    }
    server.scripts.change_libraries(|known| {
        known.clear();
        libraries.into_iter().for_each(|library| known.add(library));
    });
}
