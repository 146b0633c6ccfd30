//! Which commands somebody may run: a bit for each, and the rules that made them, in the shortest form that says the same.

use keyward_proto::resp::Args;

use super::user::RuleError;
use crate::command::spec::category;
use crate::command::table::{self, CommandId, ROWS, Row};

const WORDS: usize = table::LEN.div_ceil(u64::BITS as usize);

/// A set of commands and subcommands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CommandSet([u64; WORDS]);

impl CommandSet {
    const NONE: CommandSet = CommandSet([0; WORDS]);
    const ALL: CommandSet = CommandSet([u64::MAX; WORDS]);

    #[inline]
    fn has(&self, id: CommandId) -> bool {
        self.0[id.index() / 64] & (1 << (id.index() % 64)) != 0
    }

    fn set(&mut self, id: CommandId, right: Right) {
        let (word, bit) = (&mut self.0[id.index() / 64], 1 << (id.index() % 64));
        match right {
            Right::Given => *word |= bit,
            Right::Taken => *word &= !bit,
        }
    }
}

/// What a rule does with commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// `+`
    Given,
    /// `-`
    Taken,
}

/// A rule that is still in force, by its text without the sign: `get`, `config|get`, `select|0` or `@read`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CommandRule {
    right: Right,
    text: Vec<u8>,
}

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commands {
    allowed: CommandSet,
    /// Commands that are allowed with this first argument only.
    first_args: Vec<(CommandId, Box<[u8]>)>,
    /// What commands have that no rule names.
    others: Right,
    rules: Vec<CommandRule>,
}

impl Commands {
    pub(super) const NONE: Commands = Commands {
        allowed: CommandSet::NONE,
        first_args: Vec::new(),
        others: Right::Taken,
        rules: Vec::new(),
    };
    pub(super) const ALL: Commands = Commands {
        allowed: CommandSet::ALL,
        first_args: Vec::new(),
        others: Right::Given,
        rules: Vec::new(),
    };

    pub(super) fn is_all(&self) -> bool {
        ROWS.iter().all(|row| self.allowed.has(row.id))
    }

    #[inline]
    pub(super) fn allow(&self, row: &Row, args: Args<'_>) -> bool {
        self.allowed.has(row.id) || !self.first_args.is_empty() && self.allow_first_arg(row, args)
    }

    fn allow_first_arg(&self, row: &Row, args: Args<'_>) -> bool {
        let Some(first) = args.get(1) else { return false };
        self.first_args.iter().any(|(id, allowed)| *id == row.id && allowed.eq_ignore_ascii_case(first))
    }

    /// `+` or `-` and what stands behind it, in lower case.
    pub(super) fn apply(&mut self, right: Right, text: &[u8]) -> Result<(), RuleError> {
        match text.strip_prefix(b"@") {
            Some(b"all") => {
                *self = if right == Right::Given { Commands::ALL } else { Commands::NONE };
                return Ok(());
            }
            Some(name) => self.apply_category(right, name)?,
            None => match find(text) {
                Some(row) => self.change(row, right),
                None => self.allow_only(right, text)?,
            },
        }
        self.note(right, text);
        Ok(())
    }

    fn apply_category(&mut self, right: Right, name: &[u8]) -> Result<(), RuleError> {
        let bit = category::NAMES.iter().position(|known| known.as_bytes() == name);
        let category = 1 << bit.ok_or(RuleError::Unknown)?;
        for row in table::commands() {
            if row.categories & category != 0 {
                self.change(row, right);
            }
            for sub in row.subcommands().iter().filter(|sub| sub.categories & category != 0) {
                self.change(sub, right);
            }
        }
        Ok(())
    }

    /// A command, with its subcommands.
    fn change(&mut self, row: &'static Row, right: Right) {
        self.first_args.retain(|(id, _)| *id != row.id);
        self.allowed.set(row.id, right);
        for sub in row.subcommands() {
            self.allowed.set(sub.id, right);
        }
    }

    /// `+select|0`
    fn allow_only(&mut self, right: Right, text: &[u8]) -> Result<(), RuleError> {
        let bar = text.iter().rposition(|byte| *byte == b'|').ok_or(RuleError::Unknown)?;
        let (command, first) = (&text[..bar], &text[bar + 1..]);
        let row = find(command).filter(|_| right == Right::Given).ok_or(RuleError::Unknown)?;
        if row.name.contains('|') {
            return Err(RuleError::FirstArgOfSubcommand);
        }
        if row.has_subcommands() {
            return Err(RuleError::Unknown);
        }
        if first.is_empty() {
            return Err(RuleError::Syntax);
        }
        let allowed = (row.id, first.into());
        if !self.first_args.contains(&allowed) {
            self.first_args.push(allowed);
        }
        Ok(())
    }

    /// Rules that this one makes void go; it comes last.
    fn note(&mut self, right: Right, text: &[u8]) {
        let is_part = |rule: &[u8]| rule.strip_prefix(text).is_some_and(|rest| rest.starts_with(b"|"));
        self.rules.retain(|rule| rule.text != text && !is_part(&rule.text));
        self.rules.push(CommandRule { right, text: text.to_vec() });
    }

    /// `-@all +get`
    pub(super) fn describe(&self) -> Vec<u8> {
        let sign = |right| if right == Right::Given { b'+' } else { b'-' };
        let mut text = vec![sign(self.others)];
        text.extend(b"@all");
        for rule in &self.rules {
            text.extend([b' ', sign(rule.right)]);
            text.extend(&rule.text);
        }
        text
    }
}

/// A command or `command|subcommand` by its own name, whatever clients call it.
fn find(text: &[u8]) -> Option<&'static Row> {
    match text.iter().position(|byte| *byte == b'|') {
        None => table::find_effect(text),
        Some(bar) => table::find_subcommand(table::find_effect(&text[..bar])?, &text[bar + 1..]),
    }
}
