//! What the directives `tls-*` say, in the form in which [`super::Material`] takes it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// All of it. The default has no certificate, wants one of every client, and takes every protocol and suite that there
/// is, as Valkey's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// `tls-cert-file`, `tls-key-file`, `tls-key-file-pass`: shown to whoever connects.
    pub server: Identity,
    /// `tls-client-*`: shown to whom this process connects; without a file the server's is.
    pub client: Identity,
    /// `tls-ca-cert-file`
    pub ca_file: Option<PathBuf>,
    /// `tls-ca-cert-dir`: every file in it that has certificates counts.
    pub ca_dir: Option<PathBuf>,
    /// `tls-auth-clients`
    pub client_certificates: ClientCertificates,
    /// `tls-protocols`: words of Valkey's; empty: all that are supported.
    pub protocols: String,
    /// `tls-ciphers`: names of OpenSSL's, for TLS 1.2; empty: all that are supported.
    pub ciphers: String,
    /// `tls-ciphersuites`: names, for TLS 1.3; empty: all that are supported.
    pub ciphersuites: String,
    /// `tls-prefer-server-ciphers`
    pub cipher_preference: CipherPreference,
    /// `tls-session-caching` and what belongs to it; `None`: every handshake is a full one.
    pub sessions: Option<SessionLimits>,
    /// `tls-replication` or `tls-cluster`: a CA is needed whatever clients have to show.
    pub peers: PeerConnections,
}

/// Whether other processes of the cluster are connected to by TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PeerConnections {
    #[default]
    Plain,
    Tls,
}

/// A certificate with its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// PEM: the certificate, and behind it those between it and the CA.
    pub certificate: Option<PathBuf>,
    /// PEM: PKCS#8, also encrypted, PKCS#1 or SEC1.
    pub key: Option<PathBuf>,
    /// The password of an encrypted key.
    pub password: Secret,
}

impl Identity {
    /// Whether any of its files is named.
    pub fn is_named(&self) -> bool {
        self.certificate.is_some() || self.key.is_some()
    }
}

/// A text that no log and no error shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

/// Whether clients have to show a certificate that the CA has issued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    Unasked,
    /// Who shows one has to show a valid one.
    Optional,
    #[default]
    Required,
}

/// Whose order of cipher suites counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CipherPreference {
    #[default]
    Client,
    Server,
}

/// Sessions that may be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Zero: as many as are allowed at all.
    pub count: usize,
    /// How long a session may be resumed.
    pub age: Duration,
}
