//! Where a reply ends, in bytes as they come.

/// Aggregates within aggregates; nobody sends as many.
const DEPTH_MAX: usize = 1024;
/// Of a line that is not complete yet.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What came is no RESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Whether a reply is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Part,
    End,
}

/// How far the reply is that comes now.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// How many values are to come in each of the aggregates that are open.
    open: Vec<u64>,
    /// Bytes to come of a string, with the end of its line.
    string_bytes: usize,
}

impl Frames {
    /// How many of these bytes belong to the reply that comes now, as far as they can be understood, and whether that is all
    /// of it. What is left of them is to come again, with more behind.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<(usize, Progress), Malformed> {
        let mut at = 0;
        loop {
            if 0 < self.string_bytes {
                let here = self.string_bytes.min(bytes.len() - at);
                self.string_bytes -= here;
                at += here;
                if 0 < self.string_bytes {
                    return Ok((at, Progress::Part));
                }
                if self.end_value() == Progress::End {
                    return Ok((at, Progress::End));
                }
                continue;
            }
            let Some(length) = bytes[at..].windows(2).position(|end| end == b"\r\n") else {
                let is_short = bytes.len() - at < LINE_BYTES_MAX;
                return if is_short { Ok((at, Progress::Part)) } else { Err(Malformed) };
            };
            let line = &bytes[at..at + length];
            at += length + 2;
            if self.take_line(line)? == Progress::End {
                return Ok((at, Progress::End));
            }
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Progress, Malformed> {
        let (kind, rest) = line.split_first().ok_or(Malformed)?;
        let count = || {
            let digits = std::str::from_utf8(rest).map_err(|_| Malformed)?;
            digits.parse::<i64>().map_err(|_| Malformed)
        };
        let values = match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => return Ok(self.end_value()),
            b'$' | b'=' | b'!' => {
                return match usize::try_from(count()?) {
                    Ok(length) => {
                        self.string_bytes = length.checked_add(2).ok_or(Malformed)?;
                        Ok(Progress::Part)
                    }
                    Err(_) => Ok(self.end_value()),
                };
            }
            b'*' | b'~' | b'>' => count()?,
            b'%' => count()?.checked_mul(2).ok_or(Malformed)?,
            // What they describe follows.
            b'|' => count()?.checked_mul(2).and_then(|values| values.checked_add(1)).ok_or(Malformed)?,
            _ => return Err(Malformed),
        };
        match u64::try_from(values) {
            Ok(values @ 1..) if self.open.len() < DEPTH_MAX => {
                self.open.push(values);
                Ok(Progress::Part)
            }
            Ok(1..) => Err(Malformed),
            Ok(0) | Err(_) => Ok(self.end_value()),
        }
    }

    /// A value is complete, and with it what it is the last of.
    fn end_value(&mut self) -> Progress {
        while let Some(values) = self.open.last_mut() {
            *values -= 1;
            if 0 < *values {
                return Progress::Part;
            }
            self.open.pop();
        }
        Progress::End
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: [&[u8]; 12] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-5\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"_\r\n",
        b"$0\r\n\r\n",
        b"$4\r\na\r\nb\r\n",
        b"*0\r\n",
        b"*3\r\n*2\r\n:1\r\n$1\r\nx\r\n*0\r\n%1\r\n+a\r\n#t\r\n",
        b">2\r\n+message\r\n~1\r\n,1.5\r\n",
        b"|1\r\n+ttl\r\n:5\r\n=5\r\ntxt:a\r\n",
    ];

    #[test]
    fn replies_end_where_they_end_however_they_come() {
        let all = REPLIES.concat();
        for piece in [1, 2, 3, 7, all.len()] {
            let (mut frames, mut buffer, mut reply) = (Frames::default(), Vec::new(), Vec::new());
            let mut found = Vec::new();
            for bytes in all.chunks(piece) {
                buffer.extend_from_slice(bytes);
                loop {
                    let (taken, progress) = frames.scan(&buffer).unwrap();
                    reply.extend(buffer.drain(..taken));
                    if progress == Progress::Part {
                        break;
                    }
                    found.push(std::mem::take(&mut reply));
                    if buffer.is_empty() {
                        break;
                    }
                }
            }
            assert_eq!(found, REPLIES, "in pieces of {piece}");
            assert!(buffer.is_empty() && reply.is_empty());
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in
            [&b"hello\r\n"[..], b"\r\n", b"$x\r\n", b"*9223372036854775808\r\n", b"%9223372036854775807\r\n"]
        {
            assert_eq!(Frames::default().scan(bytes), Err(Malformed), "{}", bytes.escape_ascii());
        }
        let nested = b"*1\r\n".repeat(DEPTH_MAX + 1);
        assert_eq!(Frames::default().scan(&nested), Err(Malformed));
        assert_eq!(Frames::default().scan(&vec![b'+'; LINE_BYTES_MAX]), Err(Malformed));
    }
}
