//! Waiting for the commands that I/O threads are inside of, one wait at a time: whoever asks meanwhile is answered after
//! the next one, so that a command that never ends keeps one thread and not one for each question.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;

use keyward_replication::core::messages::{Event, QuiesceId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::shared::Engine;
use super::task::{Input, send};
use crate::control;

#[derive(Debug, Default)]
pub(crate) struct Quiescing {
    questions: Mutex<Questions>,
}

#[derive(Debug, Default)]
struct Questions {
    asked: Vec<QuiesceId>,
    is_waiting: bool,
}

impl Quiescing {
    /// Answers with [`Event::Quiesced`].
    pub(crate) fn ask(
        self: &Arc<Self>,
        id: QuiesceId,
        engine: &Arc<dyn Engine>,
        inputs: &mpsc::Sender<Input>,
    ) {
        let mut questions = self.questions.lock();
        questions.asked.push(id);
        if !std::mem::replace(&mut questions.is_waiting, true) {
            tokio::spawn(Arc::clone(self).answer(Arc::clone(engine), inputs.clone()));
        }
    }

    async fn answer(self: Arc<Self>, engine: Arc<dyn Engine>, inputs: mpsc::Sender<Input>) {
        while let Some(asked) = self.next() {
            let engine = Arc::clone(&engine);
            if control::blocking(move || engine.quiesce()).await.is_err() {
                return;
            }
            for id in asked {
                send(&inputs, Event::Quiesced(id)).await;
            }
        }
    }

    fn next(&self) -> Option<Vec<QuiesceId>> {
        let mut questions = self.questions.lock();
        questions.is_waiting = !questions.asked.is_empty();
        questions.is_waiting.then(|| std::mem::take(&mut questions.asked))
    }
}
