//! What is searched, and in which cells its places may be.

use super::cell::{Cell, Place, STEPS, WORLD, angle, degrees, distance, latitude_distance, radians};

/// Half of the world's circumference on the map, in meters.
const MERCATOR_MAX: f64 = 20_037_726.37;

/// The shape around a place; lengths are in `unit`s of so many meters.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) center: Place,
    pub(super) unit: f64,
    pub(super) outline: Outline,
}

#[derive(Debug, Clone)]
pub(super) enum Outline {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
    Polygon(Vec<Place>),
}

/// West, south, east, north.
type Bounds = [f64; 4];

impl Shape {
    /// How far a place is from the center, if it lies within.
    pub(super) fn distance_within(&self, place: Place) -> Option<f64> {
        let from_center = || distance(self.center, place);
        match &self.outline {
            Outline::Circle { radius } => Some(from_center()).filter(|d| *d <= radius * self.unit),
            Outline::Box { width, height } => {
                let (width, height) = (width * self.unit, height * self.unit);
                if height / 2.0 < latitude_distance(place.latitude, self.center.latitude) {
                    return None;
                }
                let beside = Place { latitude: place.latitude, ..self.center };
                (distance(place, beside) <= width / 2.0).then(from_center)
            }
            Outline::Polygon(corners) => is_inside(corners, place).then(from_center),
        }
    }

    /// The cells that have all of it, the one of its center first.
    pub(super) fn cells(&self) -> Vec<Cell> {
        let bounds = self.bounds();
        let [west, south, east, north] = bounds;
        let mut steps = estimated_steps(self.reach(), self.center.latitude);
        let cell_of = |steps| WORLD.cell(self.center, steps);
        let area = |columns, rows| WORLD.area(cell_of(steps).moved(columns, rows));
        let is_too_small = area(0, 1).north < north
            || south < area(0, -1).south
            || area(1, 0).east < east
            || west < area(-1, 0).west;
        if 1 < steps && is_too_small {
            steps -= 1;
        }
        around(cell_of(steps), steps, bounds)
    }

    /// Meters from the center to what is farthest.
    fn reach(&self) -> f64 {
        match &self.outline {
            Outline::Circle { radius } => radius * self.unit,
            Outline::Box { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt() * self.unit
            }
            Outline::Polygon(corners) => {
                corners.iter().map(|corner| distance(self.center, *corner)).fold(0.0, f64::max)
            }
        }
    }

    fn bounds(&self) -> Bounds {
        let (height, width) = match &self.outline {
            Outline::Circle { radius } => (self.unit * radius, self.unit * radius),
            Outline::Box { width, height } => (self.unit * (height / 2.0), self.unit * (width / 2.0)),
            Outline::Polygon(corners) => return bounds_of(corners),
        };
        let Place { longitude, latitude } = self.center;
        let up = degrees(angle(height));
        // Towards the pole a meter is more degrees.
        let farther = if latitude < 0.0 { latitude - up } else { latitude + up };
        let aside = degrees(angle(width) / radians(farther).cos());
        [longitude - aside, latitude - up, longitude + aside, latitude + up]
    }
}

fn bounds_of(corners: &[Place]) -> Bounds {
    let all =
        |of: fn(&Place) -> f64, pick: fn(f64, f64) -> f64, start| corners.iter().map(of).fold(start, pick);
    let (longitude, latitude) = (|p: &Place| p.longitude, |p: &Place| p.latitude);
    [
        all(longitude, f64::min, f64::INFINITY),
        all(latitude, f64::min, f64::INFINITY),
        all(longitude, f64::max, f64::NEG_INFINITY),
        all(latitude, f64::max, f64::NEG_INFINITY),
    ]
}

/// So many halvings that a cell is about as large as what is searched.
fn estimated_steps(mut reach: f64, latitude: f64) -> u32 {
    if reach == 0.0 {
        return STEPS;
    }
    let mut steps: u32 = 1;
    while reach < MERCATOR_MAX && steps < 2 * STEPS {
        reach *= 2.0;
        steps += 1;
    }
    let near_pole = u32::from(66.0 < latitude.abs()) + u32::from(80.0 < latitude.abs());
    steps.saturating_sub(2 + near_pole).clamp(1, STEPS)
}

/// A cell and its neighbours, without those that the bounds do not reach. One that is the same as the last that was
/// taken is left out, as in Valkey, which does not look at the first for that.
fn around(cell: Cell, steps: u32, [west, south, east, north]: Bounds) -> Vec<Cell> {
    const MOVES: [(i32, i32); 8] = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
    let area = WORLD.area(cell);
    let is_needed = |(columns, rows): (i32, i32)| {
        steps < 2
            || !(rows < 0 && area.south < south
                || 0 < rows && north < area.north
                || columns < 0 && area.west < west
                || 0 < columns && east < area.east)
    };
    let mut cells = vec![cell];
    for (columns, rows) in MOVES.into_iter().filter(|to| is_needed(*to)) {
        let neighbour = cell.moved(columns, rows);
        if cells.len() == 1 || cells.last() != Some(&neighbour) {
            cells.push(neighbour);
        }
    }
    cells
}

/// The middle of the corners, on the sphere.
pub(super) fn middle_of(corners: &[Place]) -> Place {
    let (mut x, mut y, mut z) = (0.0, 0.0, 0.0);
    for corner in corners {
        let (longitude, latitude) = (radians(corner.longitude), radians(corner.latitude));
        x += latitude.cos() * longitude.cos();
        y += latitude.cos() * longitude.sin();
        z += latitude.sin();
    }
    let count = corners.len() as f64;
    (x, y, z) = (x / count, y / count, z / count);
    Place { longitude: degrees(y.atan2(x)), latitude: degrees(z.atan2((x * x + y * y).sqrt())) }
}

/// Whether a line from the place to the east crosses the outline an odd number of times.
fn is_inside(corners: &[Place], place: Place) -> bool {
    let mut inside = false;
    let Some(mut before) = corners.last() else { return false };
    for corner in corners {
        let crosses = (place.latitude < corner.latitude) != (place.latitude < before.latitude)
            && place.longitude
                < (before.longitude - corner.longitude) * (place.latitude - corner.latitude)
                    / (before.latitude - corner.latitude)
                    + corner.longitude;
        inside ^= crosses;
        before = corner;
    }
    inside
}
