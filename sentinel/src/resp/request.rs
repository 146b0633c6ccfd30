//! Finds commands in what a client sent.
//!
//! The decoder accepts any frame, nested as deeply as the sender likes. A command is only ever an array of bulk
//! strings, so that shape, and its limits, are checked first.

use bytes::{Bytes, BytesMut};
use keyward_proto::resp::ProtocolError;
use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::request::{INLINE_MAX, split_words};
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::BytesFrame;

/// No command of the Sentinel API is anywhere near.
pub const ARGUMENTS_MAX: usize = 1024;
pub const ARGUMENT_BYTES_MAX: usize = 64 * 1024;
/// What a client may send without completing a command.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// Takes the next complete command off the front of the buffer; it may be empty.
///
/// # Errors
/// [`ProtocolError`]: the client gets its text and is disconnected.
pub fn next(buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
    match buffer.first() {
        None => Ok(None),
        Some(b'*') => next_array(buffer),
        Some(_) => next_inline(buffer),
    }
}

fn next_inline(buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
    let Some(end) = buffer.iter().position(|b| *b == b'\n') else {
        return if INLINE_MAX < buffer.len() { Err(ProtocolError::TooBigInline) } else { Ok(None) };
    };
    let line = buffer.split_to(end + 1);
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let words = split_words(line.strip_suffix(b"\r").unwrap_or(line))?;
    Ok(Some(words.into_iter().map(Bytes::from).collect()))
}

fn next_array(buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
    match check_shape(buffer)? {
        Shape::Incomplete if REQUEST_BYTES_MAX < buffer.len() => Err(ProtocolError::InvalidBulkLength),
        Shape::Incomplete => Ok(None),
        Shape::Empty(len) => {
            drop(buffer.split_to(len));
            Ok(Some(Vec::new()))
        }
        Shape::Complete => {
            let decoded = decode_bytes_mut(buffer).map_err(|_| ProtocolError::InvalidMultibulkLength)?;
            let Some((BytesFrame::Array(frames), _, _)) = decoded else {
                return Err(ProtocolError::InvalidMultibulkLength);
            };
            let argument = |frame| match frame {
                BytesFrame::BulkString(bytes) => Ok(bytes),
                _ => Err(ProtocolError::InvalidBulkLength),
            };
            frames.into_iter().map(argument).collect::<Result<Vec<Bytes>, _>>().map(Some)
        }
    }
}

enum Shape {
    Incomplete,
    /// `*0` or `*-1`, so long.
    Empty(usize),
    Complete,
}

fn check_shape(buffer: &[u8]) -> Result<Shape, ProtocolError> {
    let Some((line, mut position)) = line_at(buffer, 1) else {
        return if 64 < buffer.len() {
            Err(ProtocolError::TooBigMultibulkCount)
        } else {
            Ok(Shape::Incomplete)
        };
    };
    let count = parse_i64(line).ok_or(ProtocolError::InvalidMultibulkLength)?;
    let Ok(count) = usize::try_from(count) else { return Ok(Shape::Empty(position)) };
    if count == 0 {
        return Ok(Shape::Empty(position));
    }
    if ARGUMENTS_MAX < count {
        return Err(ProtocolError::InvalidMultibulkLength);
    }
    for _ in 0..count {
        match buffer.get(position) {
            None => return Ok(Shape::Incomplete),
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::ExpectedDollar(*other)),
        }
        let Some((line, start)) = line_at(buffer, position + 1) else {
            let pending = buffer.len() - position;
            return if 64 < pending { Err(ProtocolError::TooBigBulkCount) } else { Ok(Shape::Incomplete) };
        };
        let len = parse_i64(line).and_then(|len| usize::try_from(len).ok());
        let len = len.filter(|len| *len <= ARGUMENT_BYTES_MAX).ok_or(ProtocolError::InvalidBulkLength)?;
        position = start + len + 2;
        if buffer.len() < position {
            return Ok(Shape::Incomplete);
        }
    }
    Ok(Shape::Complete)
}

/// The line from `start` to CR LF, and the position behind it.
fn line_at(buffer: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let rest = buffer.get(start..)?;
    let end = rest.windows(2).take(64).position(|pair| pair == b"\r\n")?;
    Some((rest.get(..end)?, start + end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], step: usize) -> Result<Vec<Vec<Bytes>>, ProtocolError> {
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for piece in input.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(command) = next(&mut buffer)? {
                found.push(command);
            }
        }
        Ok(found)
    }

    #[test]
    fn commands_arrive_in_any_pieces() {
        let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\nPING \"a b\"\r\n\r\n*1\r\n$4\r\nPING\r\n";
        let whole = all(input, input.len()).unwrap();
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[2], vec![Bytes::from("PING"), Bytes::from("a b")]);
        for step in 1..input.len() {
            assert_eq!(all(input, step).unwrap(), whole, "{step}");
        }
    }

    #[test]
    fn strangers_are_limited() {
        assert_eq!(all(&b"*1\r\n".repeat(100_000), 1 << 20), Err(ProtocolError::ExpectedDollar(b'*')));
        assert_eq!(all(b"*9999\r\n", 9), Err(ProtocolError::InvalidMultibulkLength));
        assert_eq!(all(b"*1\r\n$-1\r\n", 9), Err(ProtocolError::InvalidBulkLength));
        assert_eq!(all(&[b'x'; 70_000], 70_000), Err(ProtocolError::TooBigInline));
    }
}
