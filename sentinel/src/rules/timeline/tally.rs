//! How many changes of primaries this sentinel has led, and how long their phases took: for its metrics.

use std::collections::{BTreeMap, BTreeSet};

use super::{Key, Kind, Phase};

/// Upper ends of the classes of times.
pub(crate) const BOUNDS_MICROS: [u64; 12] =
    [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000];
/// Changes whose new primary has not said yet that it serves; beyond that the oldest are not counted.
const OPEN_MAX: usize = 1024;

/// Of one phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// One more than there are bounds.
    pub counts: [u64; BOUNDS_MICROS.len() + 1],
    pub sum_micros: u64,
}

impl Times {
    fn count(&mut self, micros: u64) {
        let class = BOUNDS_MICROS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_MICROS.len());
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
        }
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }
}

/// The phases that there are, by what has them.
const PHASES: [(Kind, &[Phase]); 2] = [
    (Kind::Failover, &[Phase::Noticing, Phase::Asking, Phase::Commit, Phase::Leases]),
    (Kind::Handoff, &[Phase::CatchingUp, Phase::Commit, Phase::Leases]),
];

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    led: BTreeMap<Kind, u64>,
    times: BTreeMap<(Kind, Phase), Times>,
    open: BTreeSet<(Key, Kind)>,
}

impl Tally {
    pub(super) fn count(&mut self, kind: Kind, phases: &BTreeMap<Phase, u64>) {
        *self.led.entry(kind).or_default() += 1;
        for (phase, micros) in phases {
            self.times.entry((kind, *phase)).or_default().count(*micros);
        }
    }

    /// Its new primary will say when it serves.
    pub(super) fn awaits(&mut self, kind: Kind, key: Key) {
        if OPEN_MAX <= self.open.len() {
            self.open.pop_first();
        }
        self.open.insert((key, kind));
    }

    pub(super) fn served(&mut self, key: &Key, micros: u64) {
        for kind in [Kind::Failover, Kind::Handoff] {
            if self.open.remove(&(key.clone(), kind)) {
                self.times.entry((kind, Phase::Leases)).or_default().count(micros);
            }
        }
    }

    /// How many there were, of each kind that is counted.
    pub(crate) fn led(&self) -> [(Kind, u64); 2] {
        [Kind::Failover, Kind::Handoff].map(|kind| (kind, self.led.get(&kind).copied().unwrap_or_default()))
    }

    /// The times of each phase, also of those that have not happened yet.
    pub(crate) fn times(&self) -> impl Iterator<Item = (Kind, Phase, Times)> {
        let all = PHASES.iter().flat_map(|(kind, phases)| phases.iter().map(|phase| (*kind, *phase)));
        all.map(|(kind, phase)| (kind, phase, self.times.get(&(kind, phase)).copied().unwrap_or_default()))
    }
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Change, "change"),
    (Kind::Formed, "formed"),
    (Kind::Failover, "failover"),
    (Kind::Handoff, "handoff"),
];

const WORDS: [(Phase, &str); 6] = [
    (Phase::Noticing, "noticing"),
    (Phase::CatchingUp, "catching_up"),
    (Phase::Asking, "asking"),
    (Phase::Commit, "commit"),
    (Phase::Leases, "leases"),
    (Phase::Other, "other"),
];

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("change", |(_, word)| word)
    }

    /// Whoever tells it has led the change.
    pub(super) fn is_explained(self) -> bool {
        matches!(self, Kind::Failover | Kind::Handoff)
    }
}

impl Phase {
    pub(crate) fn word(self) -> &'static str {
        WORDS.iter().find(|(phase, _)| *phase == self).map_or("other", |(_, word)| word)
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> String {
        kind.word().to_owned()
    }
}

/// A kind of a later program is some change.
impl From<String> for Kind {
    fn from(text: String) -> Kind {
        KINDS.iter().find(|(_, word)| *word == text).map_or(Kind::Change, |(kind, _)| *kind)
    }
}

impl From<Phase> for String {
    fn from(phase: Phase) -> String {
        phase.word().to_owned()
    }
}

impl From<String> for Phase {
    fn from(text: String) -> Phase {
        WORDS.iter().find(|(_, word)| *word == text).map_or(Phase::Other, |(phase, _)| *phase)
    }
}
