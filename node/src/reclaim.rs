//! Freeing what takes long to free, on a thread of its own: a flush stops the world for a moment only.

#![allow(clippy::disallowed_methods, reason = "a shell")]

/// Drops a value on another thread; here if the system has no thread to give.
pub fn drop_in_background<T: Send + 'static>(value: T) {
    let spawned = std::thread::Builder::new().name("reclaim".into()).spawn(move || drop(value));
    if let Err(error) = spawned {
        tracing::debug!(%error, "memory was freed in the foreground");
    }
}
