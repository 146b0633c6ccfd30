//! What DUMP replies and RESTORE takes: a value, the version of the format in two bytes, the CRC64 of all before it.

use super::output::push_text;
use super::record::Record;
use super::value::{self, Loaded};
use super::{
    Checksum, Compression, Input, RdbError, VERSION, VERSION_FIELD_TIMES, VERSION_STREAMS, is_known_version,
    opcode, type_byte as t,
};
use crate::entry::ValueRef;
use crate::types::Limits;

const VERSION_LEN: usize = 2;

pub fn save(value: ValueRef<'_>, compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    value::save(value, compression, &mut out);
    let version = match value::type_byte(value) {
        t::HASH_2 => VERSION_FIELD_TIMES,
        t::STREAM_3 => VERSION_STREAMS,
        _ => VERSION,
    };
    sealed(out, version)
}

/// The value of a record as RESTORE takes it, without a look at it.
pub fn of_record(record: &Record<'_>) -> Vec<u8> {
    let mut out = vec![record.type_byte];
    out.extend_from_slice(record.body());
    let version = match record.type_byte {
        t::HASH_2 => VERSION_FIELD_TIMES,
        t::STREAM | t::STREAM_2 | t::STREAM_3 => VERSION_STREAMS,
        _ => VERSION,
    };
    sealed(out, version)
}

/// What FUNCTION DUMP replies: the sources of libraries.
pub fn save_functions<'a>(sources: impl Iterator<Item = &'a [u8]>, compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    sources.for_each(|source| push_function(source, compression, &mut out));
    sealed(out, VERSION)
}

/// One library, as files have it, too.
pub fn push_function(source: &[u8], compression: Compression, out: &mut Vec<u8>) {
    out.push(opcode::FUNCTION);
    push_text(source, compression, out);
}

/// The sources of libraries in a [`verified`] payload.
///
/// # Errors
/// Something else is in it, or it ends too early.
pub fn load_functions(content: &[u8]) -> Result<Vec<Vec<u8>>, RdbError> {
    let (mut input, mut sources) = (Input::new(content), Vec::new());
    while !input.is_empty() {
        if input.byte()? != opcode::FUNCTION {
            return Err(RdbError::Refused("given type is not a function"));
        }
        sources.push(input.text()?.into_vec());
    }
    Ok(sources)
}

fn sealed(mut out: Vec<u8>, version: u32) -> Vec<u8> {
    out.extend_from_slice(&(version as u16).to_le_bytes());
    let checksum = Checksum::of(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The value in a payload, not read yet; `None` if version or checksum are wrong.
pub fn verified(payload: &[u8]) -> Option<&[u8]> {
    let (content, checksum) = payload.split_last_chunk::<8>()?;
    let (value, version) = content.split_last_chunk::<VERSION_LEN>()?;
    let is_right = is_known_version(u32::from(u16::from_le_bytes(*version)))
        && Checksum::of(content) == u64::from_le_bytes(*checksum);
    is_right.then_some(value)
}

/// # Errors
/// Whatever is wrong with a [`verified`] value.
pub fn load<'a>(value: &'a [u8], limits: &Limits) -> Result<Loaded<'a>, RdbError> {
    value::load(value, limits)
}
