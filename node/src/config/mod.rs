//! Configuration: directives in valkey.conf's syntax, from a file, from `--directive value`, and from CONFIG SET.
//!
//! A directive is one row of [`directives`]: its name, its type with limits ([`types`]), its default, whether it may
//! change at run time, whether it does anything, and the field of [`Settings`] that it sets. Values are kept as
//! normalized text, which is what CONFIG GET shows; the rest of the program reads the typed [`Settings`], which the
//! rows make of all values at once. [`file`] reads the configuration at the start, [`rewrite`] is CONFIG REWRITE.

mod directives;
mod file;
mod rewrite;
mod settings;
#[cfg(test)]
mod tests;
mod types;
mod users;

pub use file::Origin;
pub(crate) use settings::OomScore;
pub use settings::{OomScores, OutputLimit, Settings, Syslog};

pub(crate) use directives::Consequence;
pub(crate) use settings::{CertificateUser, EndpointType, LogLevel, Supervision};
pub(crate) use types::{Choice, parse_memory};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::acl::Users;
use crate::command::rename::Renames;
use directives::{ALIASES, Change, DIRECTIVES, Directive, Effect};
use types::Form;

/// What is configured, and where it came from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The text of each directive.
    values: BTreeMap<&'static str, String>,
    /// The conf file, absolute.
    pub(crate) file: Option<PathBuf>,
    /// What standard input said, if it was asked.
    pub(crate) stdin: Option<Vec<u8>>,
    /// `rename-command`
    pub(crate) renames: Renames,
    /// `user` lines.
    declared_users: Vec<users::Declared>,
    /// Who there is now.
    users: Arc<Users>,
    /// `dir`, absolute.
    folder: PathBuf,
    /// The password, if it is from a file of its own or from the environment: no conf file gets it.
    external_password: String,
    /// A `save` directive has been read: further ones add to it instead of replacing the default.
    save_given: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            values: DIRECTIVES.iter().map(|d| (d.name, d.default.to_owned())).collect(),
            file: None,
            stdin: None,
            renames: Renames::default(),
            declared_users: Vec::new(),
            users: Arc::default(),
            folder: PathBuf::from("."),
            external_password: String::new(),
            save_given: false,
        }
    }
}

impl Config {
    fn in_folder(folder: PathBuf) -> Config {
        let mut config = Config::default();
        config.values.insert("dir", folder.to_string_lossy().into_owned());
        config.folder = folder;
        config
    }

    /// CONFIG SET of several directives: all of them, or none. Returns what follows at once.
    ///
    /// # Errors
    /// The text behind `ERR ` in Valkey's words.
    pub(crate) fn set(&mut self, pairs: &[(String, String)]) -> Result<Vec<Consequence>, String> {
        let failed = |name: &str, why: &str| {
            format!("CONFIG SET failed (possibly related to argument '{name}') - {why}")
        };
        let mut next = self.clone();
        let mut consequences = Vec::new();
        for (i, (name, value)) in pairs.iter().enumerate() {
            let Some(directive) = find(&name.to_ascii_lowercase()) else {
                return Err(format!("Unknown option or number of arguments for CONFIG SET - '{name}'"));
            };
            match directive.change {
                Change::Runtime => {}
                Change::StartOnly => return Err(failed(name, "can't set immutable config")),
                Change::Protected => return Err(failed(name, "can't set protected config")),
            }
            if pairs[..i].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                return Err(failed(name, "duplicate parameter"));
            }
            // A refused value is told with the directive's own spelling, all else with the client's.
            let own = name.to_ascii_lowercase();
            let value =
                directive.normalize(value, next.text(directive.name)).map_err(|why| failed(&own, &why))?;
            if let Effect::Absent(why) = directive.effect
                && value != directive.default
            {
                return Err(failed(&own, why));
            }
            next.values.insert(directive.name, value);
            consequences.extend(directive.consequence);
        }
        if next.text("requirepass") != self.text("requirepass") {
            Arc::make_mut(&mut next.users).set_default_password(next.values["requirepass"].as_str());
        }
        next.settings()?;
        *self = next;
        Ok(consequences)
    }

    /// At the start: no more clients than the system allows.
    pub(crate) fn reduce_maxclients(&mut self, allowed: usize) {
        self.values.insert("maxclients", allowed.to_string());
    }

    /// Directives, by all their names, that match a glob pattern.
    pub(crate) fn matching<'a>(&'a self, pattern: &'a [u8]) -> impl Iterator<Item = (&'static str, &'a str)> {
        let pattern = pattern.to_ascii_lowercase();
        let names = self.values.iter().map(|(name, value)| (*name, value.as_str()));
        let aliases = ALIASES.iter().map(|(alias, name)| (*alias, self.text(name)));
        names.chain(aliases).filter(move |(name, _)| keyward_proto::glob::matches(&pattern, name.as_bytes()))
    }

    fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// # Errors
    /// Values that contradict each other.
    pub fn settings(&self) -> Result<Settings, String> {
        let settings = self.typed()?;
        match self.contradictions(&settings).into_iter().next() {
            Some(contradiction) => Err(contradiction),
            None => Ok(settings),
        }
    }

    /// What all rows make of the values.
    fn typed(&self) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for directive in DIRECTIVES.iter() {
            directive
                .apply(self.text(directive.name), &mut settings)
                .map_err(|why| format!("'{}': {why}", directive.name))?;
        }
        // Its text is not exact if the path is not UTF-8.
        settings.dir.clone_from(&self.folder);
        settings.users = Arc::clone(&self.users);
        settings.keys.lfu = settings.maxmemory_policy.is_lfu().then_some(settings.lfu);
        Ok(settings)
    }

    /// Values that do not go together.
    fn contradictions(&self, settings: &Settings) -> Vec<String> {
        let mut found = Vec::new();
        if settings.grace <= settings.lease {
            found.push("grace-ms must be larger than lease-ms".to_owned());
        }
        if settings.cluster_enabled && settings.is_standalone() {
            found.push("cluster-enabled yes needs --sentinels host:port,...".to_owned());
        }
        if !settings.is_standalone() && settings.bus_port().is_none() {
            found.push("port + 10000 is above 65535: set bus-port".to_owned());
        }
        found
    }

    /// Directives that have another value than by default, and no effect here.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let set = |d: &&Directive| d.effect == Effect::None && self.text(d.name) != d.default;
        DIRECTIVES.iter().filter(set).map(|d| d.name).collect()
    }
}

/// The first of these directives from which this follows, as the client has spelled it.
pub(crate) fn cause_of(consequence: Consequence, pairs: &[(String, String)]) -> Option<&str> {
    let follows =
        |name: &str| find(&name.to_ascii_lowercase()).and_then(|d| d.consequence) == Some(consequence);
    pairs.iter().map(|(name, _)| name.as_str()).find(|name| follows(name))
}

/// Whether the value of a directive may be any text: no other value can have bytes that are no UTF-8.
pub(crate) fn is_text(name: &str) -> bool {
    let text = |directive: &Directive| {
        matches!(
            directive.form(),
            Form::Text | Form::TextOrEmpty | Form::Folder | Form::FileName | Form::Words
        )
    };
    find(&name.to_ascii_lowercase()).is_some_and(text)
}

fn find(name: &str) -> Option<&'static Directive> {
    let canonical = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, canonical)| canonical);
    DIRECTIVES.iter().find(|d| d.name == canonical)
}
