//! Users and their rights (ACL), pure: no clock, no socket, nothing shared.
//!
//! - [`user`]: a user, its passwords, and the rules by which it is changed
//! - [`selector`]: a set of rights ([`commands`]: which commands; keys, channels and databases are its own), which answers
//!   whether a request may run
//! - [`file`]: users as lines of a file; [`log`]: what was refused
//!
//! [`Users`] are a value that is replaced as a whole: whoever reads it sees one moment. A request of a user that may do
//! everything is never looked at; that of another costs a bit for its command, and a comparison for each key. What users
//! look like and how refusals are told is that of <https://valkey.io/topics/acl/>.

mod commands;
pub(crate) mod file;
pub(crate) mod log;
mod selector;
#[cfg(test)]
mod tests;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::CommandError;

pub(crate) use selector::{Channels, Denied, Place};
pub(crate) use user::{Rights, Rule, RuleError, User, rules_of};

/// The user of clients that have named no other.
pub(crate) const DEFAULT: &[u8] = b"default";

/// The name of a user: bytes without spaces and NULs.
pub(crate) type Name = Arc<[u8]>;

/// All users; there is always [`DEFAULT`].
#[derive(Debug, Clone)]
pub(crate) struct Users {
    users: BTreeMap<Name, Arc<User>>,
    /// Whether clients have to say who they are before anything else.
    asks: bool,
    /// Of the next new user.
    next_number: u64,
}

impl Default for Users {
    fn default() -> Self {
        Users::with_password("")
    }
}

impl Users {
    /// Only the default user, who may do everything, with this password; without one if it is empty.
    pub(crate) fn with_password(password: &str) -> Users {
        let mut default = User::unrestricted(DEFAULT.into());
        default.set_only_password(password.as_bytes());
        let mut users = Users { users: BTreeMap::new(), asks: false, next_number: 1 };
        users.put(default);
        users
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    pub(crate) fn default_user(&self) -> &Arc<User> {
        self.get(DEFAULT).expect("it cannot be deleted")
    }

    /// In the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// Whether a client that connects has to authenticate.
    #[inline]
    pub(crate) fn ask_strangers(&self) -> bool {
        self.asks
    }

    /// `requirepass`
    pub(crate) fn set_default_password(&mut self, password: &str) {
        let mut default = User::clone(self.default_user());
        default.set_only_password(password.as_bytes());
        self.put(default);
    }

    /// ACL SETUSER: makes or changes a user. Nothing is changed if a rule is refused, which is returned then.
    ///
    /// # Errors
    /// The first rule that is refused, and why.
    pub(crate) fn set<'r>(
        &mut self,
        name: &[u8],
        rules: &'r [Rule<'r>],
        channels: Channels,
    ) -> Result<(), (&'r Rule<'r>, RuleError)> {
        let mut user = match self.get(name) {
            Some(user) => User::clone(user),
            None => User::new(name.into(), channels, self.next_number),
        };
        user.apply_all(rules, channels)?;
        self.put(user);
        Ok(())
    }

    /// As [`Users::set`], of a user that is as new before.
    pub(crate) fn declare<'r>(
        &mut self,
        name: &[u8],
        rules: &'r [Rule<'r>],
        channels: Channels,
    ) -> Result<(), (&'r Rule<'r>, RuleError)> {
        let number = self.get(name).map_or(self.next_number, |user| user.number());
        let mut user = User::new(name.into(), channels, number);
        user.apply_all(rules, channels)?;
        self.put(user);
        Ok(())
    }

    /// Whether there was one.
    pub(crate) fn delete(&mut self, name: &[u8]) -> bool {
        assert!(name != DEFAULT, "the default user stays");
        self.users.remove(name).is_some()
    }

    /// ACL LOAD: these users instead; those that were there before stay the same for their clients.
    pub(crate) fn replace(&mut self, loaded: &Users) {
        let before = std::mem::replace(self, Users { next_number: self.next_number, ..Users::default() });
        for user in loaded.iter() {
            let number = before.get(user.name()).map_or(self.next_number, |same| same.number());
            self.put(user.with_number(number));
        }
    }

    fn put(&mut self, user: User) {
        self.next_number = self.next_number.max(user.number() + 1);
        if **user.name() == *DEFAULT {
            self.asks = !user.is_open();
        }
        self.users.insert(Arc::clone(user.name()), Arc::new(user));
    }
}

/// Whether a user can have this name.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !selector::has_blanks(name)
}

/// Why a request of a user is refused, as its client is told.
pub(crate) fn refusal(denied: Denied, user: &[u8], command: &'static str) -> CommandError {
    match denied {
        Denied::Command => CommandError::coded_bytes(&[
            b"NOPERM User ",
            user,
            b" has no permissions to run the '",
            command.as_bytes(),
            b"' command",
        ]),
        Denied::Key(_) => CommandError::coded("NOPERM No permissions to access a key"),
        Denied::Channel(_) => CommandError::coded("NOPERM No permissions to access a channel"),
        Denied::Database(_) => CommandError::coded("NOPERM No permissions to access database"),
    }
}

/// The same of a command that was queued when it was allowed.
pub(crate) fn refusal_in_transaction(denied: Denied) -> CommandError {
    let reason = match denied {
        Denied::Command => "no permission to execute the command or subcommand",
        Denied::Key(_) => "no permission to touch the specified keys",
        Denied::Channel(_) => "no permission to access one of the channels used as arguments",
        Denied::Database(_) => "no permission",
    };
    CommandError::coded(format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This \
         command is no longer allowed for the following reason: {reason}"
    ))
}
