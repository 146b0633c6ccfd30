//! Whether a replica and its primary hear each other.
//!
//! A primary that speaks but hears nobody is as good as silent: it commits nothing and soon holds no lease, and only
//! its replicas can tell. So each of its messages says for how long it has received no acknowledgement of the replica,
//! and what a replica measures is not the age of the last message alone: if its own acknowledgements are not heard, it
//! is the age of the first of those. An acknowledgement that was never sent (a stuck disk, a failover that was asked
//! for) is not missed. Both ages are of this node's clock.
//!
//! A matter of liveness alone: contact that is lost for `grace` makes a replica ask the sentinels for another primary.
//! They decide, and the next primary waits for its promise, whoever asked and why.

use std::time::Duration;

use keyward_proto::time::Monotonic;

#[derive(Debug)]
pub(crate) struct Contact {
    heard_at: Monotonic,
    /// When the first acknowledgement left of those that the primary has not shown to have heard.
    unconfirmed_since: Option<Monotonic>,
}

impl Contact {
    /// As good as heard.
    pub(crate) fn new(now: Monotonic) -> Self {
        Contact { heard_at: now, unconfirmed_since: None }
    }

    /// A message that says nothing of acknowledgements.
    pub(crate) fn heard(&mut self, now: Monotonic) {
        *self = Contact::new(now);
    }

    /// A message of a primary that has received no acknowledgement for `unheard`; for up to `patience` that means
    /// nothing.
    pub(crate) fn heard_with_echo(&mut self, now: Monotonic, unheard: Duration, patience: Duration) {
        self.heard_at = now;
        if unheard <= patience {
            self.unconfirmed_since = None;
        }
    }

    pub(crate) fn acknowledged(&mut self, now: Monotonic) {
        self.unconfirmed_since.get_or_insert(now);
    }

    pub(crate) fn heard_at(&self) -> Monotonic {
        self.heard_at
    }

    /// When both directions were last known to work.
    pub(crate) fn mutual_at(&self) -> Monotonic {
        self.unconfirmed_since.map_or(self.heard_at, |at| at.min(self.heard_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(60);

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    /// A beacon every 40 ms until `until`; from `deaf_from` on the primary hears no acknowledgement any more.
    fn beacons(contact: &mut Contact, until: u64, deaf_from: u64, acknowledges: impl Fn(u64) -> bool) {
        let mut confirmed_at = 0;
        for now in (0..=until).step_by(40) {
            contact.heard_with_echo(at(now), Duration::from_millis(now - confirmed_at), PATIENCE);
            if acknowledges(now) {
                contact.acknowledged(at(now));
                if now < deaf_from {
                    confirmed_at = now;
                }
            }
        }
    }

    #[test]
    fn acknowledgements_that_are_heard_are_contact() {
        let mut contact = Contact::new(at(0));
        beacons(&mut contact, 1000, u64::MAX, |_| true);
        assert_eq!(contact.mutual_at(), at(1000));
    }

    #[test]
    fn a_deaf_primary_is_as_good_as_a_silent_one() {
        let mut contact = Contact::new(at(0));
        beacons(&mut contact, 1000, 400, |_| true);
        assert_eq!(contact.heard_at(), at(1000));
        assert_eq!(contact.mutual_at(), at(400), "the first acknowledgement that was lost");
        contact.heard_with_echo(at(1040), Duration::from_millis(20), PATIENCE);
        assert_eq!(contact.mutual_at(), at(1040), "it hears again");
    }

    #[test]
    fn who_acknowledges_nothing_is_not_missed() {
        let mut contact = Contact::new(at(0));
        beacons(&mut contact, 1000, u64::MAX, |now| now < 400);
        assert_eq!(contact.mutual_at(), at(1000));
    }

    #[test]
    fn silence_counts_from_the_last_message() {
        let mut contact = Contact::new(at(0));
        contact.heard_with_echo(at(100), Duration::ZERO, PATIENCE);
        contact.acknowledged(at(110));
        assert_eq!(contact.mutual_at(), at(100));
    }
}
