//! Commands of the group geo: places in sorted sets, whose scores say where they are.
//!
//! - [`cell`]: a place as a score; distances
//! - [`shape`]: what is searched, and which scores are near it
//! - [`search`]: GEOSEARCH and the older GEORADIUS

mod cell;
mod search;
mod shape;

use keyward_proto::resp::{Args, ReplyWriter};

use crate::spec::{ACCESS, DENYOOM, Group, RO, RW, UPDATE, family};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, ascii_eq, parse_f64_arg, read,
    sorted_set, write,
};
use cell::{Cell, Place, STEPS, WHOLE, WORLD, distance};
use keyward_store::types::SortedSetRef;
use search::{GEORADIUS, GEORADIUS_RO, GEORADIUSBYMEMBER, GEORADIUSBYMEMBER_RO, GEOSEARCH, GEOSEARCHSTORE};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [DataCommand; 10] = family(Group::Geo, [
    GEOADD, GEODIST, GEOHASH, GEOPOS, GEORADIUS, GEORADIUSBYMEMBER, GEORADIUSBYMEMBER_RO, GEORADIUS_RO, GEOSEARCH,
    GEOSEARCHSTORE,
]);

/// `GEOADD key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]`: a ZADD, as which it
/// reaches the replicas.
const GEOADD: DataCommand = write("geoadd", geoadd, -5, DENYOOM, "3.2.0").key(1, RW | UPDATE);
fn geoadd(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (mut options, mut only_new, mut only_existing) = (Cursor::new(args, 2), false, false);
    loop {
        if options.word("nx") {
            only_new = true;
        } else if options.word("xx") {
            only_existing = true;
        } else if !options.word("ch") {
            break;
        }
    }
    let first = options.position();
    if !(args.len() - first).is_multiple_of(3) || only_new && only_existing {
        return Err(CommandError::Syntax);
    }
    let scores: Result<Vec<String>, CommandError> = (first..args.len())
        .step_by(3)
        .map(|at| Ok(WORLD.cell(parse_place(args.at(at), args.at(at + 1))?, STEPS).bits().to_string()))
        .collect();
    let scores = scores?;
    let mut words: Vec<&[u8]> = vec![b"ZADD"];
    words.extend(args.iter().take(first).skip(1));
    let members = args.iter().skip(first + 2).step_by(3);
    words.extend(scores.iter().zip(members).flat_map(|(score, member)| [score.as_bytes(), member]));
    // Whatever clients call this command.
    ctx.keys.command = None;
    sorted_set::zadd(ctx, Args::from_slices(&words))
}

/// A place within the world.
fn parse_place(longitude: &[u8], latitude: &[u8]) -> Result<Place, CommandError> {
    let place = Place { longitude: parse_f64_arg(longitude)?, latitude: parse_f64_arg(latitude)? };
    if WORLD.contains(place) {
        return Ok(place);
    }
    let Place { longitude, latitude } = place;
    Err(CommandError::err(format!("invalid longitude,latitude pair {longitude:.6},{latitude:.6}")))
}

/// Where a member is.
fn place_of(set: SortedSetRef<'_>, member: &[u8]) -> Option<Place> {
    Some(WORLD.middle(Cell::of_score(set.score(member)?)))
}

/// A length's unit in meters.
fn parse_unit(word: &[u8]) -> Result<f64, CommandError> {
    const UNITS: [(&str, f64); 4] = [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)];
    let unit = UNITS.into_iter().find(|(name, _)| ascii_eq(word, name)).map(|(_, meters)| meters);
    unit.ok_or_else(|| CommandError::err("unsupported unit provided. please use M, KM, FT, MI"))
}

/// `GEOPOS key [member ...]`
const GEOPOS: DataCommand = read("geopos", geopos, -2, 0, "3.2.0").key(1, RO | ACCESS);
fn geopos(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let set = ctx.keys.sorted_set(args.at(1))?;
    ctx.out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        match set.and_then(|set| place_of(set, member)) {
            Some(place) => write_place(&mut ctx.out, place),
            None => ctx.out.null_array(),
        }
    }
    Ok(Outcome::Reply)
}

fn write_place(out: &mut ReplyWriter<'_>, place: Place) {
    out.array(2);
    write_degrees(out, place.longitude);
    write_degrees(out, place.latitude);
}

/// With all 17 digits behind the point that are not zero.
fn write_degrees(out: &mut ReplyWriter<'_>, value: f64) {
    let text = format!("{value:.17}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let text = if text == "-0" { "0" } else { text };
    if out.is_resp3() {
        out.raw(format!(",{text}\r\n").as_bytes());
    } else {
        out.bulk_str(text);
    }
}

/// `GEODIST key member1 member2 [M | KM | FT | MI]`
const GEODIST: DataCommand = read("geodist", geodist, -4, 0, "3.2.0").key(1, RO | ACCESS);
fn geodist(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let unit = match args.len() {
        4 => 1.0,
        5 => parse_unit(args.at(4))?,
        _ => return Err(CommandError::Syntax),
    };
    let set = ctx.keys.sorted_set(args.at(1))?;
    let place = |at: usize| set.and_then(|set| place_of(set, args.at(at)));
    match (place(2), place(3)) {
        (Some(a), Some(b)) => write_distance(&mut ctx.out, distance(a, b) / unit),
        (Some(_) | None, _) => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// With four digits behind the point.
fn write_distance(out: &mut ReplyWriter<'_>, value: f64) {
    #[allow(clippy::cast_possible_truncation, reason = "a cast saturates")]
    let scaled = (value * 10_000.0).round_ties_even() as i64;
    let (sign, digits) = (if scaled < 0 { "-" } else { "" }, scaled.unsigned_abs());
    out.bulk_str(&format!("{sign}{}.{:04}", digits / 10_000, digits % 10_000));
}

/// `GEOHASH key [member ...]`: as on geohash.org, in eleven characters of which the last is always `0`.
const GEOHASH: DataCommand = read("geohash", geohash, -2, 0, "3.2.0").key(1, RO | ACCESS);
fn geohash(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let set = ctx.keys.sorted_set(args.at(1))?;
    ctx.out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        let place = set.and_then(|set| place_of(set, member));
        ctx.out.optional_bulk(place.map(letters).as_ref().map(<[u8; 11]>::as_slice));
    }
    Ok(Outcome::Reply)
}

fn letters(place: Place) -> [u8; 11] {
    const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    let bits = WHOLE.cell(place, STEPS).bits();
    std::array::from_fn(|at| {
        let shift = (2 * STEPS as usize).checked_sub((at + 1) * 5);
        let index = shift.map_or(0, |shift| bits >> shift & 31);
        ALPHABET[usize::try_from(index).unwrap_or(0)]
    })
}

#[cfg(test)]
mod tests;
