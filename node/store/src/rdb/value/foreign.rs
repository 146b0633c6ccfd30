//! Values of types that Keyward does not have: their names, and how to pass over them, so that a file's check can count
//! what it holds of them. What follows Valkey's type numbers here are those of Redis 7.4 and later.

use super::super::{Input, RdbError, type_byte as t};

/// Whose numbers of types a file has: from version 12 on they are others in Redis and in Valkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Valkey,
    Redis,
}

/// Bytes of a point in time.
const TIME_LEN: usize = 8;

/// The name of a type that is known and not supported.
pub fn name(type_byte: u8, dialect: Dialect) -> Option<&'static str> {
    Some(match (type_byte, dialect) {
        (t::MODULE | t::MODULE_2, _) => "a module's value",
        (t::REDIS_HASH_TTL_EARLY | t::REDIS_HASH_LISTPACK_TTL_EARLY, Dialect::Redis) => {
            "hash with fields that expire, of a release candidate of Redis 7.4"
        }
        (t::REDIS_HASH_TTL | t::REDIS_HASH_LISTPACK_TTL, Dialect::Redis) => {
            "hash with fields that expire, of Redis 7.4 or later"
        }
        (t::REDIS_STREAM_4 | t::REDIS_STREAM_5, Dialect::Redis) => "stream of Redis 8",
        _ => return None,
    })
}

pub fn unsupported(type_byte: u8, dialect: Dialect) -> RdbError {
    match name(type_byte, dialect) {
        Some(name) => RdbError::Unsupported { number: type_byte, name },
        None => RdbError::UnknownType(type_byte),
    }
}

/// Passes over the body of such a value.
///
/// # Errors
/// It is damaged, or nobody but its own program knows where it ends.
pub fn skip_body(type_byte: u8, dialect: Dialect, input: &mut Input<'_>) -> Result<(), RdbError> {
    match (type_byte, dialect) {
        (t::MODULE_2, _) => {
            input.number()?;
            skip_module(input)
        }
        (t::REDIS_HASH_LISTPACK_TTL_EARLY, Dialect::Redis) => input.skip_text(),
        (t::REDIS_HASH_LISTPACK_TTL, Dialect::Redis) => {
            input.take(TIME_LEN)?;
            input.skip_text()
        }
        (t::REDIS_HASH_TTL, Dialect::Redis) => {
            input.take(TIME_LEN)?;
            for _ in 0..input.count()? {
                input.number()?;
                input.skip_text()?;
                input.skip_text()?;
            }
            Ok(())
        }
        _ => Err(unsupported(type_byte, dialect)),
    }
}

/// What a module has saved: values that each say what they are.
pub fn skip_module(input: &mut Input<'_>) -> Result<(), RdbError> {
    const END: u64 = 0;
    const SIGNED: u64 = 1;
    const UNSIGNED: u64 = 2;
    const FLOAT: u64 = 3;
    const DOUBLE: u64 = 4;
    const STRING: u64 = 5;
    loop {
        match input.number()? {
            END => return Ok(()),
            SIGNED | UNSIGNED => drop(input.number()?),
            FLOAT => drop(input.take(size_of::<f32>())?),
            DOUBLE => drop(input.take(size_of::<f64>())?),
            STRING => input.skip_text()?,
            _ => return Err(RdbError::Corrupt("a module's data is damaged")),
        }
    }
}
