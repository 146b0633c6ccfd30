//! `rename-command`: other names, or none, by which clients reach commands.
//!
//! Only looking up a client's request goes by them. Effects in the log, what COMMAND says of a command, and its
//! statistics have the name of the table's row, so nodes and files with other names understand each other.

use std::collections::BTreeMap;

use super::table::{NAME_LEN_MAX, commands};

/// What has been renamed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renames {
    /// The name of the row, and that for clients in lower case; `None`: clients cannot reach it.
    names: BTreeMap<&'static str, Option<String>>,
}

impl Renames {
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name by which clients reach the command of this row.
    pub fn name_of(&self, row: &'static str) -> Option<&str> {
        match self.names.get(row) {
            Some(renamed) => renamed.as_deref(),
            None => Some(row),
        }
    }

    /// Renames what now has the name `from`; an empty `to` removes it.
    ///
    /// # Errors
    /// In Valkey's words.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), String> {
        let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
        let row = self.row(&from).ok_or("No such command in rename-command")?;
        if to == from {
            return Ok(());
        }
        if NAME_LEN_MAX < to.len() {
            return Err(format!("a name has at most {NAME_LEN_MAX} bytes"));
        }
        if !to.is_empty() && self.row(&to).is_some() {
            return Err("Target command name already exists".into());
        }
        self.names.insert(row, Some(to).filter(|to| !to.is_empty()));
        Ok(())
    }

    fn row(&self, name: &str) -> Option<&'static str> {
        commands().iter().map(|row| row.name).find(|row| self.name_of(row) == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exchanged_one_after_the_other() {
        let mut renames = Renames::default();
        let no_such = Err("No such command in rename-command".to_owned());
        let exists = Err("Target command name already exists".to_owned());
        assert_eq!(renames.rename("nope", "x"), no_such);
        assert_eq!(renames.rename("get", "SET"), exists);
        assert_eq!(renames.rename("GET", "Fetch"), Ok(()));
        assert_eq!(renames.rename("get", "x"), no_such);
        assert_eq!(renames.rename("set", "get"), Ok(()), "a name that is free can be taken");
        assert_eq!(renames.rename("del", "get"), exists);
        assert_eq!(renames.rename("fetch", ""), Ok(()));
        assert_eq!(renames.rename("fetch", "x"), no_such);
        assert_eq!(renames.rename("ping", "PING"), Ok(()));
        let names = ["get", "set", "del", "ping"].map(|row| renames.name_of(row));
        assert_eq!(names, [None, Some("get"), Some("del"), Some("ping")]);
    }
}
