//! Certificates are made for each test, files written, and client and server talk in memory.
#![allow(clippy::disallowed_methods, reason = "certificates are valid at some time")]

use std::fs;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    DnValue, IsCa, KeyPair, SanType, SerialNumber, string::Ia5String,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, ServerConnection};
use tempfile::TempDir;

use super::options::PeerConnections;
use super::*;

const DAY: i64 = 24 * 60 * 60;

/// Files with a CA and a certificate of it, valid from a day ago for a day more.
struct Pki {
    dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    now: i64,
}

impl Pki {
    fn new() -> Pki {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ca");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let pki = Pki { dir: tempfile::tempdir().unwrap(), ca, now: now.as_secs() as i64 };
        fs::write(pki.path("ca.crt"), pki.ca.pem()).unwrap();
        pki.issue("server", pki.params("server"));
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn params(&self, name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        self.between(params, -DAY, DAY)
    }

    fn between(&self, mut params: CertificateParams, from: i64, to: i64) -> CertificateParams {
        let at = |seconds: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds as u64);
        params.not_before = at(self.now + from);
        params.not_after = at(self.now + to);
        params
    }

    /// Writes `name.crt` and `name.key`.
    fn issue(&self, name: &str, params: CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    fn identity(&self, name: &str) -> Identity {
        Identity {
            certificate: Some(self.path(&format!("{name}.crt"))),
            key: Some(self.path(&format!("{name}.key"))),
            password: Secret::default(),
        }
    }

    fn options(&self) -> TlsOptions {
        TlsOptions {
            server: self.identity("server"),
            ca_file: Some(self.path("ca.crt")),
            sessions: Some(SessionLimits { count: 10, age: Duration::from_secs(60) }),
            ..TlsOptions::default()
        }
    }

    fn load(&self, options: TlsOptions) -> Result<Material, String> {
        // What openssl makes is valid from the second in which it does.
        Material::load(options, self.now + 60)
            .map_err(|e| e.0.replace(&self.dir.path().display().to_string(), "DIR"))
    }

    /// Why these options are refused.
    fn refusal(&self, change: impl FnOnce(&mut TlsOptions)) -> String {
        let mut options = self.options();
        change(&mut options);
        self.load(options).unwrap_err()
    }
}

/// One direction of a connection in memory.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    /// What it takes before it would block.
    room: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        self.bytes.extend_from_slice(&bytes[..taken]);
        if taken == 0 && !bytes.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A handshake in memory.
fn shake_hands(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn connect(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    shake_hands(&mut client, &mut server)?;
    Ok((client, server))
}

/// A client that knows the CA, and has no certificate.
fn bare_client(pki: &Pki) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn what_is_loaded_shows_serials_and_times() {
    let pki = Pki::new();
    let mut params = pki.params("server");
    params.serial_number = Some(SerialNumber::from(0x0102_u64));
    pki.issue("server", params);
    let material = pki.load(pki.options()).unwrap();
    let shown = material.server_certificate();
    assert_eq!((shown.serial.as_str(), shown.seconds_left(pki.now)), ("0102", DAY));
    assert!(material.authority_certificate().is_some() && material.client_certificate().is_none());
}

#[test]
fn what_is_missing_is_said_in_words() {
    let pki = Pki::new();
    assert_eq!(pki.refusal(|o| o.server = Identity::default()), "No tls-cert-file configured!");
    assert_eq!(pki.refusal(|o| o.server.key = None), "No tls-key-file configured!");
    assert_eq!(pki.refusal(|o| o.client.key = Some("k".into())), "No tls-client-cert-file configured!");
    let no_ca = pki.refusal(|o| o.ca_file = None);
    assert!(no_ca.starts_with("Either tls-ca-cert-file or tls-ca-cert-dir must be specified"), "{no_ca}");
    let unasked =
        TlsOptions { ca_file: None, client_certificates: ClientCertificates::Unasked, ..pki.options() };
    pki.load(unasked.clone()).unwrap();
    assert!(pki.load(TlsOptions { peers: PeerConnections::Tls, ..unasked }).is_err());
}

#[test]
fn files_that_are_no_good_are_named_with_what_is_wrong() {
    let pki = Pki::new();
    let (certificate, key, ca) = (
        "Failed to load certificate",
        "Failed to load private key",
        "Failed to configure CA certificate(s) file/directory",
    );
    assert_eq!(
        pki.refusal(|o| o.server.certificate = Some(pki.path("none"))),
        format!("{certificate}: DIR/none: No such file or directory (os error 2)")
    );
    assert_eq!(
        pki.refusal(|o| o.server.certificate = Some(pki.path("server.key"))),
        format!("{certificate}: DIR/server.key: there is no certificate in it (PEM)")
    );
    assert_eq!(
        pki.refusal(|o| o.server.key = Some(pki.path("server.crt"))),
        format!("{key}: DIR/server.crt: there is no private key in it (PEM)")
    );
    pki.issue("other", pki.params("other"));
    assert_eq!(
        pki.refusal(|o| o.server.key = Some(pki.path("other.key"))),
        format!("{key}: DIR/other.key: it does not belong to the certificate")
    );
    assert_eq!(
        pki.refusal(|o| o.ca_file = Some(pki.path("server.key"))),
        format!("{ca}: DIR/server.key: there is no certificate in it (PEM)")
    );
    fs::create_dir(pki.path("empty")).unwrap();
    assert_eq!(
        pki.refusal(|o| o.ca_dir = Some(pki.path("empty"))),
        format!("{ca}: DIR/empty: no file in it has a certificate")
    );
    fs::write(pki.path("bad.crt"), "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    assert_eq!(
        pki.refusal(|o| o.server.certificate = Some(pki.path("bad.crt"))),
        format!("{certificate}: DIR/bad.crt: its PEM is damaged")
    );
    fs::write(pki.path("junk.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    assert_eq!(
        pki.refusal(|o| o.server.certificate = Some(pki.path("junk.crt"))),
        format!("{certificate}: DIR/junk.crt: it is not an X.509 certificate")
    );
}

#[test]
fn certificates_out_of_their_time_are_refused_with_the_date() {
    let pki = Pki::new();
    pki.issue("old", pki.between(pki.params("old"), -3 * DAY, -2 * DAY));
    let old = pki.refusal(|o| o.server = pki.identity("old"));
    assert!(old.starts_with("Failed to load certificate: DIR/old.crt: it has expired on "), "{old}");
    let year = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((pki.now - 2 * DAY) as u64);
    assert!(old.contains(&year.year().to_string()), "{old}");
    pki.issue("new", pki.between(pki.params("new"), DAY, 2 * DAY));
    let new = pki.refusal(|o| o.client = pki.identity("new"));
    assert!(new.starts_with("Failed to load certificate: DIR/new.crt: it is not valid before "), "{new}");
    let ca = pki.refusal(|o| o.ca_file = Some(pki.path("old.crt")));
    assert!(ca.contains("DIR/old.crt: it has expired on "), "{ca}");
    // One that has expired does no harm among others.
    let both =
        fs::read(pki.path("old.crt")).unwrap().into_iter().chain(fs::read(pki.path("ca.crt")).unwrap());
    fs::write(pki.path("both.crt"), both.collect::<Vec<u8>>()).unwrap();
    pki.load(TlsOptions { ca_file: Some(pki.path("both.crt")), ..pki.options() }).unwrap();
}

/// Runs openssl, which is on every machine that has the tests' clients.
fn openssl(dir: &Path, args: &str) {
    let ran = std::process::Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
    assert!(ran.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn keys_are_read_in_every_format_that_openssl_writes() {
    let pki = Pki::new();
    let run = |args: &str| openssl(pki.dir.path(), args);
    run("ec -in server.key -out sec1.key");
    run("pkcs8 -topk8 -in server.key -passout pass:secret -out encrypted.key");
    run("pkcs8 -topk8 -v2 des3 -in server.key -passout pass:secret -out des3.key");
    run("pkcs8 -topk8 -scrypt -in server.key -passout pass:secret -out scrypt.key");
    run("ec -in server.key -aes256 -passout pass:secret -out traditional.key");
    run("req -x509 -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.crt -subj /CN=rsa");
    run("rsa -in rsa.key -traditional -out pkcs1.key");
    let load = |certificate: &str, key: &str, password: &str| {
        let server = Identity {
            certificate: Some(pki.path(certificate)),
            key: Some(pki.path(key)),
            password: Secret(password.into()),
        };
        pki.load(TlsOptions { server, ..pki.options() }).map(|_| ())
    };
    for (certificate, key, password) in [
        ("server.crt", "server.key", ""),
        ("server.crt", "server.key", "unneeded"),
        ("server.crt", "sec1.key", ""),
        ("server.crt", "encrypted.key", "secret"),
        ("server.crt", "des3.key", "secret"),
        ("server.crt", "scrypt.key", "secret"),
        ("rsa.crt", "rsa.key", ""),
        ("rsa.crt", "pkcs1.key", ""),
    ] {
        assert_eq!(load(certificate, key, password), Ok(()), "{key}");
    }
    let refusal = |key: &str, password: &str| load("server.crt", key, password).unwrap_err();
    assert!(refusal("encrypted.key", "").ends_with("its password is missing (tls-key-file-pass)"));
    let wrong = refusal("encrypted.key", "wrongpassword");
    assert!(wrong.ends_with("DIR/encrypted.key: the password does not open it"), "{wrong}");
    let traditional = refusal("traditional.key", "secret");
    assert!(traditional.contains("openssl pkcs8 -topk8"), "{traditional}");
    for told in [wrong, traditional, format!("{:?}", Secret("secret".into()))] {
        assert!(!told.contains("secret") && !told.contains("wrongpassword"), "{told}");
    }
}

#[test]
fn clients_show_what_the_server_wants() {
    let pki = Pki::new();
    pki.issue("client", pki.params("somebody"));
    let mine = pki.load(TlsOptions { client: pki.identity("client"), ..pki.options() }).unwrap();
    let with = Arc::new(mine.peer_client(PeerNames::Checked, &[]).unwrap());
    let without = bare_client(&pki);
    for (wanted, client, works) in [
        (ClientCertificates::Required, &with, true),
        (ClientCertificates::Required, &without, false),
        (ClientCertificates::Optional, &with, true),
        (ClientCertificates::Optional, &without, true),
        (ClientCertificates::Unasked, &with, true),
        (ClientCertificates::Unasked, &without, true),
    ] {
        let server = pki.load(TlsOptions { client_certificates: wanted, ..pki.options() }).unwrap();
        let found = connect(server.client_facing(), client);
        assert_eq!(found.is_ok(), works, "{wanted:?}");
        let shown = found.ok().and_then(|(_, server)| Some(server.peer_certificates()?.first()?.clone()));
        let names = shown.map(|der| user_names(&der, NameField::CommonName));
        let expected = works && wanted != ClientCertificates::Unasked && Arc::ptr_eq(client, &with);
        assert_eq!(names, expected.then(|| vec!["somebody".to_owned()]), "{wanted:?}");
    }
    // Of another CA.
    let other = Pki::new();
    let server =
        pki.load(TlsOptions { client_certificates: ClientCertificates::Optional, ..pki.options() }).unwrap();
    let stranger = other.load(TlsOptions { ca_file: Some(pki.path("ca.crt")), ..other.options() }).unwrap();
    let stranger = Arc::new(stranger.peer_client(PeerNames::Checked, &[]).unwrap());
    assert!(connect(server.client_facing(), &stranger).is_err());
}

#[test]
fn peers_need_certificates_of_the_ca_and_names_only_where_they_are_checked() {
    let pki = Pki::new();
    let mut params = pki.params("node");
    params.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from("elsewhere").unwrap())];
    pki.issue("server", params);
    let material = pki.load(pki.options()).unwrap();
    let server = Arc::new(material.peer_server(&[b"h2"]).unwrap());
    let client = |names| Arc::new(material.peer_client(names, &[b"h2"]).unwrap());
    let (connected, _) = connect(&server, &client(PeerNames::Unchecked)).unwrap();
    assert_eq!(connected.alpn_protocol(), Some(&b"h2"[..]));
    assert!(connect(&server, &client(PeerNames::Checked)).is_err());
    assert!(connect(&server, &bare_client(&pki)).is_err());
    let other = Pki::new();
    let stranger = other.load(other.options()).unwrap().peer_client(PeerNames::Unchecked, &[]).unwrap();
    assert!(connect(&server, &Arc::new(stranger)).is_err());
}

#[test]
fn protocols_and_suites_are_those_that_are_allowed() {
    let pki = Pki::new();
    let unasked = || TlsOptions { client_certificates: ClientCertificates::Unasked, ..pki.options() };
    let client = bare_client(&pki);
    let negotiated = |options: TlsOptions| {
        let (_, server) = connect(pki.load(options).unwrap().client_facing(), &client).unwrap();
        (server.protocol_version().unwrap(), server.negotiated_cipher_suite().unwrap().suite())
    };
    let (version, suite) = negotiated(TlsOptions {
        protocols: "TLSv1.2".into(),
        ciphers: "ECDHE-ECDSA-CHACHA20-POLY1305".into(),
        ..unasked()
    });
    assert_eq!(version, rustls::ProtocolVersion::TLSv1_2);
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
    let (version, suite) =
        negotiated(TlsOptions { ciphersuites: "TLS_AES_128_GCM_SHA256".into(), ..unasked() });
    assert_eq!(version, rustls::ProtocolVersion::TLSv1_3);
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn sessions_are_resumed_if_they_are_kept_at_all() {
    let pki = Pki::new();
    for protocols in ["TLSv1.2", "TLSv1.3"] {
        for (sessions, again) in
            [(None, rustls::HandshakeKind::Full), (pki.options().sessions, rustls::HandshakeKind::Resumed)]
        {
            let options = TlsOptions {
                client_certificates: ClientCertificates::Unasked,
                protocols: protocols.into(),
                sessions,
                ..pki.options()
            };
            let (material, client) = (pki.load(options).unwrap(), bare_client(&pki));
            connect(material.client_facing(), &client).unwrap();
            let (_, server) = connect(material.client_facing(), &client).unwrap();
            assert_eq!(server.handshake_kind(), Some(again), "{protocols}");
        }
    }
}

#[test]
fn changed_files_are_noticed() {
    let pki = Pki::new();
    fs::create_dir(pki.path("cas")).unwrap();
    fs::copy(pki.path("ca.crt"), pki.path("cas/a")).unwrap();
    let options = || TlsOptions { ca_dir: Some(pki.path("cas")), ..pki.options() };
    let material = pki.load(options()).unwrap();
    assert!(!material.files_have_changed());
    fs::copy(pki.path("ca.crt"), pki.path("cas/b")).unwrap();
    assert!(material.files_have_changed());
    let material = pki.load(options()).unwrap();
    pki.issue("server", pki.params("again"));
    assert!(material.files_have_changed());
    fs::remove_file(pki.path("server.crt")).unwrap();
    assert!(material.files_have_changed());
}

#[test]
fn damaged_certificates_name_whom_they_name_or_nobody() {
    let pki = Pki::new();
    let mut params = pki.params("somebody");
    params.subject_alt_names.push(SanType::URI("keyward:node".try_into().unwrap()));
    let der = pki.issue("client", params);
    let mut rng = SmallRng::seed_from_u64(14);
    let mut named = 0;
    for _ in 0..20_000 {
        let mut bytes = der.as_ref().to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        if rng.random_bool(0.1) {
            bytes.truncate(rng.random_range(0..bytes.len()));
        }
        let damaged = CertificateDer::from(bytes);
        for field in [NameField::CommonName, NameField::Uri] {
            let names = user_names(&damaged, field);
            assert!(names.iter().all(|name| !name.is_empty() && !name.contains('\0')), "{names:?}");
            named += names.len();
        }
    }
    assert!(named > 0);
}

#[test]
fn users_are_named_by_common_name_or_uri_and_never_with_a_nul() {
    let pki = Pki::new();
    let common_name = |name: &str| {
        let mut params = pki.params("");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(name.to_owned()));
        user_names(&pki.issue("client", params), NameField::CommonName)
    };
    assert_eq!(common_name("alice"), ["alice"]);
    assert_eq!(common_name("jürgen"), ["jürgen"]);
    assert!(
        common_name("alice\0bob").is_empty() && common_name("\0").is_empty() && common_name("").is_empty()
    );
    let uris = |uris: &[&str]| {
        let mut params = pki.params("alice");
        let uri = |uri: &&str| SanType::URI(Ia5String::try_from(*uri).unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        let der = pki.issue("client", params);
        (user_names(&der, NameField::Uri), user_names(&der, NameField::CommonName))
    };
    assert_eq!(uris(&["urn:a", "urn:b\0c", "urn:d"]).0, ["urn:a", "urn:d"]);
    assert_eq!(uris(&[]), (vec![], vec!["alice".to_owned()]));
    // An extension that is none.
    let mut params = pki.params("alice");
    params.subject_alt_names.clear();
    params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0x7f]));
    let der = pki.issue("client", params);
    assert!(user_names(&der, NameField::Uri).is_empty());
    assert!(user_names(&CertificateDer::from(vec![0x30, 0x03, 1, 2]), NameField::CommonName).is_empty());
}

/// Clients choose the bytes of their certificates: whatever they are, nothing breaks, and no name has a NUL.
#[test]
fn damaged_certificates_are_read_or_refused() {
    let pki = Pki::new();
    let mut params = pki.params("alice");
    params.subject_alt_names.push(SanType::URI(Ia5String::try_from("urn:user:alice").unwrap()));
    let good = pki.issue("client", params);
    let mut random = 1_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut read = 0;
    for _ in 0..50_000 {
        let mut bytes = good.to_vec();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            bytes[at] = next(256) as u8;
        }
        if next(4) == 0 {
            bytes.truncate(next(bytes.len()));
        }
        let der = CertificateDer::from(bytes);
        read += usize::from(Certificate::read(&der).is_ok());
        for field in [NameField::CommonName, NameField::Uri] {
            assert!(user_names(&der, field).iter().all(|name| !name.contains('\0')));
        }
    }
    assert!(1000 < read, "{read}");
}

