//! Certificates for tests, made as they are needed, and a client that speaks RESP through TLS.
#![allow(clippy::disallowed_methods, reason = "a shell: sockets, and the time of certificates")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue, IsCa, KeyPair,
    SanType, string::Ia5String,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::resp_client::{Frame, NoReply, REPLY_DEADLINE, Reply, split_frame};

/// What a certificate says.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    pub common_name: String,
    pub uris: Vec<String>,
    /// Days from now between which it is valid; by default from yesterday to tomorrow.
    pub days: Option<(i64, i64)>,
}

/// One with this common name.
pub fn named(common_name: &str) -> Subject {
    Subject { common_name: common_name.into(), ..Subject::default() }
}

/// A CA with a folder for its certificates.
pub struct Pki {
    dir: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pki")
    }
}

impl Pki {
    /// A new CA, whose certificate is `ca.crt` in this folder, and `server.crt` and `server.key` for this host.
    pub fn new(dir: &Path) -> Pki {
        let mut params = CertificateParams::new(Vec::new()).expect("no name is no wrong name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("ca of {}", dir.display()));
        let key = KeyPair::generate().expect("a key can be made");
        let ca = CertifiedIssuer::self_signed(params, key).expect("a CA can be made");
        fs::create_dir_all(dir).expect("the folder can be made");
        fs::write(dir.join("ca.crt"), ca.pem()).expect("a file can be written");
        let pki = Pki { dir: dir.to_owned(), ca };
        pki.issue("server", &named("server"));
        pki
    }

    /// Makes `name.crt` and `name.key`.
    pub fn issue(&self, name: &str, subject: &Subject) {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("these are names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(subject.common_name.clone()));
        let uri = |uri: &String| SanType::URI(Ia5String::try_from(uri.as_str()).expect("ASCII"));
        params.subject_alt_names.extend(subject.uris.iter().map(uri));
        let (from, to) = subject.days.unwrap_or((-1, 1));
        params.not_before = day(from);
        params.not_after = day(to);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate can be made");
        let write = |ending: &str, text: String| {
            // As a whole, so that nobody reads half of it.
            let new = self.path(&format!("{name}.{ending}.new"));
            fs::write(&new, text).expect("a file can be written");
            fs::rename(new, self.path(&format!("{name}.{ending}"))).expect("a file can be renamed");
        };
        write("key", key.serialize_pem());
        write("crt", certificate.pem());
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// As a word of a command line.
    pub fn word(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    /// Flags of a server with this CA and its certificate, at this port.
    pub fn flags(&self, port: u16) -> Vec<String> {
        let words = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", self.word("server.crt")),
            ("--tls-key-file", self.word("server.key")),
            ("--tls-ca-cert-file", self.word("ca.crt")),
        ];
        words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// A client that trusts this CA; with a certificate if it has a name.
    pub fn client(&self, certificate: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("it has suites for all")
            .with_root_certificates(roots);
        let Some(name) = certificate else { return Arc::new(builder.with_no_client_auth()) };
        let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.crt"))).expect("it was issued");
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).expect("it was issued");
        Arc::new(builder.with_client_auth_cert(vec![chain], key).expect("they belong together"))
    }
}

fn day(days: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from(SystemTime::now()) + time::Duration::days(days)
}

/// A connection through TLS.
#[derive(Debug)]
pub struct TlsConnection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: BytesMut,
}

impl TlsConnection {
    /// Connects and shakes hands. With TLS 1.3 the server's refusal of a certificate comes with the first reply.
    ///
    /// # Errors
    /// No connection, or no handshake.
    pub fn connect(port: u16, config: &Arc<ClientConfig>) -> io::Result<TlsConnection> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(REPLY_DEADLINE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("it is a name");
        let client = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(client, socket);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(TlsConnection { stream, buffer: BytesMut::new() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection's.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// All that comes until the server ends.
    pub fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // It may end without saying so.
        drop(self.stream.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn set_read_timeout(&mut self, time: Duration) {
        self.stream.sock.set_read_timeout(Some(time)).expect("it is not zero");
    }

    /// One reply.
    ///
    /// # Errors
    /// See [`NoReply`].
    pub fn receive(&mut self) -> Reply {
        loop {
            if let Some(frame) = split_frame(&mut self.buffer).map_err(NoReply::Garbage)? {
                return Ok(frame);
            }
            let mut bytes = [0; 1 << 14];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(NoReply::Closed),
                Ok(len) => self.buffer.extend_from_slice(&bytes[..len]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(NoReply::Late);
                }
                Err(_) => return Err(NoReply::Closed),
            }
        }
    }

    /// A command and its reply.
    ///
    /// # Errors
    /// See [`NoReply`].
    pub fn call(&mut self, words: &[&str]) -> Reply {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.send(request.as_bytes()).map_err(|_| NoReply::Closed)?;
        self.receive()
    }

    /// As [`Self::call`], as text.
    pub fn text(&mut self, words: &[&str]) -> String {
        self.call(words).map_or_else(|e| e.to_string(), |frame: Frame| frame.string())
    }

    pub fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    /// Tells the server that nothing more comes; it may go on sending.
    ///
    /// # Errors
    /// The connection's.
    pub fn say_goodbye(&mut self) -> io::Result<()> {
        self.stream.conn.send_close_notify();
        self.stream.conn.complete_io(&mut self.stream.sock).map(|_| ())
    }
}
