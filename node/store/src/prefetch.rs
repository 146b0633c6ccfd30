//! Asks the processor for a cache line before it is needed: one of the two modules with `unsafe`.
//!
//! In a keyspace that is larger than the caches, a lookup waits for memory several times longer than it computes.
//! A batch of commands can have all its lookups under way at once, but only if the processor is told: it does not
//! see far enough ahead by itself.

#![allow(unsafe_code, reason = "the instruction takes a raw pointer")]

/// Starts to load the cache line at an address. Any address is fine: it is a hint, nothing is read.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is part of every x86-64 processor and does not fault, whatever the address is.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above, for every 64-bit ARM processor.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
