//! Certificates, keys and CAs, loaded and checked: what handshakes are made with.
//!
//! The crypto is aws-lc's, the one that rustls itself prefers for its speed; it builds with a C compiler alone.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, StoresServerSessions, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::certificate::public_key;
use super::files::{self, Mark};
use super::options::{CipherPreference, PeerConnections};
use super::sessions::Sessions;
use super::{Certificate, ClientCertificates, Identity, TlsError, TlsOptions, failed, suites};

/// See the module documentation. Immutable: what has changed is loaded anew.
#[derive(Debug)]
pub struct Material {
    options: TlsOptions,
    provider: Arc<CryptoProvider>,
    server: Loaded,
    /// What this process shows where it connects; `None`: as the server.
    client: Option<Loaded>,
    authorities: Arc<RootCertStore>,
    /// The one that expires first.
    authority: Option<Certificate>,
    client_facing: Arc<ServerConfig>,
    /// Those of clients.
    sessions: Option<Arc<Sessions>>,
    marks: Vec<Mark>,
}

/// A certificate with its key.
#[derive(Debug)]
struct Loaded {
    shown: Certificate,
    keys: Arc<CertifiedKey>,
}

/// Whether the certificate of a peer has to be for the name by which it was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerNames {
    Checked,
    /// The CA issues certificates to this cluster's processes only, which are reached by addresses: as in Valkey.
    Unchecked,
}

impl Material {
    /// Loads all files that the options name. `now` is in seconds since the Unix epoch: a certificate that is not valid
    /// then is refused.
    ///
    /// # Errors
    /// One line: which file, and what is wrong with it; or what is missing.
    pub fn load(options: TlsOptions, now: i64) -> Result<Material, TlsError> {
        // Before the files are read: what changes meanwhile is seen at the next look.
        let marks = marks(&options);
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites::suites(&options.ciphers, &options.ciphersuites)?,
            ..aws_lc_rs::default_provider()
        });
        let Some(server) = identity(&options.server, ["tls-cert-file", "tls-key-file"], &provider, now)?
        else {
            return failed("No tls-cert-file configured!");
        };
        let client =
            identity(&options.client, ["tls-client-cert-file", "tls-client-key-file"], &provider, now)?;
        let (authorities, authority) = authorities(&options, now)?;
        let needs_authority = options.client_certificates != ClientCertificates::Unasked
            || options.peers == PeerConnections::Tls;
        if authorities.is_empty() && needs_authority {
            return failed(
                "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, tls-replication or \
                 tls-auth-clients are enabled!",
            );
        }
        let verifier = client_verifier(options.client_certificates, &authorities, &provider)?;
        let mut client_facing = server_config(&options, &server, verifier, &provider)?;
        let sessions = options.sessions.map(|limits| Arc::new(Sessions::new(limits)));
        if let Some(sessions) = &sessions {
            client_facing.session_storage = Arc::clone(sessions) as Arc<dyn StoresServerSessions>;
        }
        let client_facing = Arc::new(client_facing);
        Ok(Material {
            options,
            provider,
            server,
            client,
            authorities,
            authority,
            client_facing,
            sessions,
            marks,
        })
    }

    /// For clients: what they have to show is what `tls-auth-clients` says.
    pub fn client_facing(&self) -> &Arc<ServerConfig> {
        &self.client_facing
    }

    /// Gives memory back of clients' sessions that are too old, some at a time: to be called now and then.
    pub fn forget_old_sessions(&self) {
        if let Some(sessions) = &self.sessions {
            sessions.forget_old();
        }
    }

    /// For peers that connect here: each has to show a certificate of the CA. `protocols` are those of ALPN.
    ///
    /// # Errors
    /// There is no CA.
    pub fn peer_server(&self, protocols: &[&[u8]]) -> Result<ServerConfig, TlsError> {
        let verifier = client_verifier(ClientCertificates::Required, &self.authorities, &self.provider)?;
        let mut config = server_config(&self.options, &self.server, verifier, &self.provider)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    /// For peers that this process connects to: it shows its own certificate, and they one of the CA.
    ///
    /// # Errors
    /// There is no CA.
    pub fn peer_client(&self, names: PeerNames, protocols: &[&[u8]]) -> Result<ClientConfig, TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::clone(&self.authorities),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|e| TlsError(format!("Failed to configure CA certificate(s) file/directory: {e}")))?;
        let verifier: Arc<dyn ServerCertVerifier> = match names {
            PeerNames::Checked => verifier,
            PeerNames::Unchecked => Arc::new(AnyName(verifier)),
        };
        let keys = &self.client.as_ref().unwrap_or(&self.server).keys;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&suites::protocols(&self.options.protocols)?)
            .map_err(no_common_suite)?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(keys))));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    /// The certificate that clients are shown.
    pub fn server_certificate(&self) -> &Certificate {
        &self.server.shown
    }

    /// The one that is shown to peers, if it is another.
    pub fn client_certificate(&self) -> Option<&Certificate> {
        self.client.as_ref().map(|loaded| &loaded.shown)
    }

    /// The CA's; of several the one that expires first.
    pub fn authority_certificate(&self) -> Option<&Certificate> {
        self.authority.as_ref()
    }

    /// All of them, with who shows it: `server`, `client` and `ca`.
    pub fn certificates(&self) -> [(&'static str, Option<&Certificate>); 3] {
        [
            ("server", Some(self.server_certificate())),
            ("client", self.client_certificate()),
            ("ca", self.authority_certificate()),
        ]
    }

    /// Whether any of the files is not as it was when it was loaded.
    pub fn files_have_changed(&self) -> bool {
        marks(&self.options) != self.marks
    }

    /// What it was loaded by.
    pub fn options(&self) -> &TlsOptions {
        &self.options
    }
}

