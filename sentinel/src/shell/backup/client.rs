//! A client of a node, as far as backups need one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use keyward_net::duplex::{self, Duplex};
use keyward_net::tls::Material;
use keyward_proto::peer::split_address;
use keyward_proto::resp::reply::write_command;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A node that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
const BUFFER_BYTES: usize = 1 << 20;
/// Of a reply.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// How nodes are reached.
pub(super) struct Access {
    pub password: String,
    pub tls: Option<Arc<Material>>,
}

/// A connection that is let in.
pub(super) struct Client {
    address: String,
    stream: BufReader<Box<dyn Duplex>>,
}

impl Client {
    /// # Errors
    /// In words, with the address.
    pub(super) async fn connect(address: &str, access: &Access) -> Result<Client, String> {
        let told = |error: io::Error| format!("{address}: {error}");
        let connected = timeout(CONNECT_LIMIT, open(address, access)).await;
        let stream = connected.map_err(|_| format!("{address}: it does not answer"))?.map_err(told)?;
        let mut client =
            Client { address: address.to_owned(), stream: BufReader::with_capacity(BUFFER_BYTES, stream) };
        if !access.password.is_empty() {
            client.call(&[b"AUTH", access.password.as_bytes()]).await?;
        }
        Ok(client)
    }

    /// The reply to a command that is answered by a word, a number or a string.
    ///
    /// # Errors
    /// The node's, or the connection's, in words.
    pub(super) async fn call(&mut self, words: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut request = BytesMut::new();
        write_command(&mut request, words);
        self.send(&request).await?;
        self.reply().await
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = async {
            self.stream.get_mut().write_all(bytes).await?;
            self.stream.get_mut().flush().await
        };
        let sent = timeout(SILENCE, sent).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        sent.map_err(|error| format!("{}: {error}", self.address))
    }

    pub(super) async fn reply(&mut self) -> Result<Vec<u8>, String> {
        let line = self.line().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match line.split_first() {
            Some((b'+' | b':', rest)) => Ok(rest.to_vec()),
            Some((b'-', rest)) => Err(format!("{}: {}", self.address, text(rest))),
            Some((b'$', rest)) => {
                let length: usize = text(rest).parse().map_err(|_| self.not_understood(&line))?;
                if REPLY_BYTES_MAX < length {
                    return Err(self.not_understood(&line));
                }
                let mut reply = vec![0; length + 2];
                self.read(&mut reply).await?;
                reply.truncate(length);
                Ok(reply)
            }
            _ => Err(self.not_understood(&line)),
        }
    }

    fn not_understood(&self, line: &[u8]) -> String {
        format!("{}: an answer that is not understood: {}", self.address, line.escape_ascii())
    }

    /// The next line that is not empty: a node that prepares something sends empty ones.
    pub(super) async fn line(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let mut line = Vec::new();
            let mut stream = (&mut self.stream).take(BUFFER_BYTES as u64);
            let read = timeout(SILENCE, stream.read_until(b'\n', &mut line)).await;
            match read.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
                Ok(_) if line.ends_with(b"\r\n") => line.truncate(line.len() - 2),
                Ok(_) if line == b"\n" => continue,
                Ok(_) => return Err(format!("{}: the connection has ended", self.address)),
                Err(error) => return Err(format!("{}: {error}", self.address)),
            }
            if !line.is_empty() {
                return Ok(line);
            }
        }
    }

    async fn read(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        let read = timeout(SILENCE, self.stream.read_exact(bytes)).await;
        let read = read.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        read.map(drop).map_err(|error| format!("{}: {error}", self.address))
    }

    /// Some of what comes; nothing: the connection has ended.
    pub(super) async fn some(&mut self) -> Result<Vec<u8>, String> {
        let read = timeout(SILENCE, self.stream.fill_buf()).await;
        match read.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
            Ok(bytes) => {
                let bytes = bytes.to_vec();
                self.stream.consume(bytes.len());
                Ok(bytes)
            }
            Err(error) => Err(format!("{}: {error}", self.address)),
        }
    }
}

async fn open(address: &str, access: &Access) -> io::Result<Box<dyn Duplex>> {
    let (host, port) = split_address(address).ok_or_else(|| io::Error::other("not host:port"))?;
    let socket = TcpStream::connect((host, port)).await?;
    socket.set_nodelay(true)?;
    match &access.tls {
        Some(material) => duplex::encrypt(socket, host, material).await,
        None => Ok(Box::new(socket)),
    }
}
