//! How many calls took how long: times in classes of which each is at most one 128th wide, as Valkey has them, so that
//! percentiles and LATENCY HISTOGRAM say the same.
//!
//! Memory is made for an octave with its first time; most commands stay in a few.

use std::sync::OnceLock;

use crate::stats::Counter;

/// Times above are counted as this one, in nanoseconds.
pub(crate) const NANOS_MAX: u64 = 1_000_000_000;
/// Below, each number of nanoseconds is a class of its own.
const EXACT_BITS: u32 = 8;
/// Classes of an octave.
const OCTAVE: usize = 1 << (EXACT_BITS - 1);
/// The first two octaves are the exact ones.
const OCTAVES: usize = 30 - EXACT_BITS as usize + 2;

/// The number of a time's class; classes are in the order of times.
#[inline]
fn class_of(nanos: u64) -> usize {
    let nanos = nanos.clamp(1, NANOS_MAX);
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(EXACT_BITS);
    #[allow(clippy::cast_possible_truncation, reason = "less than 256")]
    let within = (nanos >> shift) as usize;
    shift as usize * OCTAVE + within
}

/// The shortest and the longest time of a class.
fn bounds_of(class: usize) -> (u64, u64) {
    let shift = (class / OCTAVE).saturating_sub(1);
    let within = (class - shift * OCTAVE) as u64;
    (within << shift, ((within + 1) << shift) - 1)
}

/// Counts of one thread, which is the only one that writes.
#[derive(Debug, Default)]
pub(crate) struct Times([OnceLock<Box<[Counter; OCTAVE]>>; OCTAVES]);

impl Times {
    /// So many calls took so long each.
    #[inline]
    pub(crate) fn add(&self, calls: u64, nanos: u64) {
        let class = class_of(nanos);
        if let Some(octave) = self.0.get(class / OCTAVE) {
            let counters = octave.get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
            counters[class % OCTAVE].add(calls);
        }
    }

    pub(crate) fn reset(&self) {
        self.0.iter().filter_map(OnceLock::get).for_each(|octave| octave.iter().for_each(Counter::reset));
    }

    fn visit(&self, visit: &mut dyn FnMut(usize, u64)) {
        for (octave, counters) in self.0.iter().enumerate() {
            let counters = counters.get().into_iter().flat_map(|counters| counters.iter().enumerate());
            for (within, counter) in counters.filter(|(_, counter)| counter.get() != 0) {
                visit(octave * OCTAVE + within, counter.get());
            }
        }
    }
}

/// What all threads have counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    /// By class; none is empty.
    counts: std::collections::BTreeMap<usize, u64>,
}

impl Histogram {
    pub(crate) fn add(&mut self, times: &Times) {
        times.visit(&mut |class, count| *self.counts.entry(class).or_default() += count);
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Shortest times of classes with their counts, ascending.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(class, count)| (bounds_of(*class).0, *count))
    }

    /// The time within which so many per cent of the calls ended, in nanoseconds.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a percentile of a count"
    )]
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        let wanted = ((percent / 100.0 * self.total() as f64 + 0.5) as u64).max(1);
        let mut seen = 0;
        for (class, count) in &self.counts {
            seen += count;
            if wanted <= seen {
                let (lowest, highest) = bounds_of(*class);
                return if percent == 0.0 { lowest } else { highest };
            }
        }
        0
    }

    /// Microseconds, each about twice the one before, with how many calls took no longer; only where that number grows.
    pub(crate) fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut steps = Vec::new();
        let (mut seen, mut bound) = (0, 1024_u64);
        let mut counts = self.counts.iter().peekable();
        while counts.peek().is_some() {
            let last = if bound <= NANOS_MAX { class_of(bound) } else { usize::MAX };
            let before = seen;
            while let Some((_, count)) = counts.next_if(|(class, _)| **class <= last) {
                seen += count;
            }
            if before != seen {
                steps.push((bounds_of_power(bound).1 / 1000, seen));
            }
            bound *= 2;
        }
        steps
    }
}

/// As [`bounds_of`], of the class of a power of two, also of one above [`NANOS_MAX`].
fn bounds_of_power(bound: u64) -> (u64, u64) {
    (bound, bound + (bound >> (EXACT_BITS - 1)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_in_order_and_cover_all_times() {
        let mut before = 0;
        for nanos in (1..100_000).chain([1 << 29, (1 << 29) + (1 << 22), NANOS_MAX, u64::MAX]) {
            let class = class_of(nanos);
            let (lowest, highest) = bounds_of(class);
            let counted = nanos.min(NANOS_MAX);
            assert!(before <= class && lowest <= counted && counted <= highest, "{nanos}");
            assert!(highest - lowest <= lowest / 128, "{nanos}");
            before = class;
        }
        assert!(class_of(NANOS_MAX) / OCTAVE < OCTAVES);
    }

    fn histogram(times: &[(u64, u64)]) -> Histogram {
        let counted = Times::default();
        times.iter().for_each(|(calls, nanos)| counted.add(*calls, *nanos));
        let mut histogram = Histogram::default();
        histogram.add(&counted);
        histogram
    }

    #[test]
    fn figures_are_those_of_valkey() {
        // What the real server showed of these times.
        let one = histogram(&[(1, 108_000)]);
        assert_eq!((one.percentile(50.0), one.percentile(0.0)), (108_031, 107_520));
        assert_eq!(one.cumulative(), [(132, 1)]);
        let three = histogram(&[(2, 6000), (1, 7000)]);
        assert_eq!((three.percentile(50.0), three.percentile(99.9)), (6015, 7007));
        assert_eq!(three.cumulative(), [(8, 3)]);
        assert_eq!(histogram(&[(1, 14_000)]).cumulative(), [(16, 1)]);
        assert_eq!(histogram(&[(1, 25_000)]).cumulative(), [(33, 1)]);
        assert_eq!(histogram(&[(5, 300), (1, u64::MAX)]).cumulative(), [(1, 5), (1_082_130, 6)]);
        assert_eq!((Histogram::default().percentile(50.0), Histogram::default().cumulative().len()), (0, 0));
    }

    #[test]
    fn threads_are_added_up() {
        let (one, other) = (Times::default(), Times::default());
        one.add(2, 5);
        other.add(3, 5);
        let mut sum = Histogram::default();
        sum.add(&one);
        sum.add(&other);
        assert_eq!(sum.classes().collect::<Vec<_>>(), [(5, 5)]);
        one.reset();
        assert_eq!(histogram(&[]).total(), 0);
        let mut rest = Histogram::default();
        rest.add(&one);
        assert_eq!(rest.total(), 0);
    }
}
