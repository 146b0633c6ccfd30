//! Finds commands in what a client sent: the reader of the nodes, with limits of its own.

use bytes::{Buf, Bytes, BytesMut};
use keyward_proto::resp::{Batch, Limits, ProtocolError, RequestReader};

use super::command::Trust;

/// No command of the Sentinel API is anywhere near.
pub(crate) const ARGUMENTS_MAX: usize = 1024;
pub(crate) const ARGUMENT_BYTES_MAX: usize = 64 * 1024;
/// What a client may send without completing a command.
pub(crate) const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// What is known of a request that is not complete yet.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    reader: RequestReader,
    batch: Batch,
}

impl Requests {
    /// Takes the next complete command off the front of the buffer; never an empty one. One at a time, so that each is
    /// looked at under the limits that hold after the one before it.
    ///
    /// # Errors
    /// [`ProtocolError`]: the client gets its text and is disconnected.
    pub(crate) fn next(
        &mut self,
        buffer: &mut BytesMut,
        trust: Trust,
    ) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        let authenticated = trust == Trust::Known;
        let limits = Limits { bulk_len_max: ARGUMENT_BYTES_MAX, args_max: ARGUMENTS_MAX, authenticated };
        let (consumed, result) = self.reader.parse(buffer, &limits, 1, &mut self.batch);
        let found = (!self.batch.is_empty())
            .then(|| self.batch.args(buffer, 0).iter().map(Bytes::copy_from_slice).collect());
        buffer.advance(consumed);
        if found.is_none() {
            result?;
            if REQUEST_BYTES_MAX < buffer.len() {
                return Err(ProtocolError::InvalidBulkLength);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::resp::is_http;

    use super::*;

    fn all(input: &[u8], step: usize) -> Result<Vec<Vec<Bytes>>, ProtocolError> {
        let (mut requests, mut buffer, mut found) = (Requests::default(), BytesMut::new(), Vec::new());
        for piece in input.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(command) = requests.next(&mut buffer, Trust::Known)? {
                found.push(command);
            }
        }
        Ok(found)
    }

    #[test]
    fn commands_arrive_in_any_pieces() {
        let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\nPING \"a b\"\r\n\r\n*1\r\n$4\r\nPING\r\n";
        let whole = all(input, input.len()).unwrap();
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[1], vec![Bytes::from("PING"), Bytes::from("a b")]);
        for step in 1..input.len() {
            assert_eq!(all(input, step).unwrap(), whole, "{step}");
        }
    }

    #[test]
    fn strangers_are_limited() {
        assert_eq!(all(&b"*1\r\n".repeat(100_000), 1 << 20), Err(ProtocolError::ExpectedDollar(b'*')));
        assert_eq!(all(b"*9999\r\n", 9), Err(ProtocolError::InvalidMultibulkLength));
        assert_eq!(all(b"*1\r\n$-1\r\n", 9), Err(ProtocolError::InvalidBulkLength));
        assert_eq!(all(b"*1\r\n$4\r\nPINGab", 99), Err(ProtocolError::InvalidCrlf));
        assert_eq!(all(&[b'x'; 70_000], 70_000), Err(ProtocolError::TooBigInline));
        let mut large = b"*1000\r\n".to_vec();
        large.extend(format!("$60000\r\n{}\r\n", "x".repeat(60_000)).repeat(20).bytes());
        assert_eq!(all(&large, 10_000), Err(ProtocolError::InvalidBulkLength));
        let mut buffer = BytesMut::from(&b"PING\r\n*11\r\n"[..]);
        let mut requests = Requests::default();
        assert!(requests.next(&mut buffer, Trust::Stranger).unwrap().is_some());
        assert_eq!(
            requests.next(&mut buffer, Trust::Stranger),
            Err(ProtocolError::UnauthenticatedMultibulkLength)
        );
    }

    #[test]
    fn the_limits_of_strangers_end_with_authentication() {
        let mut buffer = BytesMut::from(&b"AUTH x\r\n*11\r\n$1\r\na\r\n"[..]);
        let mut requests = Requests::default();
        assert!(requests.next(&mut buffer, Trust::Stranger).unwrap().is_some());
        assert_eq!(requests.next(&mut buffer, Trust::Known), Ok(None));
    }

    #[test]
    fn http_is_known_by_its_first_words() {
        for (line, http) in
            [("POST / HTTP/1.1", true), ("host: a", true), ("GET / HTTP/1.1", false), ("PING", false)]
        {
            assert_eq!(is_http(&all(format!("{line}\r\n").as_bytes(), 100).unwrap()[0][0]), http, "{line}");
        }
    }
}
