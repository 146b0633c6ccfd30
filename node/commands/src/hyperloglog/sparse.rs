//! The sparse form: runs of equal registers.
//!
//! - `00llllll`: so many zeros, and one more
//! - `01llllll llllllll`: the same, up to 16384 of them
//! - `1vvvvvll`: up to four registers with the value `vvvvv` plus one
//!
//! Where a run is split, and which neighbours become one again, is what Valkey does: the bytes are the same.

use super::registers::{Corrupt, HEADER_LEN};

/// All registers are zero.
pub(super) const EMPTY: [u8; 2] = [0x7f, 0xff];
const ZEROS_MAX: usize = 64;
const VALUES_MAX: usize = 4;
const VALUE_MAX: u8 = 32;
/// So many runs, from the one before the changed one on, are looked at for neighbours that can be joined.
const JOINED_RUNS: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Zero for zeros.
    pub(super) value: u8,
    /// Number of registers.
    pub(super) len: usize,
    /// Number of bytes.
    pub(super) width: usize,
}

/// What has become of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raised {
    Unchanged,
    Changed,
    /// It needs the dense form.
    NoRoom,
}

impl Run {
    /// The run at the beginning of these bytes. A long one of which the second byte is missing has it as zero.
    fn first(bytes: &[u8]) -> Option<Run> {
        let byte = *bytes.first()?;
        Some(match byte >> 6 {
            0 => Run { value: 0, len: usize::from(byte) + 1, width: 1 },
            1 => {
                let low = bytes.get(1).copied().unwrap_or(0);
                let len = usize::from(u16::from_be_bytes([byte & 0x3f, low])) + 1;
                Run { value: 0, len, width: 2 }
            }
            _ => Run { value: (byte >> 2 & 31) + 1, len: usize::from(byte & 3) + 1, width: 1 },
        })
    }

    /// Whether it has the long form, however short it is.
    pub(super) fn is_long(self) -> bool {
        self.width == 2
    }
}

/// The runs one after the other.
pub(super) fn runs(body: &[u8]) -> impl Iterator<Item = Run> + '_ {
    let mut rest = body;
    std::iter::from_fn(move || {
        let run = Run::first(rest)?;
        rest = rest.get(run.width..).unwrap_or_default();
        Some(run)
    })
}

fn push_zeros(out: &mut Vec<u8>, len: usize) {
    if len == 0 {
        return;
    }
    #[allow(clippy::cast_possible_truncation, reason = "at most 16384")]
    let [high, low] = ((len - 1) as u16).to_be_bytes();
    if ZEROS_MAX < len {
        out.push(0x40 | high);
    }
    out.push(low);
}

fn push_values(out: &mut Vec<u8>, value: u8, len: usize) {
    if len != 0 {
        #[allow(clippy::cast_possible_truncation, reason = "at most 4")]
        out.push(0x80 | (value - 1) << 2 | (len - 1) as u8);
    }
}

/// Raises a register of the HyperLogLog whose bytes these are, header included.
///
/// # Errors
/// It does not have this register.
pub(super) fn raise(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    bytes_max: usize,
) -> Result<Raised, Corrupt> {
    if VALUE_MAX < value {
        return Ok(Raised::NoRoom);
    }
    let place = find(&bytes[HEADER_LEN..], index)?;
    let (at, run) = (HEADER_LEN + place.at, place.run);
    if value <= run.value {
        return Ok(Raised::Unchanged);
    }
    let split = split(run, index - place.first, value);
    let len = bytes.len() - run.width + split.len();
    if bytes.len() < len && bytes_max < len {
        return Ok(Raised::NoRoom);
    }
    bytes.splice(at..at + run.width, split);
    join(bytes, HEADER_LEN + place.before.unwrap_or(0));
    Ok(Raised::Changed)
}

/// Where a register lies.
#[derive(Debug)]
struct Place {
    run: Run,
    /// Of the run's bytes.
    at: usize,
    /// Of the bytes of the run before.
    before: Option<usize>,
    /// The run's first register.
    first: usize,
}

fn find(body: &[u8], index: usize) -> Result<Place, Corrupt> {
    let (mut at, mut first, mut before) = (0, 0, None);
    for run in runs(body) {
        if index < first + run.len {
            // A long run whose second byte is missing cannot be replaced.
            let is_whole = at + run.width <= body.len();
            return if is_whole { Ok(Place { run, at, before, first }) } else { Err(Corrupt) };
        }
        before = Some(at);
        at += run.width;
        first += run.len;
    }
    Err(Corrupt)
}

/// A run whose register `inner` has another value.
fn split(run: Run, inner: usize, value: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(5);
    let rest = run.len - inner - 1;
    let push = |out: &mut Vec<u8>, len| match run.value {
        0 => push_zeros(out, len),
        old => push_values(out, old, len),
    };
    push(&mut out, inner);
    push_values(&mut out, value, 1);
    push(&mut out, rest);
    out
}

/// Joins neighbours with the same value that fit into one run.
fn join(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..JOINED_RUNS {
        let Some(run) = Run::first(&bytes[at..]) else { return };
        let next = Run::first(bytes.get(at + 1..).unwrap_or_default());
        match next {
            Some(next) if run.value != 0 && run.value == next.value && run.len + next.len <= VALUES_MAX => {
                let mut joined = Vec::with_capacity(1);
                push_values(&mut joined, run.value, run.len + next.len);
                bytes.splice(at..at + 2, joined);
            }
            _ => at += run.width,
        }
        if bytes.len() <= at {
            return;
        }
    }
}
