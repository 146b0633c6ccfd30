//! TLS of this node: the certificates in force, and who may change them.
//!
//! There are none unless `tls-port` is set, or `tls-cluster`. They are loaded at the start, by CONFIG SET of a directive that they depend
//! on, and, with `tls-auto-reload-interval`, when their files have changed. What is refused changes nothing: connections
//! go on being made with what was loaded before. A connection keeps what it has shaken hands with.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyward_net::tls::{CertificateDer, HandshakeFailures, Material, TlsError, user_names};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::acl::User;
use crate::clock;
use crate::config::{self, CertificateUser, Consequence, Settings};
use crate::control;
use crate::server::Server;

/// Changes of the port that wait for the control runtime.
const CHANGES_MAX: usize = 16;
/// How often it is looked whether files are to be looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What this node has of TLS.
#[derive(Debug, Default)]
pub struct Tls {
    /// Held for a look.
    material: Mutex<Option<Arc<Material>>>,
    /// Where the sockets of a new `tls-port` go; set when the control runtime runs.
    listeners: Mutex<Option<mpsc::Sender<Vec<TcpListener>>>>,
    failures: Mutex<HandshakeFailures>,
    handshakes: AtomicU64,
    failed: AtomicU64,
    /// Clients whose certificate names no user that there is.
    pub unknown_users: AtomicU64,
}

/// What CONFIG SET will change, checked and loaded.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    material: Option<Arc<Material>>,
    listeners: Option<Vec<TcpListener>>,
}

impl Tls {
    /// What handshakes are made with now; `None`: TLS is not used.
    pub fn material(&self) -> Option<Arc<Material>> {
        self.material.lock().clone()
    }

    /// At the start.
    ///
    /// # Errors
    /// One line for the operator.
    pub(crate) fn start(&self, settings: &Settings) -> Result<mpsc::Receiver<Vec<TcpListener>>, String> {
        if settings.uses_tls() {
            *self.material.lock() =
                Some(load(settings).map_err(|e| format!("Failed to configure TLS. {e}"))?);
        }
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        *self.listeners.lock() = Some(sender);
        Ok(receiver)
    }

    /// CONFIG SET: loads and opens what the new settings need. Nothing is changed yet.
    ///
    /// # Errors
    /// The text behind `ERR `.
    pub(crate) fn prepare(
        &self,
        pairs: &[(String, String)],
        before: &Settings,
        settings: &Settings,
    ) -> Result<Prepared, String> {
        let failed = |name: &str, why: &str| {
            format!("CONFIG SET failed (possibly related to argument '{name}') - {why}")
        };
        let port = config::cause_of(Consequence::ListenTls, pairs);
        let other_port = port.filter(|_| before.tls_port != settings.tls_port);
        let mut prepared = Prepared::default();
        let cause = config::cause_of(Consequence::LoadTls, pairs).or(other_port);
        if let Some(cause) = cause.filter(|_| settings.uses_tls()) {
            let loaded = load(settings).map_err(|error| {
                tracing::warn!("{error}");
                failed(cause, "Unable to update TLS configuration. Check server logs.")
            })?;
            prepared.material = Some(loaded);
        }
        if let Some(name) = other_port {
            if !settings.sentinels.is_empty() {
                return Err(failed(
                    name,
                    "the other nodes know this one by its ports: restart it with another",
                ));
            }
            if settings.port == 0 && settings.tls_port == 0 {
                return Err(failed(name, "nobody could connect any more"));
            }
            let opened = crate::io::accept::listen_all(settings, settings.tls_port).map_err(|error| {
                tracing::warn!("{error}");
                failed(name, "Unable to listen on this port. Check server logs.")
            })?;
            prepared.listeners = Some(opened);
        }
        Ok(prepared)
    }

    /// What was prepared is in force from now on.
    pub(crate) fn change(&self, prepared: Prepared) {
        if let Some(material) = prepared.material {
            *self.material.lock() = Some(material);
        }
        if let Some(listeners) = prepared.listeners
            && let Some(sender) = &*self.listeners.lock()
            && sender.try_send(listeners).is_err()
        {
            tracing::warn!("the TLS port is not changed: too many changes wait");
        }
    }

    /// Handshakes that were done, and that have failed.
    pub(crate) fn counts(&self) -> [u64; 2] {
        [self.handshakes.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed)]
    }

    pub(crate) fn note_handshake(&self) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a handshake that has failed; now and then one is told.
    pub(crate) fn note_failure(&self, address: &str, why: &dyn std::fmt::Display) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if let Some(untold) = self.failures.lock().note(clock::monotonic()) {
            tracing::warn!(client = address, untold, "Error accepting a client connection: {why}");
        }
    }

    /// Which user a client's certificate stands for, if it does for one who may come in.
    pub(crate) fn user_of(&self, settings: &Settings, certificate: &CertificateDer<'_>) -> Option<Arc<User>> {
        let CertificateUser::Named(field) = settings.tls_user else { return None };
        let names = user_names(certificate, field);
        let mut users = names.iter().filter_map(|name| settings.users.get(name.as_bytes()));
        let user = users.find(|user| user.is_on()).cloned();
        if user.is_none() && !names.is_empty() {
            self.unknown_users.fetch_add(1, Ordering::Relaxed);
        }
        user
    }
}

fn load(settings: &Settings) -> Result<Arc<Material>, TlsError> {
    Material::load(settings.tls_options(), clock::unix_millis().0 / 1000).map(Arc::new)
}

/// Loads certificates anew when their files have changed, as often as is configured, for ever.
pub(crate) async fn reload(server: Arc<Server>) {
    let mut looked_at = clock::monotonic();
    let mut refused = String::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = clock::monotonic();
        let is_due = server.settings().tls_reload_every.is_some_and(|every| every <= now.since(looked_at));
        let Some(material) = server.tls.material() else { continue };
        material.forget_old_sessions();
        if !is_due {
            continue;
        }
        looked_at = now;
        let asked = Arc::clone(&server);
        let loaded = control::blocking(move || {
            material.files_have_changed().then(|| (load(&asked.settings()), material))
        });
        match loaded.await {
            Ok(Some((Ok(new), old))) => {
                let mut current = server.tls.material.lock();
                // Unless CONFIG SET was faster.
                if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &old)) {
                    tracing::info!(
                        serial = new.server_certificate().serial,
                        "TLS certificates are loaded anew"
                    );
                    *current = Some(new);
                }
                refused.clear();
            }
            Ok(Some((Err(error), _))) if error.0 != refused => {
                tracing::warn!(
                    "TLS certificates have changed and are not used, those of before are: {error}"
                );
                refused = error.0;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "TLS certificates were not looked at"),
        }
    }
}
