//! What a process shows of itself over HTTP, to monitoring and to whoever starts and stops it: `/metrics`, `/healthz` (it
//! makes progress), `/readyz` (it can do what its role is) and `/flight` (what happened lately). Without a password; nothing can be changed here.
//!
//! A question is one connection, with a bound on their number, their time and what is read of them, so that this port
//! takes nothing away from the others. Who comes when there are too many takes the place of who has been there for longest:
//! an answer takes no time, and whoever is silent must not keep out a supervisor, which would restart a healthy process.

#![allow(clippy::disallowed_methods, reason = "a shell")]

mod page;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use keyward_proto::crowd::CrowdLimits;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::crowd::Visitors;

pub use page::{Histogram, Labels, Page, flag, float, label};

/// Of the OpenMetrics specification, version 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CONNECTIONS: CrowdLimits = CrowdLimits { all: 64, of_one_host: 32 };
/// For a whole connection.
const PATIENCE: Duration = Duration::from_secs(10);
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// After an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

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
    let mut open = Visitors::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let routes = routes.clone();
                _ = open.spawn(address.ip(), |visit| async move {
                    if let Ok(Err(error)) = timeout(PATIENCE, answer_one(stream, routes)).await {
                        tracing::debug!(%error, "a question over HTTP broke off");
                    }
                    drop(visit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept on the port for metrics");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer_one(stream: TcpStream, routes: Router) -> hyper::Result<()> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await
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
