//! TLS on the bus (`tls-cluster`): both sides show a certificate of the cluster's CA, and what they say then is encrypted.
//!
//! What a certificate says of its owner as URIs among its alternative names binds what the owner may claim to be:
//! [`keyward_proto::bus::rights::Identity::is_named_by`].

#![allow(clippy::disallowed_methods, reason = "shell: certificates are valid by the wall clock")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyward_proto::bus::Identity;
use keyward_proto::time::Monotonic;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::clock::{monotonic, unix_seconds};
use crate::tls::options::PeerConnections;
use crate::tls::{
    Material, NameField, PeerNames, TlsAcceptor, TlsConnector, TlsError, TlsOptions, user_names,
};

/// What is spoken inside, for ALPN.
const HTTP2: &[u8] = b"h2";
/// The files of certificates are looked at so often, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module's documentation. Files that have changed are loaded anew.
#[derive(Debug)]
pub struct Encryption {
    /// Held while the files are looked at.
    loaded: Mutex<Loaded>,
}

struct Loaded {
    material: Material,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    looked_at: Monotonic,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.material.fmt(f)
    }
}

impl Loaded {
    fn load(options: TlsOptions) -> Result<Loaded, TlsError> {
        let options = TlsOptions { peers: PeerConnections::Tls, ..options };
        let material = Material::load(options, unix_seconds())?;
        let server = material.peer_server(&[HTTP2])?;
        // As in Valkey: the CA is the cluster's own, and processes are reached by addresses.
        let client = material.peer_client(PeerNames::Unchecked, &[HTTP2])?;
        Ok(Loaded {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            material,
            looked_at: monotonic(),
        })
    }

    fn renew(&mut self, options: TlsOptions) {
        match Loaded::load(options) {
            Ok(new) => {
                let serial = &new.material.server_certificate().serial;
                tracing::info!(serial, "the bus has a new certificate");
                *self = new;
            }
            Err(error) => tracing::error!("{error}: the bus goes on with the certificate of before"),
        }
    }
}

impl Encryption {
    /// Loads what the options name.
    ///
    /// # Errors
    /// One line: what is missing or wrong.
    pub fn load(options: TlsOptions) -> Result<Encryption, TlsError> {
        Ok(Encryption { loaded: Mutex::new(Loaded::load(options)?) })
    }

    /// From now on what these options name; what cannot be used changes nothing.
    pub(super) fn use_options(&self, options: TlsOptions) {
        self.loaded.lock().renew(options);
    }

    fn current(&self) -> (TlsAcceptor, TlsConnector) {
        let mut loaded = self.loaded.lock();
        let now = monotonic();
        if LOOK_EVERY <= now.since(loaded.looked_at) {
            loaded.looked_at = now;
            if loaded.material.files_have_changed() {
                let options = loaded.material.options().clone();
                loaded.renew(options);
            }
        }
        (loaded.acceptor.clone(), loaded.connector.clone())
    }

    /// The client's side.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let (_, connector) = self.current();
        connector.connect(name, stream).await.map(TlsStream::from)
    }

    /// The server's side.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let (acceptor, _) = self.current();
        acceptor.accept(stream).await.map(TlsStream::from)
    }
}

/// Whether the other side's certificate lets it be this one.
pub(super) fn certificate_names(stream: &TlsStream<TcpStream>, claimed: &Identity) -> bool {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    certificate.is_some_and(|der| claimed.is_named_by(&user_names(der, NameField::Uri)))
}
