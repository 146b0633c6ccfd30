//! The bytes of a HyperLogLog: 16384 registers of six bits, behind a header of 16 bytes.
//!
//! - header: `HYLL`, the form (0 dense, 1 sparse), three bytes without meaning, and the last estimate, of which the
//!   highest bit says that it is not valid any more
//! - dense: the registers, each six bits from the lowest on
//! - sparse: runs of equal registers, until a value or the whole is too large ([`sparse`](super::sparse))
//!
//! Values are a client's bytes: nothing is believed of them.

use super::estimate::Histogram;
use super::sparse;

/// Number of registers.
pub(super) const LEN: usize = 1 << INDEX_BITS;
/// Bits of the hash that choose the register.
pub(super) const INDEX_BITS: u32 = 14;
/// The largest value that a hash gives a register.
pub(super) const RANK_MAX: usize = 64 - INDEX_BITS as usize + 1;
pub(super) const HEADER_LEN: usize = 16;

const MAGIC: &[u8; 4] = b"HYLL";
const FORM_AT: usize = 4;
const ESTIMATE_AT: usize = 8;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const BITS: usize = 6;
const DENSE_LEN: usize = HEADER_LEN + LEN * BITS / 8;
/// In the last byte of the header.
const STALE: u8 = 0x80;

/// All registers, a byte each.
pub(super) type Registers = [u8; LEN];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Dense,
    Sparse,
}

/// Why a string is no HyperLogLog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Corrupt;

/// An empty one.
pub(super) fn empty() -> Vec<u8> {
    let mut bytes = header(SPARSE);
    bytes.extend_from_slice(&sparse::EMPTY);
    bytes
}

fn header(form: u8) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    bytes[..FORM_AT].copy_from_slice(MAGIC);
    bytes[FORM_AT] = form;
    bytes
}

/// Which form a string has, by its header and its length; `None`: it is none.
pub(super) fn form_of(bytes: &[u8]) -> Option<Form> {
    if bytes.len() < HEADER_LEN || !bytes.starts_with(MAGIC) {
        return None;
    }
    match bytes[FORM_AT] {
        DENSE => (bytes.len() == DENSE_LEN).then_some(Form::Dense),
        SPARSE => Some(Form::Sparse),
        _ => None,
    }
}

/// The last estimate, if it still holds.
pub(super) fn known_estimate(bytes: &[u8]) -> Option<u64> {
    let kept = bytes.get(ESTIMATE_AT..HEADER_LEN)?.try_into().ok()?;
    (bytes[HEADER_LEN - 1] & STALE == 0).then_some(u64::from_le_bytes(kept))
}

/// Where the estimate lies, and the bytes of this one.
pub(super) fn kept_estimate(estimate: u64) -> (usize, [u8; 8]) {
    (ESTIMATE_AT, estimate.to_le_bytes())
}

/// The estimate does not hold any more.
pub(super) fn forget_estimate(bytes: &mut [u8]) {
    bytes[HEADER_LEN - 1] |= STALE;
}

/// The value that a hash wants in which register.
pub(super) fn register_of(hash: u64) -> (usize, u8) {
    #[allow(clippy::cast_possible_truncation, reason = "it has 14 bits")]
    let index = hash as usize & (LEN - 1);
    let rest = hash >> INDEX_BITS | 1 << (64 - INDEX_BITS);
    #[allow(clippy::cast_possible_truncation, reason = "at most 51")]
    let rank = (rest.trailing_zeros() + 1) as u8;
    (index, rank)
}

