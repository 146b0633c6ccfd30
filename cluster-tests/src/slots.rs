//! The slot of a key as a client of another make computes it: by the crate `crc16`, not by the tables of the servers.

use keyward_proto::slot::{SLOT_COUNT, Slot, hash_tag};

pub fn slot_of(key: &[u8]) -> Slot {
    let crc = crc16::State::<crc16::XMODEM>::calculate(hash_tag(key));
    Slot::new(crc % SLOT_COUNT).expect("a remainder is below the number of slots")
}