/// A client with the layer of its server.
fn talk() -> (ClientConnection, Layer) {
    let pki = Pki::new();
    let options = TlsOptions { client_certificates: ClientCertificates::Unasked, ..pki.options() };
    let (client, server) = connect(pki.load(options).unwrap().client_facing(), &bare_client(&pki)).unwrap();
    (client, Layer::new(server))
}

fn sent(client: &mut ClientConnection, bytes: &[u8]) -> Vec<u8> {
    client.set_buffer_limit(None);
    client.writer().write_all(bytes).unwrap();
    let mut records = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut records).unwrap();
    }
    records
}

fn received(client: &mut ClientConnection, mut records: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !records.is_empty() {
        client.read_tls(&mut records).unwrap();
        client.process_new_packets().unwrap();
        let mut buffer = [0; 1 << 15];
        while let Ok(taken @ 1..) = client.reader().read(&mut buffer) {
            plain.extend_from_slice(&buffer[..taken]);
        }
    }
    plain
}

#[test]
fn requests_are_decrypted_however_they_are_cut() {
    let (mut client, mut layer) = talk();
    let mut plain = vec![0; layer::PLAIN_BYTES_MIN];
    let request: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    for piece in [1, 5, 1000, layer::CIPHERTEXT_BYTES_MAX] {
        let (request, mut got) = (&request[..piece.clamp(100, 10_000) * 20], Vec::new());
        for part in sent(&mut client, request).chunks(piece) {
            let filled = layer.decrypt(part, &mut plain).unwrap();
            got.extend_from_slice(&plain[..filled]);
            assert_eq!(layer.buffered(&mut plain), 0, "all of it had room");
        }
        assert_eq!(got, request);
    }
    // What has no room waits.
    let records = sent(&mut client, b"abcdef");
    assert_eq!(layer.decrypt(&records, &mut plain[..4]).unwrap(), 4);
    assert_eq!(layer.buffered(&mut plain), 2);
}

