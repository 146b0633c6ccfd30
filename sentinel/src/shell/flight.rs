//! The flight recorder of this sentinel, and where its recordings go.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;

use keyward_net::clock::monotonic as now;
use keyward_net::flight::{Flights, Keeping, Subject};
use keyward_proto::flight::Occasion;
use keyward_proto::topology::Topology;
use openraft::{Entry, EntryPayload};
use parking_lot::Mutex;

use crate::rules::coordinator::{Action, Event};
use crate::rules::recorder::Recorder;
use crate::shell::raft::{Metrics, TypeConfig};

/// What this sentinel has heard, decided and done lately.
#[derive(Debug)]
pub struct Flight {
    recorder: Arc<Mutex<Recorder>>,
    pub(crate) recordings: Arc<Flights>,
}

impl Flight {
    pub fn new(name: &str, keeping: &Keeping) -> Flight {
        let recorder = Arc::new(Mutex::new(Recorder::default()));
        let version = env!("CARGO_PKG_VERSION");
        let subject = Subject { program: "sentinel", version, id: name.to_owned(), name: name.to_owned() };
        let make = subject
            .made_of(Arc::clone(&recorder), |recorder: &Recorder, header| Some(recorder.recording(header)));
        Flight { recorder, recordings: Flights::new(keeping, make) }
    }

    pub(crate) fn knows(&self, topology: &Topology) {
        self.recorder.lock().knows(now(), topology);
    }

    /// Before it is.
    pub(crate) fn applied(&self, entry: &Entry<TypeConfig>) {
        let EntryPayload::Normal(batch) = &entry.payload else { return };
        if self.recorder.lock().applied(now(), entry.log_id.index, batch) == Occasion::Failover {
            self.recordings.occasion();
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