fn marks(options: &TlsOptions) -> Vec<Mark> {
    let TlsOptions { server, client, ca_file, ca_dir, .. } = options;
    let paths =
        [&server.certificate, &server.key, &client.certificate, &client.key, ca_file, ca_dir].into_iter();
    files::marks(paths.filter_map(|path| path.as_deref()))
}

/// `None`: nothing is configured. `names` are the directives of its two files.
fn identity(
    identity: &Identity,
    names: [&str; 2],
    provider: &CryptoProvider,
    now: i64,
) -> Result<Option<Loaded>, TlsError> {
    let (certificate, key) = match (&identity.certificate, &identity.key) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return failed(format!("No {} configured!", names[0])),
        (Some(_), None) => return failed(format!("No {} configured!", names[1])),
        (Some(certificate), Some(key)) => (certificate, key),
    };
    let fault = |why: &str| TlsError(format!("Failed to load certificate: {}: {why}", certificate.display()));
    let chain = files::chain(certificate)?;
    let own = chain.first().ok_or_else(|| fault("there is no certificate in it (PEM)"))?;
    let shown = Certificate::read(own).map_err(fault)?;
    shown.check_time(now).map_err(|why| fault(&why))?;
    let key_fault = |why: &str| TlsError(format!("Failed to load private key: {}: {why}", key.display()));
    let private = files::key(key, &identity.password)?;
    let private = provider
        .key_provider
        .load_private_key(private)
        .map_err(|_| key_fault("it is not a key of a kind that is supported (RSA, ECDSA, Ed25519)"))?;
    let belongs = private.public_key().is_none_or(|public| public_key(own) == Some(public.as_ref()));
    if !belongs {
        return Err(key_fault("it does not belong to the certificate"));
    }
    Ok(Some(Loaded { shown, keys: Arc::new(CertifiedKey::new(chain, private)) }))
}

/// All that are valid, and the one that expires first.
fn authorities(
    options: &TlsOptions,
    now: i64,
) -> Result<(Arc<RootCertStore>, Option<Certificate>), TlsError> {
    let (file, dir) = (options.ca_file.as_deref(), options.ca_dir.as_deref());
    let found = files::authorities(file, dir)?;
    let (mut store, mut first): (RootCertStore, Option<Certificate>) = (RootCertStore::empty(), None);
    let mut refused = None;
    for certificate in &found {
        match valid_authority(certificate, now, &mut store) {
            Ok(shown) if first.as_ref().is_none_or(|first| shown.not_after < first.not_after) => {
                first = Some(shown)
            }
            Ok(_) => {}
            Err(why) => refused = Some(why),
        }
    }
    if let Some(why) = refused.filter(|_| store.is_empty()) {
        let path = file.or(dir).unwrap_or(Path::new(""));
        return failed(format!(
            "Failed to configure CA certificate(s) file/directory: {}: {why}",
            path.display()
        ));
    }
    Ok((Arc::new(store), first))
}

fn valid_authority(
    certificate: &CertificateDer<'static>,
    now: i64,
    store: &mut RootCertStore,
) -> Result<Certificate, String> {
    let shown = Certificate::read(certificate)?;
    shown.check_time(now)?;
    store.add(certificate.clone()).map_err(|e| e.to_string())?;
    Ok(shown)
}

fn client_verifier(
    certificates: ClientCertificates,
    authorities: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if certificates == ClientCertificates::Unasked {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities), Arc::clone(provider));
    if certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map_err(|e| TlsError(format!("Failed to configure CA certificate(s) file/directory: {e}")))
}

fn server_config(
    options: &TlsOptions,
    identity: &Loaded,
    verifier: Arc<dyn ClientCertVerifier>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&suites::protocols(&options.protocols)?)
        .map_err(no_common_suite)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.keys))));
    config.ignore_client_order = options.cipher_preference == CipherPreference::Server;
    match options.sessions {
        Some(limits) => config.session_storage = Arc::new(Sessions::new(limits)),
        None => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
    }
    Ok(config)
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` gives")]
fn no_common_suite(error: Error) -> TlsError {
    TlsError(format!("Failed to configure ciphers: {error}"))
}

/// Takes any name that a certificate of the CA is for.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: everything else is as it should be.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