#[test]
fn a_client_that_does_not_read_is_bounded_by_one_write() {
    let (mut client, mut layer) = talk();
    let reply = vec![7; 1 << 20];
    let mut socket = Pipe { room: 100, ..Pipe::default() };
    let taken = layer.write(&mut socket, &[IoSlice::new(&reply)]).unwrap();
    assert!(0 < taken && taken <= 64 << 10 && layer.waits());
    assert_eq!(layer.waiting_bytes(), taken);
    for _ in 0..3 {
        let refused = layer.write(&mut socket, &[IoSlice::new(&reply)]).unwrap_err();
        assert_eq!((refused.kind(), layer.waiting_bytes()), (ErrorKind::WouldBlock, taken));
        socket.room += 100;
    }
    socket.room = usize::MAX;
    layer.flush(&mut socket).unwrap();
    assert_eq!((layer.waits(), layer.waiting_bytes()), (false, 0));
    let (first, second) = reply[taken..].split_at(1000);
    let mut written = taken;
    while written < reply.len() {
        let done = written - taken;
        let slices =
            [IoSlice::new(&first[done.min(1000)..]), IoSlice::new(&second[done.saturating_sub(1000)..])];
        written += layer.write(&mut socket, &slices).unwrap();
    }
    assert_eq!(received(&mut client, &socket.bytes), reply);
}

