//! How often a report is sent to those who look on: about once a second, and less often if it is long, so that a viewer of
//! a large cluster does not cost more than one of a small.

use std::time::Duration;

const USUAL: Duration = Duration::from_secs(1);
/// More of them than this per second and viewer are not sent.
const BYTES_PER_SECOND: usize = 256 << 10;
/// The part of the usual time that has to pass even if something happens.
const LEAST_PART: u32 = 20;

/// Between two reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// In any case.
    pub(crate) least: Duration,
    /// And this if nothing happens.
    pub(crate) usual: Duration,
}

/// For reports of so many bytes.
pub(crate) fn pace(bytes: usize) -> Pace {
    let seconds = u32::try_from(bytes / BYTES_PER_SECOND).unwrap_or(u32::MAX);
    let whole = USUAL.saturating_mul(seconds.saturating_add(1));
    let least = whole / LEAST_PART;
    Pace { least, usual: whole - least }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reports_are_sent_less_often() {
        let whole = |bytes| {
            let Pace { least, usual } = pace(bytes);
            (least.as_millis(), (least + usual).as_millis())
        };
        assert_eq!([whole(3000), whole(300_000), whole(2 << 20)], [(50, 1000), (100, 2000), (450, 9000)]);
    }
}
