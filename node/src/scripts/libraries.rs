//! The libraries of functions, by what a client sees of them. Each thread that calls one compiles it for itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keyward_commands::CommandError;
use keyward_proto::slot::Slot;

use super::cache::Conduct;
use super::flags::ScriptFlags;

/// To which the libraries belong where something has to belong to a slot: effects, a full sync, what a reply depends on.
pub const SLOT: Slot = Slot::new(0).expect("there is a first slot");

/// A function.
#[derive(Debug)]
pub struct FunctionInfo {
    pub name: String,
    pub description: Option<Vec<u8>>,
    pub flags: ScriptFlags,
    pub conduct: Conduct,
}

/// A library.
#[derive(Debug)]
pub struct Library {
    /// No other has it: of two with one name, or even one text, each has its own.
    pub id: u64,
    pub name: String,
    /// With its first line.
    pub source: Vec<u8>,
    pub functions: Vec<FunctionInfo>,
}

impl Library {
    /// With a number of its own.
    pub fn new(name: String, source: &[u8], functions: Vec<FunctionInfo>) -> Library {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Library { id: IDS.fetch_add(1, Ordering::Relaxed), name, source: source.to_vec(), functions }
    }
}

/// A function and its library.
#[derive(Debug, Clone)]
pub struct Found {
    pub library: Arc<Library>,
    pub at: usize,
}

impl Found {
    pub fn function(&self) -> &FunctionInfo {
        &self.library.functions[self.at]
    }
}

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub struct Libraries {
    by_name: BTreeMap<String, Arc<Library>>,
    /// By their names in lower case.
    functions: BTreeMap<Vec<u8>, Found>,
}

/// Whether a library may take the place of one with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Refused,
    Replaced,
}

impl Libraries {
    pub fn find(&self, function: &[u8]) -> Option<Found> {
        self.functions.get(&function.to_ascii_lowercase()).cloned()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Library>> {
        self.by_name.values()
    }

    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub fn functions_len(&self) -> usize {
        self.functions.len()
    }

    /// Bytes of texts and tables.
    pub fn len_bytes(&self) -> usize {
        let of_function = |f: &FunctionInfo| {
            size_of::<FunctionInfo>() + f.name.len() * 2 + f.description.as_ref().map_or(0, Vec::len) + 64
        };
        let of_library = |l: &Arc<Library>| {
            size_of::<Library>() + l.source.len() + l.functions.iter().map(of_function).sum::<usize>()
        };
        self.iter().map(of_library).sum()
    }

    pub fn sources(&self) -> Vec<Vec<u8>> {
        self.iter().map(|library| library.source.clone()).collect()
    }

    /// Why the functions of a library cannot be added, if they cannot.
    ///
    /// # Errors
    /// Another library has one of their names.
    pub fn check_functions(&self, library: &Library) -> Result<(), CommandError> {
        let is_elsewhere = |function: &&FunctionInfo| {
            self.find(function.name.as_bytes()).is_some_and(|found| found.library.name != library.name)
        };
        match library.functions.iter().find(is_elsewhere) {
            Some(function) => Err(CommandError::err(format!("Function {} already exists", function.name))),
            None => Ok(()),
        }
    }

    /// Adds a library, in place of one with its name.
    pub fn add(&mut self, library: Arc<Library>) {
        self.remove(&library.name.clone());
        for (at, function) in library.functions.iter().enumerate() {
            let found = Found { library: Arc::clone(&library), at };
            self.functions.insert(function.name.to_ascii_lowercase().into_bytes(), found);
        }
        self.by_name.insert(library.name.clone(), library);
    }

    /// Whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let removed = self.by_name.remove(name).is_some();
        self.functions.retain(|_, found| found.library.name != name);
        removed
    }

    pub fn clear(&mut self) {
        *self = Libraries::default();
    }
}
