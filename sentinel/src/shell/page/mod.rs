//! The page of the sentinels (`--http-port`): what `status` shows, live, for a browser. All of it is in the program; nothing
//! is loaded from elsewhere.
//!
//! - `/`, `/page.css`, `/page.js`, `/icon.svg`: the page
//! - `/status`: the report as JSON; `/events`: the same, again and again, as server-sent events
//! - `/timeline`: all changes of primaries that are remembered, as JSON
//! - `/about`: which sentinel this is, and whether one can do something here; `/handoff`: hands a shard's primary over, for
//!   whoever has the token
//!
//! Any sentinel serves it. It shows what their leader says, and while there is none, what it knows itself. However many
//! look on, there is one report for all of them, which costs the nodes no question ([`snapshot`]).
#![allow(clippy::disallowed_methods, reason = "shell: serves HTTP")]

mod seats;
mod snapshot;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use keyward_net::clock::monotonic as now;
use keyward_net::http::{self, Guest, PlainDoor};
use keyward_proto::rpc;
use keyward_proto::rpc::admin_request::Command;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use tracing::{info, warn};

use crate::rules::admin::done;
use crate::rules::admin_token::{AdminToken, Denied, Guard, Line};
use crate::shell::control::{ADMIN_LIMIT, admin};
use crate::shell::page::seats::Seats;
use crate::shell::page::snapshot::Snapshots;
use crate::shell::resp::Tls;
use crate::shell::sentinel::Sentinel;

/// Hand-offs that are asked for here at a time.
const ACTIONS_MAX: usize = 4;
const BODY_BYTES_MAX: usize = 4096;

/// Nothing from elsewhere, nothing inline, nothing in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("icon.svg");

#[derive(Debug)]
struct Site {
    sentinel: Arc<Sentinel>,
    token: Option<AdminToken>,
    /// Held for a few lines.
    guard: Mutex<Guard>,
    snapshots: Snapshots,
    seats: Seats,
    actions: Semaphore,
}

/// Serves until the task is dropped.
pub(crate) async fn serve(
    sentinel: Arc<Sentinel>,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    token: Option<AdminToken>,
) {
    let site = Arc::new(Site {
        snapshots: Snapshots::default(),
        sentinel,
        token,
        guard: Mutex::default(),
        seats: Seats::default(),
        actions: Semaphore::new(ACTIONS_MAX),
    });
    let routes = Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", HTML)))
        .route("/page.css", get(async || file("text/css; charset=utf-8", STYLE)))
        .route("/page.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
        .route("/icon.svg", get(async || file("image/svg+xml", ICON)))
        .route("/status", get(status))
        .route("/events", get(events))
        .route(
            "/timeline",
            get(async |State(site): State<Arc<Site>>| json(&site.sentinel.timeline.lock().latest())),
        )
        .route("/about", get(about))
        .route("/handoff", post(hand_off))
        .fallback(async || (StatusCode::NOT_FOUND, "there is nothing here; the page is at /\n"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(guarded))
        .with_state(site.clone());
    let served = async {
        match tls {
            Some(tls) => http::serve(listener, tls, routes).await,
            None => http::serve(listener, Arc::new(PlainDoor), routes).await,
        }
    };
    tokio::join!(served, site.snapshots.refresh(&site.sentinel));
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// What every answer says to browsers.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_str(value)));
    for (name, value) in headers {
        response.headers_mut().insert(name, value.expect("it is plain ASCII"));
    }
    response
}

async fn status(State(site): State<Arc<Site>>) -> Response {
    match site.snapshots.latest().await {
        Some(report) => ([(CONTENT_TYPE, "application/json")], report.json()).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "this sentinel is still starting\n").into_response(),
    }
}

async fn events(State(site): State<Arc<Site>>, Extension(guest): Extension<Guest>) -> Response {
    let Some(seat) = site.seats.take(guest.address) else {
        let words = "too many look on already: ask for /status now and then\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], words).into_response();
    };
    guest.stay();
    let frames = site.snapshots.frames().map(move |frame| {
        // It is given back when the stream is dropped.
        let _seat = &seat;
        Ok::<Bytes, Infallible>(frame)
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(frames)).into_response()
}

/// What the page has to know of this sentinel.
#[derive(Debug, Serialize)]
struct About {
    sentinel: String,
    version: &'static str,
    /// Why nothing can be done here; absent: whoever has the token can.
    no_actions: Option<String>,
}

async fn about(State(site): State<Arc<Site>>, Extension(guest): Extension<Guest>) -> Response {
    let denied = match (&site.token, line(&guest)) {
        (None, _) => Some(Denied::NoToken),
        (Some(_), Line::Clear) => Some(Denied::InTheClear),
        (Some(_), Line::Private) => None,
    };
    json(&About {
        sentinel: site.sentinel.config.options.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        no_actions: denied.map(|denied| denied.to_string()),
    })
}

fn line(guest: &Guest) -> Line {
    if guest.is_private() { Line::Private } else { Line::Clear }
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("plain values are valid JSON");
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// A shard, and the node that should lead it: as `keyward-sentinel failover` takes them; empty: any.
#[derive(Debug, Deserialize)]
struct Wanted {
    shard: String,
    #[serde(default)]
    to: String,
}

async fn hand_off(
    State(site): State<Arc<Site>>,
    Extension(guest): Extension<Guest>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let judged = site.guard.lock().judge(now(), site.token.as_ref(), guest.address, line(&guest), header);
    if let Err(denied) = judged {
        if matches!(denied, Denied::InTheClear) && header.is_some() {
            warn!("a token for the page came unencrypted from {}: make another one", guest.address);
        } else if matches!(denied, Denied::Wrong | Denied::TooMany { .. }) {
            info!("the page: {denied} ({})", guest.address);
        }
        let status = StatusCode::from_u16(denied.status()).unwrap_or(StatusCode::FORBIDDEN);
        return (status, format!("{denied}\n")).into_response();
    }
    let Ok(Wanted { shard, to }) = serde_json::from_slice(&body) else {
        return (StatusCode::BAD_REQUEST, "expected JSON with `shard` and `to`\n").into_response();
    };
    let Ok(_place) = site.actions.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "other hand-offs are under way: try again\n")
            .into_response();
    };
    // It ends by itself, and its outcome is to be heard.
    guest.stay();
    info!("the page: {} asks for another primary of {shard:?}", guest.address);
    let command = Command::Failover(rpc::FailoverCommand { shard, target: to });
    let result = match admin::at_leader(&site.sentinel, command, ADMIN_LIMIT).await {
        Ok(reply) => done(reply),
        Err(status) => Err(status.message().to_owned()),
    };
    match result {
        Ok(words) => format!("{words}\n").into_response(),
        Err(words) => (StatusCode::CONFLICT, format!("{words}\n")).into_response(),
    }
}
