//! Looking into a HyperLogLog: PFDEBUG, PFSELFTEST.

use keyward_proto::resp::Args;

use super::estimate::estimate;
use super::registers::{self, Form, HEADER_LEN, LEN};
use super::{add, copied, put, sparse};
use crate::spec::{ACCESS, ADMIN, DENYOOM, RW};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, ascii_eq, plain, write};

/// `PFDEBUG GETREG | DECODE | ENCODING | TODENSE key`, `PFDEBUG SIMD ON | OFF`. The second is accepted without effect.
pub(super) const PFDEBUG: DataCommand =
    write("pfdebug", pfdebug, 3, DENYOOM | ADMIN, "2.8.9").key(2, RW | ACCESS);
fn pfdebug(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (word, key) = (args.at(1), args.at(2));
    if ascii_eq(word, "simd") {
        return simd(ctx, key);
    }
    let Some(mut bytes) = copied(ctx.keys, key)? else {
        return Err(CommandError::err("The specified key does not exist"));
    };
    let form = registers::form_of(&bytes);
    if ascii_eq(word, "getreg") {
        to_dense(ctx, key, &mut bytes)?;
        let mut all = Box::new([0; LEN]);
        registers::merge(&mut all, &bytes)?;
        ctx.out.array(LEN);
        all.iter().for_each(|value| ctx.out.integer(i64::from(*value)));
    } else if ascii_eq(word, "decode") {
        if form == Some(Form::Dense) {
            return Err(CommandError::err("HLL encoding is not sparse"));
        }
        ctx.out.bulk_str(&decoded(&bytes));
    } else if ascii_eq(word, "encoding") {
        ctx.out.simple(if form == Some(Form::Dense) { "dense" } else { "sparse" });
    } else if ascii_eq(word, "todense") {
        to_dense(ctx, key, &mut bytes)?;
        ctx.out.integer(i64::from(form == Some(Form::Sparse)));
    } else {
        return Err(CommandError::quoting("Unknown PFDEBUG subcommand '", word, "'"));
    }
    Ok(Outcome::Reply)
}

fn simd(ctx: &mut DataContext<'_, '_>, switch: &[u8]) -> CommandResult {
    if ascii_eq(switch, "on") {
        ctx.out.simple("enabled");
    } else if ascii_eq(switch, "off") {
        ctx.out.simple("disabled");
    } else {
        return Err(CommandError::err("Argument must be ON or OFF"));
    }
    Ok(Outcome::Reply)
}

fn to_dense(ctx: &mut DataContext<'_, '_>, key: &[u8], bytes: &mut Vec<u8>) -> Result<(), CommandError> {
    if registers::form_of(bytes) == Some(Form::Dense) {
        return Ok(());
    }
    registers::make_dense(bytes)?;
    put(ctx.keys, key, bytes.clone());
    ctx.keys.propagate_as(key, &[b"PFDEBUG", b"TODENSE", key]);
    Ok(())
}

/// The runs in words: `z` and `Z` for zeros, `v` for a value.
fn decoded(bytes: &[u8]) -> String {
    let runs = sparse::runs(&bytes[HEADER_LEN..]).map(|run| match run.value {
        0 if run.is_long() => format!("Z:{}", run.len),
        0 => format!("z:{}", run.len),
        value => format!("v:{value},{}", run.len),
    });
    runs.collect::<Vec<_>>().join(" ")
}

/// How many elements the self-test adds.
const TESTED_ELEMENTS: u32 = 20_000;
/// Up to where one of both is sparse in the self-test.
const SPARSE_BYTES_MAX: usize = 3000;

/// `PFSELFTEST`: both forms have the same registers, and their estimate is right within 4 %.
pub(super) const PFSELFTEST: DataCommand = plain("pfselftest", pfselftest, 1, ADMIN, "2.8.9");
fn pfselftest(ctx: &mut DataContext<'_, '_>, _args: Args<'_>) -> CommandResult {
    let (mut sparse, mut dense) = (registers::empty(), registers::empty());
    registers::make_dense(&mut dense)?;
    for element in 1..=TESTED_ELEMENTS {
        add(&mut sparse, &element.to_le_bytes(), SPARSE_BYTES_MAX)?;
        add(&mut dense, &element.to_le_bytes(), SPARSE_BYTES_MAX)?;
        if element.is_power_of_two() || element == TESTED_ELEMENTS {
            let (histogram, count) = (registers::histogram(&dense)?, u64::from(element));
            let error = estimate(&histogram).abs_diff(count);
            if registers::histogram(&sparse)? != histogram || count / 25 + 1 < error {
                return Err(CommandError::err(format!("TESTFAILED {element} elements")));
            }
        }
    }
    ctx.out.ok();
    Ok(Outcome::Reply)
}
