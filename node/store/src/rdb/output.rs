//! Writing lengths and strings, each in its shortest form.

use keyward_proto::resp::number::parse_i64;

use super::{ENCODED_INT8, ENCODED_INT16, ENCODED_INT32, ENCODED_LZF, LENGTH_32, LENGTH_64, lzf};

/// Whether strings are compressed: `rdbcompression`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    None,
    #[default]
    Lzf,
}

const ENCODED: u8 = 0xc0;
/// No integer of 32 bits has more digits.
const INTEGER_LEN_MAX: usize = 11;
/// Shorter strings gain nothing.
const COMPRESSED_LEN_MIN: usize = 21;
/// What compression has to save at least, for its longer header.
const COMPRESSION_GAIN_MIN: usize = 4;

pub(crate) fn push_length(len: u64, out: &mut Vec<u8>) {
    match len {
        0..0x40 => out.push(len as u8),
        0x40..0x4000 => out.extend_from_slice(&(len as u16 | 0x4000).to_be_bytes()),
        0x4000..=0xffff_ffff => {
            out.push(LENGTH_32);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
        _ => {
            out.push(LENGTH_64);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
}

/// Elements of a collection, or bytes of a string.
pub(crate) fn push_len(len: usize, out: &mut Vec<u8>) {
    push_length(len as u64, out);
}

pub(crate) fn push_text(text: &[u8], compression: Compression, out: &mut Vec<u8>) {
    if text.len() <= INTEGER_LEN_MAX
        && let Some(number) = parse_i64(text).and_then(|n| i32::try_from(n).ok())
    {
        return push_integer(number, out);
    }
    if compression == Compression::Lzf && COMPRESSED_LEN_MIN <= text.len() && push_compressed(text, out) {
        return;
    }
    push_len(text.len(), out);
    out.extend_from_slice(text);
}

fn push_integer(number: i32, out: &mut Vec<u8>) {
    if let Ok(small) = i8::try_from(number) {
        out.extend([ENCODED | ENCODED_INT8, small as u8]);
    } else if let Ok(small) = i16::try_from(number) {
        out.push(ENCODED | ENCODED_INT16);
        out.extend(small.to_le_bytes());
    } else {
        out.push(ENCODED | ENCODED_INT32);
        out.extend(number.to_le_bytes());
    }
}

/// Whether compression paid; if not, `out` is as before.
fn push_compressed(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if !lzf::compress(text, text.len() - COMPRESSION_GAIN_MIN, out) {
        return false;
    }
    // The header stands in front and has the compressed length in it: at most 19 bytes are moved in.
    let mut header = Vec::with_capacity(19);
    header.push(ENCODED | ENCODED_LZF);
    push_len(out.len() - start, &mut header);
    push_len(text.len(), &mut header);
    out.splice(start..start, header);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::Input;

    fn saved(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_text(text, Compression::Lzf, &mut out);
        out
    }

    #[test]
    fn lengths_have_four_forms() {
        for (len, bytes) in
            [(0, 1), (63, 1), (64, 2), (16_383, 2), (16_384, 5), (0xffff_ffff, 5), (1 << 32, 9)]
        {
            let mut out = Vec::new();
            push_length(len, &mut out);
            assert_eq!((out.len(), Input::new(&out).number()), (bytes, Ok(len)), "{len}");
        }
    }

    #[test]
    fn strings_are_integers_compressed_or_plain() {
        assert_eq!(saved(b"-128"), [0xc0, 0x80]);
        assert_eq!(saved(b"128"), [0xc1, 0x80, 0]);
        assert_eq!(saved(b"-2147483648"), [0xc2, 0, 0, 0, 0x80]);
        for text in [&b""[..], b"2147483648", b"007", b"-0", b"+1", b"1.5", b"abc"] {
            assert_eq!(saved(text), [&[text.len() as u8][..], text].concat());
        }
        let long = [b'x'; 100_000];
        assert!(saved(&long).starts_with(&[0xc3]) && saved(&long).len() < 2000);
        for text in [&b"-128"[..], b"12345", b"-2147483648", b"plain", &long] {
            let saved = saved(text);
            let mut input = Input::new(&saved);
            assert_eq!(&*input.text().unwrap(), text);
            assert!(input.is_empty());
            let mut input = Input::new(&saved);
            input.skip_text().unwrap();
            assert!(input.is_empty());
        }
    }
}
