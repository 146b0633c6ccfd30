//! When and how often a key was used: what an entry's access field means.
//!
//! As in Valkey 24 bits say it. Without an LFU policy they are the time of the last access in seconds, modulo
//! 2^24 (194 days). With one, the upper 16 are the time of the last decay in minutes, and the lower 8 a
//! logarithmic counter: each access raises it with a probability that falls as it grows, each `lfu-decay-time`
//! minutes lower it by one. The highest bit of the field says which of the two it is, as the policy may change: then
//! a time counts as a frequency of zero, and the last decay as the time of the last access.
//!
//! Pure: the time and the random number are arguments.

use std::cell::Cell;

use keyward_proto::time::Monotonic;

/// A new key starts with this, so that it is not evicted before it had a chance to be used.
const NEW_KEY_COUNTER: u8 = 5;
const SECONDS_MASK: u32 = 0xff_ffff;
const MINUTES_MASK: u32 = 0xffff;
/// Set in fields that are frequencies.
const IS_FREQUENCY: u32 = 1 << 31;

/// `lfu-log-factor` and `lfu-decay-time`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lfu {
    pub log_factor: u32,
    /// Minutes; zero: counters never fall.
    pub decay_minutes: u32,
}

/// What the access fields of keys used now are set to. By the monotonic clock: when the wall clock is set, the order in
/// which keys were used stays. Fields are meaningless to other nodes and to the next start; they go there as ages.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccessClock {
    seconds: u32,
    minutes: u32,
    /// `None`: times are noted, no frequencies.
    lfu: Option<Lfu>,
}

impl AccessClock {
    pub fn new(now: Monotonic, lfu: Option<Lfu>) -> AccessClock {
        let seconds = now.as_nanos() / 1_000_000_000;
        let masked = |n: u64, mask: u32| u32::try_from(n & u64::from(mask)).unwrap_or(0);
        AccessClock {
            seconds: masked(seconds, SECONDS_MASK),
            minutes: masked(seconds / 60, MINUTES_MASK),
            lfu,
        }
    }

    /// The field of a key used now, without an LFU policy: INFO shows it.
    pub fn seconds(&self) -> u32 {
        self.seconds
    }

    pub fn is_lfu(&self) -> bool {
        self.lfu.is_some()
    }

    /// The field of a key that is created now.
    #[inline]
    pub fn of_new_key(&self) -> u32 {
        match self.lfu {
            None => self.seconds,
            Some(_) => self.from_frequency(NEW_KEY_COUNTER),
        }
    }

    /// The field of a key with this field that is used now.
    #[inline]
    pub fn touched(&self, access: u32, random: u32) -> u32 {
        match self.lfu {
            None => self.seconds,
            Some(lfu) => {
                let counter = decayed(access, self.minutes, lfu.decay_minutes);
                self.from_frequency(raised(counter, lfu.log_factor, random))
            }
        }
    }

    /// Seconds since the last access.
    pub fn idle_seconds(&self, access: u32) -> u32 {
        if access & IS_FREQUENCY == 0 {
            self.seconds.wrapping_sub(access) & SECONDS_MASK
        } else {
            minutes_between(access, self.minutes) * 60
        }
    }

    /// The counter, as it has fallen until now.
    pub fn frequency(&self, access: u32) -> u8 {
        decayed(access, self.minutes, self.lfu.map_or(0, |lfu| lfu.decay_minutes))
    }

    /// The field of a key that was last used so long ago: RESTORE with IDLETIME, a key read from an RDB file.
    pub fn from_idle_seconds(&self, idle: u64) -> u32 {
        let idle = u32::try_from(idle).unwrap_or(SECONDS_MASK).min(SECONDS_MASK);
        self.seconds.wrapping_sub(idle) & SECONDS_MASK
    }

    /// The field of a key with this counter: RESTORE with FREQ, a key read from an RDB file.
    #[inline]
    pub fn from_frequency(&self, counter: u8) -> u32 {
        IS_FREQUENCY | self.minutes << 8 | u32::from(counter)
    }
}

/// From the last decay of a field that is a frequency.
fn minutes_between(access: u32, now_minutes: u32) -> u32 {
    now_minutes.wrapping_sub(access >> 8) & MINUTES_MASK
}

fn decayed(access: u32, now_minutes: u32, decay_minutes: u32) -> u8 {
    if access & IS_FREQUENCY == 0 {
        return 0;
    }
    let counter = (access & 0xff) as u8;
    let periods = minutes_between(access, now_minutes).checked_div(decay_minutes).unwrap_or(0);
    counter.saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
}

/// One more access: the counter grows with probability 1 / ((counter - 5) * factor + 1).
fn raised(counter: u8, log_factor: u32, random: u32) -> u8 {
    let base = u64::from(counter.saturating_sub(NEW_KEY_COUNTER));
    let one_in = base * u64::from(log_factor) + 1;
    if u64::from(random) * one_in < 1 << 32 { counter.saturating_add(1) } else { counter }
}

/// A linear congruential generator: its upper bits are good enough to throw a coin with.
pub(crate) fn next_random(state: &Cell<u32>) -> u32 {
    state.set(state.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    state.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LFU: Option<Lfu> = Some(Lfu { log_factor: 10, decay_minutes: 1 });

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn idle_time_survives_the_wrap_of_the_clock() {
        let before = AccessClock::new(at(0xff_fffe), None).of_new_key();
        let now = AccessClock::new(at(0x100_0003), None);
        assert_eq!(now.idle_seconds(before), 5);
        assert_eq!(now.idle_seconds(now.from_idle_seconds(9)), 9);
        assert_eq!(now.idle_seconds(now.from_idle_seconds(u64::MAX)), SECONDS_MASK);
    }

    #[test]
    fn a_field_keeps_its_meaning_when_the_policy_changes() {
        for start in [0, 17, 255, 10_000, 0xff_fff0] {
            let (recency, frequency) = (AccessClock::new(at(start), None), AccessClock::new(at(start), LFU));
            let used = frequency.touched(recency.of_new_key(), 0);
            assert_eq!((frequency.frequency(recency.of_new_key()), frequency.frequency(used)), (0, 1));
            let later = AccessClock::new(at(start + 240), None);
            assert!((180..=240).contains(&later.idle_seconds(frequency.of_new_key())), "after {start}");
        }
    }

    #[test]
    fn a_counter_falls_by_one_per_decay_time() {
        let access = AccessClock::new(Monotonic::ZERO, LFU).from_frequency(100);
        let after = |minutes: u64, decay_minutes| {
            AccessClock::new(at(minutes * 60), Some(Lfu { log_factor: 10, decay_minutes })).frequency(access)
        };
        assert_eq!([after(0, 1), after(30, 1), after(30, 7), after(500, 1)], [100, 70, 96, 0]);
        assert_eq!(after(500, 0), 100);
    }

    #[test]
    fn a_counter_grows_with_the_logarithm_of_the_accesses() {
        // The table of valkey.conf for a factor of 10: 1000 hits give 18, 100000 give 142; 1M saturate.
        let clock = AccessClock::new(Monotonic::ZERO, LFU);
        let mut state = 1u64;
        let mut counter_after = |hits: u32| {
            let mut access = clock.of_new_key();
            for _ in 0..hits {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                access = clock.touched(access, (state >> 32) as u32);
            }
            clock.frequency(access)
        };
        assert!((12..=24).contains(&counter_after(1000)));
        assert!((125..=160).contains(&counter_after(100_000)));
        assert_eq!(counter_after(2_000_000), 255);
    }
}
