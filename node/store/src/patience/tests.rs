#![allow(clippy::disallowed_methods, reason = "another thread is marked")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use keyward_proto::slot::Slot;

use super::*;
use crate::Keyspace;
use crate::world::World;

#[test]
fn a_marked_thread_takes_no_lock_that_a_command_may_hold() {
    let (keyspace, world) = (Keyspace::default(), World::default());
    let slot = Slot::of(b"k");
    let checked = std::thread::spawn(move || {
        drop(keyspace.lock(slot));
        wait_for_no_command();
        let refused = |f: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(f)).is_err();
        let all = [
            refused(&mut || drop(keyspace.lock(slot))),
            refused(&mut || drop(world.stop())),
            refused(&mut || world.quiesce()),
            refused(&mut || drop(world.add_thread())),
        ];
        while_waiting(|| drop(keyspace.lock(slot)));
        (all, refused(&mut || drop(keyspace.lock(slot))))
    });
    let (all, again) = checked.join().unwrap();
    assert_eq!((all, again), ([cfg!(debug_assertions); 4], cfg!(debug_assertions)));
}
