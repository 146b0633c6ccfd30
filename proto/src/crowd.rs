//! Who makes room when too many connections are open of which nothing is known yet.
//!
//! Whoever comes is let in. If there are too many, the one of the same host, or of the host with the most, that is there for
//! longest goes: what is legitimate is over within milliseconds, what stays is silent. So hosts that hold many connections
//! displace their own, and a flood from one host keeps nobody out who comes from another.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is let in at most.
#[derive(Debug, Clone, Copy)]
pub struct CrowdLimits {
    /// In all.
    pub all: usize,
    /// Of one host, unless it is this one: there hundreds of processes may start at once.
    pub of_one_host: usize,
}

/// A connection among those that are there; later ones have greater numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Visitor(u64);

/// Who is there, and since when in relation to the others.
#[derive(Debug)]
pub struct Crowd {
    limits: CrowdLimits,
    /// From the one that is there for longest on.
    visitors: BTreeMap<Visitor, IpAddr>,
    /// Hosts without visitors are not kept.
    counts: BTreeMap<IpAddr, usize>,
    next: u64,
}

impl Crowd {
    pub fn new(limits: CrowdLimits) -> Crowd {
        Crowd { limits, visitors: BTreeMap::new(), counts: BTreeMap::new(), next: 0 }
    }

    /// The newcomer, and who has to go for it.
    pub fn enter(&mut self, host: IpAddr) -> (Visitor, Option<Visitor>) {
        let displaced = self.crowded(host).and_then(|host| self.oldest(host));
        if let Some(visitor) = displaced {
            self.leave(visitor);
        }
        let visitor = Visitor(self.next);
        self.next += 1;
        self.visitors.insert(visitor, host);
        *self.counts.entry(host).or_default() += 1;
        (visitor, displaced)
    }

    /// It is done, or something is known of it now. One that has gone already stays gone.
    pub fn leave(&mut self, visitor: Visitor) {
        let Some(host) = self.visitors.remove(&visitor) else { return };
        match self.counts.get_mut(&host) {
            Some(count) if 1 < *count => *count -= 1,
            _ => _ = self.counts.remove(&host),
        }
    }

    pub fn is_there(&self, visitor: Visitor) -> bool {
        self.visitors.contains_key(&visitor)
    }

    /// The host that has too many when one more comes from `host`.
    fn crowded(&self, host: IpAddr) -> Option<IpAddr> {
        let of_host = self.counts.get(&host).copied().unwrap_or(0);
        if !host.is_loopback() && self.limits.of_one_host <= of_host {
            return Some(host);
        }
        let is_full = self.limits.all <= self.visitors.len();
        is_full.then(|| self.counts.iter().max_by_key(|(_, count)| **count).map(|(host, _)| *host)).flatten()
    }

    fn oldest(&self, host: IpAddr) -> Option<Visitor> {
        self.visitors.iter().find(|(_, of)| **of == host).map(|(visitor, _)| *visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMITS: CrowdLimits = CrowdLimits { all: 8, of_one_host: 3 };

    fn host(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn entered(crowd: &mut Crowd, host: IpAddr, times: usize) -> (Vec<Visitor>, Vec<Visitor>) {
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let (visitor, displaced) = crowd.enter(host);
            came.push(visitor);
            went.extend(displaced);
        }
        (came, went)
    }

    #[test]
    fn a_host_with_many_displaces_its_own_oldest() {
        let mut crowd = Crowd::new(LIMITS);
        let (other, _) = entered(&mut crowd, host(2), 1);
        let (came, went) = entered(&mut crowd, host(1), 10);
        assert_eq!(went, came[..7]);
        assert_eq!(crowd.visitors.keys().collect::<Vec<_>>(), [&other[0], &came[7], &came[8], &came[9]]);
    }

    #[test]
    fn this_host_may_have_all_places_and_makes_room_for_others() {
        let mut crowd = Crowd::new(LIMITS);
        let (here, went) = entered(&mut crowd, Ipv4Addr::LOCALHOST.into(), 8);
        assert_eq!(went, []);
        let (_, went) = entered(&mut crowd, host(1), 1);
        assert_eq!(went, here[..1]);
        // As long as it has the most.
        let (_, went) = entered(&mut crowd, host(1), 2);
        assert_eq!(went, here[1..3]);
        let (_, went) = entered(&mut crowd, Ipv4Addr::LOCALHOST.into(), 1);
        assert_eq!(went, here[3..4]);
    }

    #[test]
    fn who_has_left_takes_no_place_and_nothing_is_kept() {
        let mut crowd = Crowd::new(LIMITS);
        for last in 0..100 {
            let (visitor, displaced) = crowd.enter(host(last));
            assert_eq!(displaced, None);
            crowd.leave(visitor);
            crowd.leave(visitor);
        }
        assert!(crowd.visitors.is_empty() && crowd.counts.is_empty());
    }

    #[test]
    fn the_bounds_hold_whoever_comes() {
        let mut crowd = Crowd::new(LIMITS);
        for n in 0..1000_u32 {
            // Any order that mixes hosts.
            let from = (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 6;
            let from = if from == 0 { Ipv4Addr::LOCALHOST.into() } else { host(from) };
            crowd.enter(from);
            assert!(crowd.visitors.len() <= LIMITS.all);
            assert_eq!(crowd.counts.values().sum::<usize>(), crowd.visitors.len());
            for (host, count) in &crowd.counts {
                assert!(host.is_loopback() || *count <= LIMITS.of_one_host);
            }
        }
    }
}
