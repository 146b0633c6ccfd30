//! Who may look on all the time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Streams of events at a time. Whoever comes when there are so many is told to ask for `/status` now and then.
const ALL_MAX: usize = 64;
/// Of one host, unless it is this one, so that none takes all of them.
const OF_ONE_HOST_MAX: usize = 32;

/// How many look on from which host.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// Counts until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    host: IpAddr,
}

impl Seats {
    /// `None`: there are too many.
    pub(super) fn take(&self, host: IpAddr) -> Option<Seat> {
        let host = host.to_canonical();
        let mut taken = self.0.lock();
        let of_host = taken.get(&host).copied().unwrap_or(0);
        if ALL_MAX <= taken.values().sum() || !host.is_loopback() && OF_ONE_HOST_MAX <= of_host {
            return None;
        }
        taken.insert(host, of_host + 1);
        Some(Seat { seats: self.clone(), host })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock();
        match taken.get_mut(&self.host) {
            Some(count) if 1 < *count => *count -= 1,
            _ => _ = taken.remove(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_takes_all_seats() {
        let seats = Seats::default();
        let host = |n: u8| IpAddr::from([10, 0, 0, n]);
        let take = |n: u8| -> Vec<Seat> { std::iter::from_fn(|| seats.take(host(n))).collect() };
        let (first, second) = (take(1), take(2));
        assert_eq!((first.len(), second.len()), (OF_ONE_HOST_MAX, ALL_MAX - OF_ONE_HOST_MAX));
        assert!(seats.take(host(3)).is_none());
        drop(first);
        assert_eq!(take(3).len(), OF_ONE_HOST_MAX);
        drop(second);
        assert!(seats.0.lock().is_empty(), "what is given back is forgotten");
    }
}
