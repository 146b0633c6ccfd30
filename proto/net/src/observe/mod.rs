//! What a process shows of itself over HTTP, to monitoring and to whoever starts and stops it: `/metrics`, `/healthz` (it
//! makes progress), `/readyz` (it can do what its role is) and `/flight` (what happened lately). Without a password; nothing can be changed here.
//!
//! Whoever is silent there must not keep out a supervisor, which would restart a healthy process: see [`crate::http`].

mod page;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::http::{self, PlainDoor};

pub use page::{Histogram, Labels, Page, flag, float, label};

/// Of the OpenMetrics specification, version 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether all is well, and in words what is or is not.
pub type Word = Result<String, String>;

/// A process that shows itself.
pub trait Observed: Send + Sync + 'static {
    /// As it is now.
    fn page(&self) -> Page;

    /// Whether its loops answer: who starts it anew goes by this.
    fn health(&self) -> Word;

    /// Whether it can do what its role is.
    fn readiness(&self) -> Word;

    /// What its flight recorder remembers; `None`: nothing yet.
    fn flight(&self) -> Option<String>;
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, observed: Arc<dyn Observed>) {
    let routes = Router::new()
        .route("/", get(async || "/metrics /healthz /readyz /flight\n"))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async |State(observed): Observing| answer(observed.health())))
        .route("/readyz", get(async |State(observed): Observing| answer(observed.readiness())))
        .route("/flight", get(flight))
        .with_state(observed);
    http::serve(listener, Arc::new(PlainDoor), routes).await;
}

type Observing = State<Arc<dyn Observed>>;

async fn metrics(State(observed): Observing) -> Response {
    ([(CONTENT_TYPE, OPEN_METRICS)], observed.page().text()).into_response()
}

async fn flight(State(observed): Observing) -> Response {
    match observed.flight() {
        Some(text) => ([(CONTENT_TYPE, "application/jsonl")], text).into_response(),
        None => (StatusCode::NOT_FOUND, "nothing is recorded: no part of a cluster yet\n").into_response(),
    }
}

fn answer(word: Word) -> Response {
    match word {
        Ok(words) => format!("{words}\n").into_response(),
        Err(words) => (StatusCode::SERVICE_UNAVAILABLE, format!("{words}\n")).into_response(),
    }
}