/// Raises a register to this value; whether that changed anything. A sparse one that has no room for it, within
/// `sparse_bytes_max`, becomes dense.
///
/// # Errors
/// It does not have this register.
pub(super) fn raise(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_bytes_max: usize,
) -> Result<bool, Corrupt> {
    if form_of(bytes) == Some(Form::Sparse) {
        match sparse::raise(bytes, index, value, sparse_bytes_max)? {
            sparse::Raised::Unchanged => return Ok(false),
            sparse::Raised::Changed => {
                forget_estimate(bytes);
                return Ok(true);
            }
            sparse::Raised::NoRoom => make_dense(bytes)?,
        }
    }
    let registers = &mut bytes[HEADER_LEN..];
    let raised = dense(registers, index) < value;
    if raised {
        set_dense(registers, index, value);
    }
    Ok(raised)
}

/// Gives it the dense form; the header stays.
///
/// # Errors
/// Its runs are not those of all registers.
pub(super) fn make_dense(bytes: &mut Vec<u8>) -> Result<(), Corrupt> {
    if form_of(bytes) == Some(Form::Dense) {
        return Ok(());
    }
    let mut registers = [0; LEN];
    merge(&mut registers, bytes)?;
    bytes.truncate(HEADER_LEN);
    bytes[FORM_AT] = DENSE;
    bytes.resize(DENSE_LEN, 0);
    set_all_dense(bytes, &registers);
    Ok(())
}

/// Gives a dense one these registers.
pub(super) fn set_all_dense(bytes: &mut [u8], registers: &Registers) {
    for (index, value) in registers.iter().enumerate() {
        set_dense(&mut bytes[HEADER_LEN..], index, *value);
    }
}

/// Each register is raised to that of this HyperLogLog.
///
/// # Errors
/// Its runs are not those of all registers.
pub(super) fn merge(into: &mut Registers, bytes: &[u8]) -> Result<(), Corrupt> {
    visit(bytes, |range, value| {
        into[range].iter_mut().for_each(|register| *register = value.max(*register));
    })
}

/// How many registers have each value.
///
/// # Errors
/// Its runs are not those of all registers.
pub(super) fn histogram(bytes: &[u8]) -> Result<Histogram, Corrupt> {
    let mut histogram = [0; 64];
    visit(bytes, |range, value| {
        #[allow(clippy::cast_possible_truncation, reason = "at most 16384")]
        let len = range.len() as u32;
        histogram[usize::from(value)] += len;
    })?;
    Ok(histogram)
}

pub(super) fn histogram_of(registers: &Registers) -> Histogram {
    let mut histogram = [0; 64];
    registers.iter().for_each(|value| histogram[usize::from(*value & 63)] += 1);
    histogram
}

/// Visits all registers in order, equal ones together.
fn visit(bytes: &[u8], mut visit: impl FnMut(std::ops::Range<usize>, u8)) -> Result<(), Corrupt> {
    let body = &bytes[HEADER_LEN..];
    if form_of(bytes) == Some(Form::Dense) {
        (0..LEN).for_each(|index| visit(index..index + 1, dense(body, index)));
        return Ok(());
    }
    let mut at = 0;
    for run in sparse::runs(body) {
        let end = at + run.len;
        if LEN < end {
            return Err(Corrupt);
        }
        visit(at..end, run.value);
        at = end;
    }
    if at == LEN { Ok(()) } else { Err(Corrupt) }
}

/// A register of six bits, which may lie in two bytes.
fn dense(registers: &[u8], index: usize) -> u8 {
    let (byte, bit) = (index * BITS / 8, index * BITS % 8);
    let next = registers.get(byte + 1).copied().unwrap_or(0);
    let [low, _] = (u16::from_le_bytes([registers[byte], next]) >> bit).to_le_bytes();
    low & 63
}

fn set_dense(registers: &mut [u8], index: usize, value: u8) {
    let (byte, bit) = (index * BITS / 8, index * BITS % 8);
    let next = registers.get(byte + 1).copied().unwrap_or(0);
    let mut both = u16::from_le_bytes([registers[byte], next]);
    both = both & !(63 << bit) | u16::from(value & 63) << bit;
    let [low, high] = both.to_le_bytes();
    registers[byte] = low;
    if let Some(next) = registers.get_mut(byte + 1) {
        *next = high;
    }
}
