//! Tasks for connections of which nothing is known yet, of which the oldest ends when there are too many: the rule is
//! [`keyward_proto::crowd`].

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use keyward_proto::crowd::{Crowd, CrowdLimits, Visitor};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// The connections that are there, for the one task that accepts them.
#[derive(Debug)]
pub struct Visitors(Arc<Mutex<Inner>>);

/// Held for a few lines at a time.
#[derive(Debug)]
struct Inner {
    crowd: Crowd,
    tasks: BTreeMap<Visitor, AbortHandle>,
}

/// One of them; it counts until this is dropped, and is not ended any more then.
#[derive(Debug)]
pub struct Visit {
    inner: Arc<Mutex<Inner>>,
    visitor: Visitor,
}

impl Visitors {
    pub fn new(limits: CrowdLimits) -> Visitors {
        Visitors(Arc::new(Mutex::new(Inner { crowd: Crowd::new(limits), tasks: BTreeMap::new() })))
    }

    /// A task for a connection from `host`.
    pub fn spawn<F>(&mut self, host: IpAddr, task: impl FnOnce(Visit) -> F) -> Displaced
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (visitor, ended) = self.0.lock().enter(host.to_canonical());
        if let Some(task) = &ended {
            task.abort();
        }
        // Not under the lock, which the end of a visit takes.
        let task = tokio::spawn(task(Visit { inner: Arc::clone(&self.0), visitor }));
        self.0.lock().keep(visitor, task.abort_handle());
        if ended.is_some() { Displaced::Another } else { Displaced::Nobody }
    }
}

impl Inner {
    fn enter(&mut self, host: IpAddr) -> (Visitor, Option<AbortHandle>) {
        let (visitor, displaced) = self.crowd.enter(host);
        (visitor, displaced.and_then(|displaced| self.tasks.remove(&displaced)))
    }

    /// Unless it has left already.
    fn keep(&mut self, visitor: Visitor, task: AbortHandle) {
        if self.crowd.is_there(visitor) {
            self.tasks.insert(visitor, task);
        }
    }
}

/// Who had to end for a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Displaced {
    Nobody,
    Another,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let inner = &mut *self.inner.lock();
        inner.crowd.leave(self.visitor);
        inner.tasks.remove(&self.visitor);
    }
}
