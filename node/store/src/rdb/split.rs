//! Finds where the pieces of a file begin and end, without decoding values: cheap enough for one thread to keep many
//! busy that decode.

use super::record::Record;
use super::value::foreign::{self, Dialect};
use super::value::skip_body;
use super::{Input, RdbError, Text, opcode};

/// What stands in a file between magic and checksum.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A fact about the file: name and value.
    Aux(Text<'a>, Text<'a>),
    /// The records that follow are of this database.
    SelectDb(u64),
    /// Keys of the current database, and how many of them have an expiry.
    ResizeDb {
        keys: u64,
        expires: u64,
    },
    /// The same of a slot.
    SlotInfo,
    /// The source of a function library.
    Function(Text<'a>),
    /// What a module of this name has saved for itself. It was passed over.
    ModuleAux(String),
    /// A key with its value: [`Record::open`] reads it.
    Record,
    End,
}

/// What is wrong with a piece.
#[derive(Debug)]
pub struct BadPiece {
    pub error: RdbError,
    /// Key and type, if it is a record.
    pub record: Option<(Vec<u8>, u8)>,
}

impl From<RdbError> for BadPiece {
    fn from(error: RdbError) -> Self {
        BadPiece { error, record: None }
    }
}

/// Reads the next piece; the input is left behind it.
///
/// # Errors
/// Whatever is wrong with it. With [`RdbError::Truncated`] the input may be extended, and the piece read again.
pub fn next_piece<'a>(input: &mut Input<'a>, dialect: Dialect) -> Result<Piece<'a>, BadPiece> {
    let mut ahead = input.clone();
    let piece = match ahead.byte()? {
        opcode::AUX => Piece::Aux(ahead.text()?, ahead.text()?),
        opcode::SELECT_DB => Piece::SelectDb(ahead.number()?),
        opcode::RESIZE_DB => Piece::ResizeDb { keys: ahead.number()?, expires: ahead.number()? },
        opcode::SLOT_INFO => {
            for _ in 0..3 {
                ahead.number()?;
            }
            Piece::SlotInfo
        }
        opcode::FUNCTION => Piece::Function(ahead.text()?),
        opcode::FUNCTION_PRE_GA => {
            return Err(RdbError::Refused("functions of a release candidate of Redis 7.0").into());
        }
        opcode::SLOT_IMPORT if dialect == Dialect::Redis => {
            return Err(RdbError::Refused("metadata of a key, of Redis 8").into());
        }
        opcode::SLOT_IMPORT => {
            return Err(
                RdbError::Refused("it was saved during an import of slots, which is not finished").into()
            );
        }
        opcode::MODULE_AUX => module_aux(&mut ahead)?,
        opcode::EOF => Piece::End,
        _ => {
            *input = skip_record(input.clone(), dialect)?;
            return Ok(Piece::Record);
        }
    };
    *input = ahead;
    Ok(piece)
}

fn skip_record(mut input: Input<'_>, dialect: Dialect) -> Result<Input<'_>, BadPiece> {
    let Record { key, type_byte, .. } = Record::read_head(&mut input)?;
    let skipped = match foreign::name(type_byte, dialect) {
        Some(_) => Err(foreign::unsupported(type_byte, dialect)),
        None => skip_body(type_byte, &mut input),
    };
    match skipped {
        Ok(()) => Ok(input),
        Err(error) => Err(BadPiece { error, record: Some((key.into_vec(), type_byte)) }),
    }
}

/// Passes over a record of a type that is not supported; the input is left behind it. Returns its key and type.
///
/// # Errors
/// As for [`next_piece`].
pub fn skip_unsupported(input: &mut Input<'_>, dialect: Dialect) -> Result<(Vec<u8>, u8), BadPiece> {
    let mut ahead = input.clone();
    let Record { key, type_byte, .. } = Record::read_head(&mut ahead)?;
    let (key, skipped) = (key.into_vec(), foreign::skip_body(type_byte, dialect, &mut ahead));
    match skipped {
        Ok(()) => {
            *input = ahead;
            Ok((key, type_byte))
        }
        Err(error) => Err(BadPiece { error, record: Some((key, type_byte)) }),
    }
}

/// A module's own data.
fn module_aux<'a>(input: &mut Input<'_>) -> Result<Piece<'a>, RdbError> {
    let id = input.number()?;
    // Whether it was saved before or after the keys: a number, written as a value of its own.
    input.number()?;
    input.number()?;
    foreign::skip_module(input)?;
    Ok(Piece::ModuleAux(module_name(id)))
}

/// Nine letters of six bits, before ten bits of a version.
fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).rev().map(|i| char::from(LETTERS[(id >> (10 + 6 * i)) as usize & 0x3f])).collect()
}
