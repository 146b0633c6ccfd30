//! Places as numbers: the world is cut into cells by halving longitude and latitude in turn, 26 times each. A place's
//! cell is its score in a sorted set, so that places which are near have scores that are.
//!
//! The formulas are Valkey's, in its order: scores and distances agree to the last digit.

/// Halvings of a score.
pub(super) const STEPS: u32 = 26;
const EARTH_RADIUS: f64 = 6_372_797.560_856;

/// The part of the world that cells cover; beyond it the map's projection has no meaning.
pub(super) const WORLD: World = World { longitude: 180.0, latitude: 85.051_128_78 };
/// All of the world, for GEOHASH.
pub(super) const WHOLE: World = World { longitude: 180.0, latitude: 90.0 };

/// A place in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) longitude: f64,
    pub(super) latitude: f64,
}

/// How far a map reaches from the equator and from Greenwich.
#[derive(Debug, Clone, Copy)]
pub(super) struct World {
    longitude: f64,
    latitude: f64,
}

/// A cell, after so many halvings, by its column and row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    column: u32,
    row: u32,
    steps: u32,
}

/// The places of a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) west: f64,
    pub(super) east: f64,
    pub(super) south: f64,
    pub(super) north: f64,
}

impl World {
    pub(super) fn contains(self, place: Place) -> bool {
        (-self.longitude..=self.longitude).contains(&place.longitude)
            && (-self.latitude..=self.latitude).contains(&place.latitude)
    }

    /// The cell of a place.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
    pub(super) fn cell(self, place: Place, steps: u32) -> Cell {
        let cells = (1u64 << steps) as f64;
        let column = (place.longitude - -self.longitude) / (self.longitude - -self.longitude);
        let row = (place.latitude - -self.latitude) / (self.latitude - -self.latitude);
        Cell { column: (column * cells) as u32, row: (row * cells) as u32, steps }
    }

    pub(super) fn area(self, cell: Cell) -> Area {
        let cells = (1u64 << cell.steps) as f64;
        let edge = |limit: f64, at: f64| -limit + (at * 1.0 / cells) * (limit - -limit);
        Area {
            west: edge(self.longitude, f64::from(cell.column)),
            east: edge(self.longitude, f64::from(cell.column) + 1.0),
            south: edge(self.latitude, f64::from(cell.row)),
            north: edge(self.latitude, f64::from(cell.row) + 1.0),
        }
    }

    /// The middle of a cell.
    pub(super) fn middle(self, cell: Cell) -> Place {
        let area = self.area(cell);
        let clamp = |at: f64, limit: f64| at.min(limit).max(-limit);
        Place {
            longitude: clamp((area.west + area.east) / 2.0, WORLD.longitude),
            latitude: clamp((area.south + area.north) / 2.0, WORLD.latitude),
        }
    }
}

impl Cell {
    /// Column and row, a bit of each in turn.
    pub(super) fn bits(self) -> u64 {
        spread(self.row) | spread(self.column) << 1
    }

    pub(super) fn of_bits(bits: u64, steps: u32) -> Cell {
        Cell { column: gather(bits >> 1), row: gather(bits), steps }
    }

    /// Which cell a score is.
    pub(super) fn of_score(score: f64) -> Cell {
        #[allow(clippy::cast_possible_truncation, reason = "a cast saturates")]
        Cell::of_bits((score as i64).cast_unsigned(), STEPS)
    }

    /// The scores in it: from the first up to but not including the second.
    pub(super) fn scores(self) -> (f64, f64) {
        let shift = 2 * (STEPS - self.steps);
        ((self.bits() << shift) as f64, ((self.bits() + 1) << shift) as f64)
    }

    /// The cell that is so many columns and rows away; beyond an edge comes the opposite one.
    pub(super) fn moved(self, columns: i32, rows: i32) -> Cell {
        let mask = u32::MAX >> (32 - self.steps);
        Cell {
            column: self.column.wrapping_add_signed(columns) & mask,
            row: self.row.wrapping_add_signed(rows) & mask,
            steps: self.steps,
        }
    }
}

/// The bits of a number, each followed by a zero.
fn spread(number: u32) -> u64 {
    let mut bits = u64::from(number);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// Every other bit of a number.
fn gather(bits: u64) -> u32 {
    let mut bits = bits & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    #[allow(clippy::cast_possible_truncation, reason = "32 bits are left")]
    let gathered = bits as u32;
    gathered
}

pub(super) fn radians(degrees: f64) -> f64 {
    degrees * (std::f64::consts::PI / 180.0)
}

pub(super) fn degrees(radians: f64) -> f64 {
    radians / (std::f64::consts::PI / 180.0)
}

/// Meters on the ground as an angle in radians.
pub(super) fn angle(meters: f64) -> f64 {
    meters / EARTH_RADIUS
}

/// Meters between two latitudes.
pub(super) fn latitude_distance(a: f64, b: f64) -> f64 {
    EARTH_RADIUS * (radians(b) - radians(a)).abs()
}

/// Meters between two places, along a great circle.
pub(super) fn distance(a: Place, b: Place) -> f64 {
    let v = ((radians(b.longitude) - radians(a.longitude)) / 2.0).sin();
    if v == 0.0 {
        return latitude_distance(a.latitude, b.latitude);
    }
    let (from, to) = (radians(a.latitude), radians(b.latitude));
    let u = ((to - from) / 2.0).sin();
    2.0 * EARTH_RADIUS * (u * u + from.cos() * to.cos() * v * v).sqrt().asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_numbers_and_back() {
        for (column, row) in [(0, 0), (1, 0), (0, 1), (0x3ff_ffff, 0x155_5555), (0x2aa_aaaa, 0x3ff_ffff)] {
            let cell = Cell { column, row, steps: STEPS };
            assert_eq!(Cell::of_bits(cell.bits(), STEPS), cell);
            assert_eq!(Cell::of_score(cell.scores().0), cell);
        }
        let palermo = Place { longitude: 13.361_389, latitude: 38.115_556 };
        assert_eq!(WORLD.cell(palermo, STEPS).scores().0, 3_479_099_956_230_698.0);
    }

    #[test]
    fn the_world_is_round() {
        let corner = Cell { column: 0, row: 3, steps: 2 };
        assert_eq!(corner.moved(-1, 1), Cell { column: 3, row: 0, steps: 2 });
    }

    /// Scores may be any number.
    #[test]
    fn any_score_is_some_place() {
        for score in [f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300, f64::MAX, 0.5] {
            assert!(WORLD.contains(WORLD.middle(Cell::of_score(score))), "{score}");
        }
    }
}
