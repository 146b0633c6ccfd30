//! How a connection ends on which the client may still be sending.
#![allow(clippy::disallowed_methods, reason = "shell: waits with a deadline")]

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::trace;

/// How long, and for how many bytes, a connection that ends takes what the client still sends.
const LIMIT: Duration = Duration::from_secs(1);
const BYTES_MAX: usize = 256 << 20;
const READ_BYTES: usize = 16 << 10;

/// Ends the sending side, so that the client sees the end, and takes what it still sends: were the connection closed
/// with bytes unread, it would be reset, and the client might never see the last reply. Bounded: a client that goes on
/// sending is cut off.
pub async fn linger(stream: &mut TcpStream) {
    let mut scratch = vec![0; READ_BYTES];
    let drain = async {
        stream.shutdown().await?;
        let mut left = BYTES_MAX;
        while 0 < left {
            match stream.read(&mut scratch).await? {
                0 => break,
                taken => left = left.saturating_sub(taken),
            }
        }
        io::Result::Ok(())
    };
    match timeout(LIMIT, drain).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => trace!(%error, "while lingering"),
        Err(_) => trace!("the client does not close"),
    }
}
