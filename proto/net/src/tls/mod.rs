//! TLS, as both programs use it: everything between the directives `tls-*` and an encrypted connection.
//!
//! - [`options`]: what the directives say
//! - [`files`]: certificates and keys from PEM files, and whether these files have changed
//! - [`certificate`]: what is read from a certificate: serial number, times, the names of a client
//! - [`suites`]: the names of protocols and cipher suites
//! - [`sessions`]: the cache that lets clients come back without a full handshake
//! - [`material`]: all of it loaded and checked, as the configurations of rustls
//! - [`handshakes`]: handshakes with clients, on threads of their own; [`failures`]: those that fail
//! - [`layer`]: the encryption of one connection, apart from its socket
//!
//! [`Material::load`] is the entrance. It is called at the start, by CONFIG SET, and when files have changed; it gives
//! everything or an error in words, so whoever calls it goes on with the old material when the new one is refused.
//! [`Material::client_facing`] is for [`Handshakes`] with clients; [`Material::peer_server`] and [`Material::peer_client`]
//! are for processes that prove to each other who they are, with [`TlsAcceptor`] and [`TlsConnector`].

pub mod certificate;
pub mod failures;
pub mod files;
pub mod handshakes;
pub mod layer;
pub mod material;
pub mod options;
pub mod sessions;
pub mod suites;
#[cfg(test)]
mod tests;

pub use certificate::{Certificate, NameField, user_names};
pub use failures::HandshakeFailures;
pub use handshakes::{Handshakes, Shaken};
pub use layer::Layer;
pub use material::{Material, PeerNames};
pub use options::{CipherPreference, ClientCertificates, Identity, Secret, SessionLimits, TlsOptions};
pub use rustls::pki_types::{CertificateDer, ServerName};
pub use rustls::{ClientConfig, ServerConfig, ServerConnection};
pub use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Why TLS cannot be used as it is configured, in one line for the log. Never has a secret in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// An error of these words.
pub(crate) fn failed<T>(why: impl Into<String>) -> Result<T, TlsError> {
    Err(TlsError(why.into()))
}
