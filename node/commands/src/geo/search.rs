//! What is near a place: GEOSEARCH, GEOSEARCHSTORE, and the older GEORADIUS and GEORADIUSBYMEMBER.
//!
//! Results without an order come in that of the cells which are looked at, as in Valkey.

use std::ops::Bound;

use keyward_proto::resp::number::{parse_f64, parse_i64};
use keyward_proto::resp::{Args, ReplyWriter};

use super::cell::{Cell, Place, WORLD};
use super::shape::{Outline, Shape, middle_of};
use super::{parse_place, parse_unit, place_of, write_distance, write_place};
use crate::spec::{ACCESS, Begin, DENYOOM, Find, KeyFlags, KeySpec, OW, RO, UPDATE, VARIABLE_FLAGS, WRITE};
use crate::store::{Effect, store_result, visit_keys};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, read, write,
};
use keyward_store::events::EventClass;
use keyward_store::types::{Element, ScoreRange, SortedSet, SortedSetRef};

/// Which of the commands it is: they share most options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// GEORADIUS
    Around,
    /// GEORADIUSBYMEMBER
    AroundMember,
    Search,
    SearchStore,
}

const fn behind_word(word: &'static [u8], from: i8) -> KeySpec {
    let find = Find::Range { last: 0, step: 1, limit: 0 };
    KeySpec { flags: OW | UPDATE | VARIABLE_FLAGS, begin: Begin::Keyword(word, from), find }
}

/// `GEOSEARCH key [FROMMEMBER member | FROMLONLAT longitude latitude] BYRADIUS radius unit | BYBOX width height unit |
/// BYPOLYGON vertices longitude latitude ... [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]`
pub(super) const GEOSEARCH: DataCommand = read("geosearch", geosearch, -7, 0, "6.2.0").key(1, RO | ACCESS);
fn geosearch(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    run(ctx, args, Command::Search)
}

/// `GEOSEARCHSTORE destination source` and the options of GEOSEARCH, with STOREDIST
pub(super) const GEOSEARCHSTORE: DataCommand =
    write("geosearchstore", geosearchstore, -8, DENYOOM, "6.2.0").key(1, OW | UPDATE).key(2, RO | ACCESS);
fn geosearchstore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    run(ctx, args, Command::SearchStore)
}

/// `GEORADIUS key longitude latitude radius unit [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]
/// [STORE key | STOREDIST key]`
pub(super) const GEORADIUS: DataCommand = write("georadius", georadius, -6, DENYOOM, "3.2.0")
    .key(1, RO | ACCESS)
    .key_spec(behind_word(b"STORE", 6))
    .key_spec(behind_word(b"STOREDIST", 6))
    .search(stored_keys);
fn georadius(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    run(ctx, args, Command::Around)
}

/// GEORADIUS without STORE
pub(super) const GEORADIUS_RO: DataCommand =
    read("georadius_ro", georadius_ro, -6, 0, "3.2.10").key(1, RO | ACCESS);
fn georadius_ro(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    run(ctx, args, Command::Around)
}

/// `GEORADIUSBYMEMBER key member radius unit` and the options of GEORADIUS
pub(super) const GEORADIUSBYMEMBER: DataCommand =
    write("georadiusbymember", georadiusbymember, -5, DENYOOM, "3.2.0")
        .key(1, RO | ACCESS)
        .key_spec(behind_word(b"STORE", 5))
        .key_spec(behind_word(b"STOREDIST", 5))
        .search(stored_keys);
fn georadiusbymember(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    run(ctx, args, Command::AroundMember)
}

/// GEORADIUSBYMEMBER without STORE
pub(super) const GEORADIUSBYMEMBER_RO: DataCommand =
    read("georadiusbymember_ro", georadiusbymember_ro, -5, 0, "3.2.10").key(1, RO | ACCESS);
fn georadiusbymember_ro(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    run(ctx, args, Command::AroundMember)
}