#[test]
fn both_sides_say_goodbye() {
    let (mut client, mut layer) = talk();
    let mut plain = vec![0; 100];
    let mut records = sent(&mut client, b"QUIT");
    client.send_close_notify();
    client.write_tls(&mut records).unwrap();
    assert_eq!((layer.decrypt(&records, &mut plain).unwrap(), layer.has_ended()), (4, true));
    assert_eq!(layer.decrypt(b"more", &mut plain).unwrap(), 0);
    let mut socket = Pipe { room: 1000, ..Pipe::default() };
    layer.write(&mut socket, &[IoSlice::new(b"+OK\r\n")]).unwrap();
    layer.close(&mut socket);
    let mut rest = socket.bytes.as_slice();
    client.read_tls(&mut rest).unwrap();
    assert!(client.process_new_packets().unwrap().peer_has_closed());
}

/// What comes with the last bytes of the handshake is decrypted with these.
#[test]
fn a_goodbye_right_behind_the_handshake_is_noticed() {
    let pki = Pki::new();
    let options = TlsOptions { client_certificates: ClientCertificates::Unasked, ..pki.options() };
    let (mut client, mut server) =
        connect(pki.load(options).unwrap().client_facing(), &bare_client(&pki)).unwrap();
    let mut records = sent(&mut client, b"QUIT");
    client.send_close_notify();
    client.write_tls(&mut records).unwrap();
    server.read_tls(&mut records.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let (mut layer, mut plain) = (Layer::new(server), [0; 100]);
    assert_eq!((layer.buffered(&mut plain), layer.buffered(&mut plain), layer.has_ended()), (4, 0, true));
}

#[test]
fn what_is_no_record_ends_the_connection_and_the_client_is_told() {
    let (_, mut layer) = talk();
    let error = layer.decrypt(b"*1\r\n$4\r\nPING\r\n", &mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let mut socket = Pipe { room: 1000, ..Pipe::default() };
    layer.flush(&mut socket).unwrap();
    assert!(!socket.bytes.is_empty());
}
