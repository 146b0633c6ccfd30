//! Users in the configuration: `user` lines of the conf file or a file of their own (`aclfile`), and where they go.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::file::reason;
use super::rewrite::{quoted, replace};
use super::{Config, Settings};
use crate::acl::{self, Users, is_name, rules_of};

/// A `user` line.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    name: String,
    rules: Vec<String>,
}

impl Config {
    pub(crate) fn users(&self) -> &Arc<Users> {
        &self.users
    }

    pub(crate) fn set_users(&mut self, users: Users) {
        self.users = Arc::new(users);
    }

    /// A `user` line; who it makes is seen when everything is read.
    pub(super) fn declare_user(&mut self, name: &str, rules: &[String]) -> Result<(), String> {
        let failed = |what: &str, why: &str| Err(format!("Error in user declaration '{what}': {why}"));
        if !is_name(name.as_bytes()) {
            return failed(name, "Syntax error");
        }
        if self.declared_users.iter().any(|declared| declared.name == name) {
            return failed(name, "Duplicate user found. A user can only be defined once in config files");
        }
        let declared = Declared { name: name.to_owned(), rules: rules.to_vec() };
        match declared.add_to(&mut Users::default(), acl::Channels::None) {
            Ok(()) => self.declared_users.push(declared),
            Err(Fault::Open(word)) => return failed(&word, "Wrong format"),
            Err(Fault::Rule(why)) => return failed(name, why),
        }
        Ok(())
    }

    /// The users that the conf file and its directives make, or the file that it names for them.
    pub(super) fn make_users(&mut self, settings: &Settings) -> Result<(), String> {
        let mut users = Users::with_password(&settings.requirepass);
        if !settings.aclfile.is_empty() {
            if !self.declared_users.is_empty() {
                return Err(
                    "users are defined in the conf file and 'aclfile' names a file of users: only one of \
                            both is possible"
                        .into(),
                );
            }
            let loaded = self.read_users(settings);
            let loaded =
                loaded.map_err(|why| format!("Aborting Keyward startup because of ACL errors: {why}"))?;
            users.replace(&loaded);
        }
        for declared in &self.declared_users {
            if let Err(fault) = declared.add_to(&mut users, settings.acl_channels) {
                return Err(format!("the user '{}' can't be made: {}", declared.name, fault.text()));
            }
        }
        self.set_users(users);
        Ok(())
    }

    /// `aclfile`, if it is set.
    pub(crate) fn users_file(&self, settings: &Settings) -> Option<PathBuf> {
        (!settings.aclfile.is_empty()).then(|| self.folder.join(&settings.aclfile))
    }

    /// What stands in `aclfile`.
    ///
    /// # Errors
    /// In Valkey's words, all of them.
    pub(crate) fn read_users(&self, settings: &Settings) -> Result<Users, String> {
        let shown = &settings.aclfile;
        let text = std::fs::read(self.folder.join(shown))
            .map_err(|error| format!("Error loading ACLs, opening file '{shown}': {}", reason(&error)))?;
        acl::file::parse(&text, shown, settings.acl_channels)
    }

    /// Writes `aclfile`, as a whole or not at all.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn save_users(&self, settings: &Settings) -> io::Result<()> {
        let path = self.users_file(settings).ok_or_else(|| io::Error::other("no aclfile"))?;
        replace(&path, &acl::file::text_of(&self.users))
    }

    /// The `user` lines of a conf file. The default user has none if `requirepass` says all of it.
    ///
    /// # Errors
    /// A user that no conf file can have.
    pub(super) fn user_lines(&self, settings: &Settings) -> Result<Vec<String>, String> {
        if !settings.aclfile.is_empty() {
            return Ok(Vec::new());
        }
        let plain = Users::with_password(&settings.requirepass);
        let own = self.users.iter().filter(|user| *user != plain.default_user());
        own.map(|user| {
            let line = [b"user ", &**user.name(), b" ", &user.describe()].concat();
            let words = line.split(|byte| *byte == b' ').map(|word| match std::str::from_utf8(word) {
                Ok(word) => Ok(if is_plain(word) { word.to_owned() } else { quoted(word.as_bytes()) }),
                Err(_) => {
                    let name = String::from_utf8_lossy(user.name());
                    Err(format!("Rewriting config file: the user '{name}' is not valid UTF-8"))
                }
            });
            words.collect::<Result<Vec<String>, String>>().map(|words| words.join(" "))
        })
        .collect()
    }
}

/// Whether a word reads back as it is.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && !word.contains(['"', '\'', '\\']) && !word.contains(char::is_control)
}

/// Why a line makes no user.
#[derive(Debug)]
enum Fault {
    /// This selector does not end.
    Open(String),
    Rule(&'static str),
}

impl Fault {
    fn text(&self) -> &str {
        match self {
            Fault::Open(_) => "Unmatched parenthesis in selector definition",
            Fault::Rule(why) => why,
        }
    }
}

impl Declared {
    fn add_to(&self, users: &mut Users, channels: acl::Channels) -> Result<(), Fault> {
        let words = self.rules.iter().map(String::as_bytes);
        let rules =
            rules_of(words).map_err(|open| Fault::Open(String::from_utf8_lossy(open).into_owned()))?;
        let declared = users.declare(self.name.as_bytes(), &rules, channels);
        declared.map_err(|(_, why)| Fault::Rule(why.text()))
    }
}
