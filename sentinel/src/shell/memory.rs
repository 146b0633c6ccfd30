//! The flight recorder of this sentinel, and where its recordings go.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;
use std::time::Duration;

use keyward_net::clock::monotonic as now;
use keyward_net::flight::{self, Flights, Keeping};
use keyward_proto::topology::Topology;
use openraft::{Entry, EntryPayload};
use parking_lot::Mutex;

use crate::rules::coordinator::{Action, Event};
use crate::rules::recorder::{Occasion, Recorder};
use crate::shell::raft::{Metrics, TypeConfig};

/// Whoever has the recorder holds it for an instant, unless it has panicked.
const PATIENCE: Duration = Duration::from_millis(100);

/// What this sentinel remembers.
#[derive(Debug)]
pub struct Memory {
    recorder: Arc<Mutex<Recorder>>,
    pub(crate) flights: Arc<Flights>,
}

impl Memory {
    pub fn new(name: &str, keeping: &Keeping) -> Memory {
        let recorder = Arc::new(Mutex::new(Recorder::default()));
        let (made_of, name) = (Arc::clone(&recorder), name.to_owned());
        let make = move |why: &str| {
            let header = flight::header("sentinel", env!("CARGO_PKG_VERSION"), (&name, &name), why);
            let recorder = made_of.try_lock_for(PATIENCE)?;
            let recording = recorder.recording(header);
            drop(recorder);
            Some(recording.text())
        };
        Memory { recorder, flights: Flights::new(keeping, Box::new(make)) }
    }

    pub(crate) fn knows(&self, topology: &Topology) {
        self.recorder.lock().knows(now(), topology);
    }

    /// Before it is.
    pub(crate) fn applied(&self, entry: &Entry<TypeConfig>) {
        let EntryPayload::Normal(batch) = &entry.payload else { return };
        if self.recorder.lock().applied(now(), entry.log_id.index, batch) == Occasion::Failover {
            self.flights.occasion();
        }
    }

    pub(crate) fn leads(&self, metrics: &Metrics) {
        self.recorder.lock().leader(now(), metrics.current_term, metrics.current_leader);
    }

    pub(crate) fn heard(&self, event: &Event) {
        self.recorder.lock().heard(now(), event);
    }

    pub(crate) fn did(&self, actions: &[Action]) {
        let mut recorder = self.recorder.lock();
        actions.iter().for_each(|action| recorder.did(now(), action));
    }
}
