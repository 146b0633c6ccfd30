//! What a stranger says at the begin of a connection between nodes and sentinels: nobody is let in who does not know the
//! secret, on either side.
#![no_main]

use keyward_proto::bus::handshake::{Claiming, GREETING_BYTES, MAGIC, judge};
use keyward_proto::bus::{Identity, Secrets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let secrets = Secrets::parse(b"the secret of the cluster").expect("it is long enough");
    let nonce = [7; 32];
    // As a server: the claim, and the name and role in it, are whatever comes.
    if let Some((head, body)) = data.split_first_chunk() {
        let verdict = judge(&nonce, *head, body, &secrets);
        assert!(verdict.peer.is_err());
        assert!(verdict.bytes.len() <= 2 + 255);
    }
    // As a client: the greeting, then the verdict.
    let Some((greeting, rest)) = data.split_first_chunk::<GREETING_BYTES>() else { return };
    let me = Identity::operator();
    match Claiming::answer(greeting, &me, &nonce, &secrets) {
        Err(_) => assert!(!greeting.starts_with(MAGIC)),
        Ok((_, claiming)) => {
            if let Some((head, body)) = rest.split_first_chunk() {
                assert!(claiming.conclude(*head, body).is_err());
            }
        }
    }
});
