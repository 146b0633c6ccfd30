//! What clients send, in one piece and cut in two: the same requests come of it.
#![no_main]

use keyward_proto::resp::{Batch, Limits, RequestReader};
use libfuzzer_sys::fuzz_target;

fn requests(pieces: &[&[u8]]) -> (Vec<Vec<Vec<u8>>>, bool) {
    let (mut reader, mut buffer, mut found) = (RequestReader::default(), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let mut batch = Batch::default();
            let (used, parsed) = reader.parse(&buffer, &Limits::default(), 16, &mut batch);
            for at in 0..batch.len() {
                found.push(batch.args(&buffer, at).iter().map(<[u8]>::to_vec).collect());
            }
            buffer.drain(..used);
            if parsed.is_err() {
                return (found, true);
            }
            if batch.is_empty() {
                break;
            }
        }
    }
    (found, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((at, data)) = data.split_first() else { return };
    let (left, right) = data.split_at(usize::from(*at).min(data.len()));
    assert_eq!(requests(&[data]), requests(&[left, right]));
});
