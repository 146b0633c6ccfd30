//! COMMAND DOCS: what a command is for and which arguments it takes.

use keyward_proto::resp::{Args, ReplyWriter};

use super::commands::find_full_name;
use crate::command::table::{ROWS, Row};
use crate::command::{CommandResult, Ctx, Outcome};

/// `COMMAND DOCS [command-name [command-name ...]]`
pub(in crate::command) fn command_docs(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    let rows: Vec<&Row> = match args.len() {
        2 => ROWS.iter().collect(),
        _ => args.iter().skip(2).filter_map(find_full_name).collect(),
    };
    ctx.out.map(rows.len());
    rows.iter().for_each(|row| document(&mut ctx.out, row));
    Ok(Outcome::Reply)
}

fn document(out: &mut ReplyWriter<'_>, row: &Row) {
    out.bulk_str(row.name);
    out.map(if row.subcommands.is_empty() { 2 } else { 3 });
    out.bulk_str("since");
    out.bulk_str(row.since);
    out.bulk_str("group");
    out.bulk_str(row.group);
    if !row.subcommands.is_empty() {
        out.bulk_str("subcommands");
        out.map(row.subcommands.len());
        row.subcommands.iter().for_each(|sub| document(out, sub));
    }
}