/// The searched key, and the last one that is to be stored.
fn stored_keys(args: Args<'_>, visit: &mut dyn FnMut(usize, KeyFlags)) {
    let (mut rest, mut destination) = (Cursor::new(args, 5), None);
    while !rest.is_at_end() {
        if rest.value_of("store").is_some() || rest.value_of("storedist").is_some() {
            destination = Some(rest.position() - 1);
        } else {
            rest.take();
        }
    }
    visit_keys(destination, visit);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Any,
    NearestFirst,
    FarthestFirst,
}

/// What names the center of a GEOSEARCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Member,
    Place,
    Polygon,
}

#[derive(Debug)]
struct Options<'a> {
    center: Option<Place>,
    /// What named the center; there may be nothing in which to find it.
    from: Option<From>,
    unit: f64,
    outline: Option<Outline>,
    order: Order,
    /// Zero: all.
    count: usize,
    any: bool,
    with_distance: bool,
    with_score: bool,
    with_place: bool,
    destination: Option<&'a [u8]>,
    stores_distance: bool,
}

impl<'a> Options<'a> {
    fn parse(
        ctx: &DataContext<'_, '_>,
        args: Args<'a>,
        set: Option<SortedSetRef<'_>>,
        command: Command,
    ) -> Result<Options<'a>, CommandError> {
        let mut options = Options {
            center: None,
            from: None,
            unit: 1.0,
            outline: None,
            order: Order::Any,
            count: 0,
            any: false,
            with_distance: false,
            with_score: false,
            with_place: false,
            destination: (command == Command::SearchStore).then(|| args.at(1)),
            stores_distance: false,
        };
        let mut rest = options.read_fixed(args, set, command)?;
        let may_store = ctx.spec.has(WRITE);
        while !rest.is_at_end() {
            let known = options.read_common(&mut rest)?
                || if is_old(command) {
                    may_store && options.read_destination(&mut rest)
                } else {
                    options.read_center(&mut rest, set)? || options.read_outline(&mut rest, command)?
                };
            if !known {
                return Err(CommandError::Syntax);
            }
        }
        options.check(args, command)?;
        Ok(options)
    }

    /// What stands before the options.
    fn read_fixed(
        &mut self,
        args: Args<'a>,
        set: Option<SortedSetRef<'_>>,
        command: Command,
    ) -> Result<Cursor<'a>, CommandError> {
        let behind = match command {
            Command::Search => return Ok(Cursor::new(args, 2)),
            Command::SearchStore => return Ok(Cursor::new(args, 3)),
            Command::Around => {
                self.center = Some(parse_place(args.at(2), args.at(3))?);
                6
            }
            Command::AroundMember => {
                if let Some(set) = set {
                    self.center = Some(center_of(set, args.at(2))?);
                }
                5
            }
        };
        if self.center.is_some() {
            self.read_circle(args.at(behind - 2), args.at(behind - 1))?;
        }
        Ok(Cursor::new(args, behind))
    }

    fn read_circle(&mut self, radius: &[u8], unit: &[u8]) -> Result<(), CommandError> {
        let radius = length(radius, "need numeric radius")?;
        if radius < 0.0 {
            return Err(CommandError::err("radius cannot be negative"));
        }
        self.unit = parse_unit(unit)?;
        self.outline = Some(Outline::Circle { radius });
        Ok(())
    }

    /// Whether an option of all these commands came next.
    fn read_common(&mut self, rest: &mut Cursor<'a>) -> Result<bool, CommandError> {
        if rest.word("withdist") {
            self.with_distance = true;
        } else if rest.word("withhash") {
            self.with_score = true;
        } else if rest.word("withcoord") {
            self.with_place = true;
        } else if rest.word("any") {
            self.any = true;
        } else if rest.word("asc") {
            self.order = Order::NearestFirst;
        } else if rest.word("desc") {
            self.order = Order::FarthestFirst;
        } else if let Some(count) = rest.value_of("count") {
            let count = usize::try_from(parse_i64_arg(count)?).ok().filter(|count| *count != 0);
            self.count = count.ok_or_else(|| CommandError::err("COUNT must be > 0"))?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn read_destination(&mut self, rest: &mut Cursor<'a>) -> bool {
        if let Some(key) = rest.value_of("store") {
            (self.destination, self.stores_distance) = (Some(key), false);
        } else if let Some(key) = rest.value_of("storedist") {
            (self.destination, self.stores_distance) = (Some(key), true);
        } else {
            return false;
        }
        true
    }

    /// The center of a GEOSEARCH; of several of the same kind the last one counts.
    fn read_center(
        &mut self,
        rest: &mut Cursor<'a>,
        set: Option<SortedSetRef<'_>>,
    ) -> Result<bool, CommandError> {
        let is_free = |from: From, this: &Self| this.from.is_none_or(|before| before == from);
        if is_free(From::Member, self)
            && let Some(member) = rest.value_of("frommember")
        {
            self.center = set.map(|set| center_of(set, member)).transpose()?;
            self.from = Some(From::Member);
        } else if is_free(From::Place, self)
            && let Some(mut place) = rest.values_of("fromlonlat", 2)
        {
            let mut next = || place.next().unwrap_or_default();
            self.center = Some(parse_place(next(), next())?);
            self.from = Some(From::Place);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// The outline of a GEOSEARCH; of several of the same kind the last one counts. A polygon has its own center.
    fn read_outline(&mut self, rest: &mut Cursor<'a>, command: Command) -> Result<bool, CommandError> {
        let before = self.outline.as_ref();
        let may_be_circle = before.is_none_or(|outline| matches!(outline, Outline::Circle { .. }));
        let may_be_box = before.is_none_or(|outline| matches!(outline, Outline::Box { .. }));
        let may_be_polygon = before.is_none() && self.from.is_none() || self.from == Some(From::Polygon);
        if command == Command::SearchStore && rest.word("storedist") {
            self.stores_distance = true;
        } else if may_be_circle && let Some(mut circle) = rest.values_of("byradius", 2) {
            let mut next = || circle.next().unwrap_or_default();
            self.read_circle(next(), next())?;
        } else if may_be_box && let Some(mut sides) = rest.values_of("bybox", 3) {
            let mut next = || sides.next().unwrap_or_default();
            self.read_box(next(), next(), next())?;
        } else if may_be_polygon && let Some(count) = rest.value_of("bypolygon") {
            self.read_polygon(count, rest)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn read_box(&mut self, width: &[u8], height: &[u8], unit: &[u8]) -> Result<(), CommandError> {
        let (width, height) = (length(width, "need numeric width")?, length(height, "need numeric height")?);
        if width < 0.0 || height < 0.0 {
            return Err(CommandError::err("height or width cannot be negative"));
        }
        self.unit = parse_unit(unit)?;
        self.outline = Some(Outline::Box { width, height });
        Ok(())
    }

    fn read_polygon(&mut self, count: &[u8], rest: &mut Cursor<'a>) -> Result<(), CommandError> {
        let count = parse_i64(count)
            .and_then(|count| i32::try_from(count).ok())
            .ok_or_else(|| CommandError::err("invalid number of vertices"))?;
        let mut corners = Vec::new();
        let too_few = || CommandError::err("GEOSEARCH BYPOLYGON must have at least 3 vertices");
        let wanted = usize::try_from(count).ok().filter(|count| 3 <= *count && *count <= rest.left() / 2);
        for _ in 0..wanted.ok_or_else(too_few)? {
            let (longitude, latitude) = (rest.take(), rest.take());
            corners.push(parse_place(longitude.unwrap_or_default(), latitude.unwrap_or_default())?);
        }
        self.center = Some(middle_of(&corners));
        self.from = Some(From::Polygon);
        self.outline = Some(Outline::Polygon(corners));
        Ok(())
    }

    fn check(&self, args: Args<'_>, command: Command) -> Result<(), CommandError> {
        if self.destination.is_some() && (self.with_distance || self.with_score || self.with_place) {
            let who =
                if command == Command::SearchStore { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(CommandError::err(format!(
                "{who} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        let missing = |what: &'static str| CommandError::quoting(what, args.at(0), "");
        if !is_old(command) && self.from.is_none() {
            return Err(missing("exactly one of FROMMEMBER or FROMLONLAT can be specified for "));
        }
        if !is_old(command) && self.outline.is_none() {
            return Err(missing("exactly one of BYRADIUS, BYBOX and BYPOLYGON can be specified for "));
        }
        if self.any && self.count == 0 {
            return Err(CommandError::err("the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    fn order(&self) -> Order {
        match self.order {
            Order::Any if self.count != 0 && !self.any => Order::NearestFirst,
            order => order,
        }
    }
}

fn is_old(command: Command) -> bool {
    matches!(command, Command::Around | Command::AroundMember)
}

fn center_of(set: SortedSetRef<'_>, member: &[u8]) -> Result<Place, CommandError> {
    place_of(set, member).ok_or_else(|| CommandError::quoting("member ", member, " does not exist"))
}

fn length(argument: &[u8], text: &'static str) -> Result<f64, CommandError> {
    parse_f64(argument).ok_or_else(|| CommandError::err(text))
}

/// A member that was found.
#[derive(Debug)]
struct Found<'k> {
    member: Element<'k>,
    score: f64,
    place: Place,
    /// In meters.
    distance: f64,
}

fn run(ctx: &mut DataContext<'_, '_>, args: Args<'_>, command: Command) -> CommandResult {
    let key = args.at(if command == Command::SearchStore { 2 } else { 1 });
    let set = ctx.keys.sorted_set(key)?;
    let options = Options::parse(ctx, args, set, command)?;
    let found = match (set, options.center, &options.outline) {
        (Some(set), Some(center), Some(outline)) => {
            let shape = Shape { center, unit: options.unit, outline: outline.clone() };
            search(set, &shape, &options)
        }
        _ => Vec::new(),
    };
    if let Some(destination) = options.destination {
        let mut result = SortedSet::new(ctx.keys.limits().sorted_set);
        for one in &found {
            let distance = one.distance / options.unit;
            result.insert(&one.member, if options.stores_distance { distance } else { one.score });
        }
        let len = found.len();
        let event = if command == Command::SearchStore { "geosearchstore" } else { "georadiusstore" };
        // Distances are computed by functions of the machine.
        let effect = Effect::Result;
        return store_result(ctx, destination, (len, result.into()), effect, (EventClass::SortedSet, event));
    }
    reply(&mut ctx.out, &found, &options);
    Ok(Outcome::Reply)
}

fn search<'k>(set: SortedSetRef<'k>, shape: &Shape, options: &Options<'_>) -> Vec<Found<'k>> {
    let mut found = Vec::new();
    let enough = if options.any { options.count } else { usize::MAX };
    for cell in shape.cells() {
        let (first, end) = cell.scores();
        let range = ScoreRange { min: Bound::Included(first), max: Bound::Excluded(end) };
        for (member, score) in set.range(set.score_range(&range)) {
            if enough <= found.len() {
                break;
            }
            let place = WORLD.middle(Cell::of_score(score));
            if let Some(distance) = shape.distance_within(place) {
                found.push(Found { member, score, place, distance });
            }
        }
    }
    match options.order() {
        Order::Any => {}
        Order::NearestFirst => found.sort_by(|a, b| a.distance.total_cmp(&b.distance)),
        Order::FarthestFirst => found.sort_by(|a, b| b.distance.total_cmp(&a.distance)),
    }
    if options.count != 0 {
        found.truncate(options.count);
    }
    found
}

fn reply(out: &mut ReplyWriter<'_>, found: &[Found<'_>], options: &Options<'_>) {
    let details = [options.with_distance, options.with_score, options.with_place];
    let details = details.iter().filter(|wanted| **wanted).count();
    out.array(found.len());
    for one in found {
        if details != 0 {
            out.array(details + 1);
        }
        out.bulk(&one.member);
        if options.with_distance {
            write_distance(out, one.distance / options.unit);
        }
        if options.with_score {
            #[allow(clippy::cast_possible_truncation, reason = "a cast saturates")]
            out.integer(one.score as i64);
        }
        if options.with_place {
            write_place(out, one.place);
        }
    }
}
