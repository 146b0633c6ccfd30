//! The bounded queues in which published messages wait for other nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyward_replication::reply::ReplyCondition;
use tokio::sync::mpsc;

use crate::message::Message;

/// Messages that may wait in a queue, and their bytes; further ones are dropped.
const QUEUE_MAX: usize = 4096;
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// A message in a queue: it counts there as long as this lives.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) message: Message,
    /// What has to be true before it is passed on.
    pub(super) condition: ReplyCondition,
    queue_bytes: Arc<AtomicUsize>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.queue_bytes.fetch_sub(self.message.len_bytes(), Ordering::Relaxed);
    }
}

/// The end of a queue at which messages are left; bounded in messages and in bytes.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: mpsc::Sender<Queued>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    pub(super) fn new() -> (Queue, mpsc::Receiver<Queued>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        (Queue { sender, bytes: Arc::default() }, receiver)
    }

    /// False: too much waits, and the message is dropped. One message may be longer than all may be together.
    pub(super) fn push(&self, message: Message, condition: ReplyCondition) -> bool {
        let len_bytes = message.len_bytes();
        let before = self.bytes.fetch_add(len_bytes, Ordering::Relaxed);
        let queued = Queued { message, condition, queue_bytes: Arc::clone(&self.bytes) };
        let fits = before == 0 || before + len_bytes <= QUEUE_BYTES_MAX;
        fits && self.sender.try_send(queued).is_ok()
    }
}

/// Where I/O threads leave messages.
#[derive(Debug, Clone)]
pub struct Relay(pub(super) Queue);

impl Relay {
    /// Queues a message for all peers; it leaves when `condition` is met.
    pub fn publish(&self, message: Message, condition: ReplyCondition) {
        if !self.0.push(message, condition) {
            tracing::debug!("a message for other nodes was dropped: too many wait");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ChannelKind;

    #[test]
    fn a_queue_is_bounded_in_bytes_and_in_messages() {
        let message = |len: usize| Message::new(b"c", &vec![b'x'; len], ChannelKind::Global);
        let (queue, mut receiver) = Queue::new();
        let push = |len| queue.push(message(len), ReplyCondition::default());
        assert!(push(QUEUE_BYTES_MAX + 1), "the only one");
        assert!(!push(0));
        drop(receiver.try_recv().unwrap());
        assert!((0..4).all(|_| push(QUEUE_BYTES_MAX / 4 - 1)));
        assert!(!push(0));
        (0..4).for_each(|_| drop(receiver.try_recv().unwrap()));
        assert!((0..QUEUE_MAX).all(|_| push(0)));
        assert!(!push(0));
        assert_eq!(queue.bytes.load(Ordering::Relaxed), QUEUE_MAX);
        drop(receiver);
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
    }
}
