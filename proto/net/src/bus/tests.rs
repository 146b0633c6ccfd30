#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::time::Duration;

use keyward_proto::bus::handshake::{GREETING_BYTES, MAGIC};
use keyward_proto::bus::rights::Role;
use keyward_proto::bus::{Identity, Secrets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;
use tonic::transport::server::Connected;

use super::*;

const SECRET: &str = "the-secret-of-this-cluster";

fn bus(role: Role, name: &str, secret: Option<&str>) -> Bus {
    let source = secret.map(|text| SecretSource::Value(Secrets::parse(text.as_bytes()).unwrap()));
    Bus::new(Identity::new(role, name).unwrap(), source)
}

fn sentinel(secret: Option<&str>) -> Bus {
    bus(Role::Sentinel, "s1", secret)
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_timeout(Duration::from_secs(5))
}

#[tokio::test]
async fn whoever_proves_itself_is_known_by_its_connection() {
    for (secret, expected) in
        [(Some(SECRET), Peer::Proven(Identity::new(Role::Operator, "").unwrap())), (None, Peer::Local)]
    {
        let (listener, address) = listener().await;
        let mut incoming = sentinel(secret).incoming(listener);
        let client = bus(Role::Operator, "", secret);
        let (connected, accepted) = tokio::join!(
            async { timeout(Duration::from_secs(5), client.connect(&endpoint(&address))).await },
            incoming.next()
        );
        // Nobody serves it: the connection is there, and HTTP/2 begins.
        assert!(connected.is_ok_and(|c| c.is_ok()));
        assert_eq!(accepted.unwrap().unwrap().connect_info().peer, expected);
    }
}

#[tokio::test]
async fn who_does_not_know_the_secret_is_told() {
    let (listener, address) = listener().await;
    let mut incoming = sentinel(Some(SECRET)).incoming(listener);
    let other = sentinel(Some("the-secret-of-another-one"));
    let error = other.connect(&endpoint(&address)).await.unwrap_err();
    assert_eq!(refusal(&error).unwrap(), "it has another cluster secret");
    // Without one it gets a greeting that says what is wanted.
    let mut stranger = TcpStream::connect(&address).await.unwrap();
    stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut greeting = [0; GREETING_BYTES];
    stranger.read_exact(&mut greeting).await.unwrap();
    assert!(greeting.starts_with(MAGIC));
    assert!(timeout(Duration::from_millis(200), incoming.next()).await.is_err(), "nobody was let in");
}

#[tokio::test]
async fn a_server_that_knows_no_secret_is_not_talked_to() {
    let (listener, address) = listener().await;
    let client = sentinel(Some(SECRET));
    let serves = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\0\0\x0c\x04\0\0\0\0\0").await.unwrap();
        let mut heard = Vec::new();
        // The other side may close with bytes unread.
        _ = stream.read_to_end(&mut heard).await;
        heard
    };
    let at = endpoint(&address);
    let (error, heard) = tokio::join!(client.connect(&at), serves);
    let words = refusal(&error.unwrap_err()).unwrap();
    assert!(words.starts_with("it does not ask for the cluster secret"), "{words}");
    assert_eq!(heard, b"");
}

#[tokio::test]
async fn who_says_nothing_keeps_nobody_out() {
    let (listener, address) = listener().await;
    let mut incoming = sentinel(Some(SECRET)).incoming(listener);
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    // Whoever can prove something is let in beside them, again and again.
    let client = sentinel(Some(SECRET));
    let at = endpoint(&address);
    let mut kept = Vec::new();
    for _ in 0..600 {
        let (connected, accepted) = tokio::join!(client.connect(&at), incoming.next());
        kept.push((connected.unwrap(), accepted.unwrap().unwrap()));
    }
    // Those that made room were there for longest; the time of the others is up soon. Who was let in stays.
    for stream in &mut silent {
        _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut Vec::new())).await.expect("closed");
    }
    for (_, accepted) in &mut kept {
        let mut preface = [0; 24];
        accepted.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }
}

#[test]
fn a_secret_comes_from_the_setting_or_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let (set, named) = (dir.path().join("set"), dir.path().join("named"));
    std::fs::write(&set, "the-secret-that-was-set\n").unwrap();
    std::fs::write(&named, "the-secret-that-was-named\n").unwrap();
    let found = |file: Option<&std::path::Path>, variables: &[(&str, &str)]| {
        let variable = |name: &str| Some(variables.iter().find(|(n, _)| *n == name)?.1.to_owned());
        SecretSource::find(file, variable).map(|source| source.map(|source| source.current()))
    };
    let secret = |text: &str| Some(Secrets::parse(text.as_bytes()).unwrap());
    let file = ("KEYWARD_CLUSTER_SECRET_FILE", named.to_str().unwrap());
    let value = ("KEYWARD_CLUSTER_SECRET", "the-secret-of-the-environment");
    assert_eq!(found(Some(&set), &[file, value]).unwrap(), secret("the-secret-that-was-set"));
    assert_eq!(found(None, &[file, value]).unwrap(), secret("the-secret-that-was-named"));
    assert_eq!(found(None, &[value]).unwrap(), secret("the-secret-of-the-environment"));
    assert_eq!(found(None, &[("KEYWARD_CLUSTER_SECRET", "")]).unwrap(), None);
    let error = found(None, &[("KEYWARD_CLUSTER_SECRET", "short")]).unwrap_err().to_string();
    assert!(error.contains("16 to 1024 bytes") && !error.contains("short"), "{error}");
    assert!(found(Some(&dir.path().join("none")), &[]).is_err());
}

#[test]
fn a_file_that_changes_is_read_again_and_one_that_breaks_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let write = |text: &str, seconds: u64| {
        std::fs::write(&path, text).unwrap();
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    };
    let secrets = |text: &str| Secrets::parse(text.as_bytes()).unwrap();
    write("the-first-of-the-secrets", 1);
    let source = SecretSource::find(Some(&path), |_| None).unwrap().unwrap();
    assert_eq!(source.current(), secrets("the-first-of-the-secrets"));
    write("the-second-of-the-secrets\nthe-first-of-the-secrets", 2);
    let both = secrets("the-second-of-the-secrets\nthe-first-of-the-secrets");
    assert_eq!(source.current(), both);
    write("broken", 3);
    assert_eq!(source.current(), both);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(source.current(), both);
}
