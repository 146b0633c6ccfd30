//! A connection that breaks off when the other side takes nothing for too long: whoever sends it news for ever would
//! otherwise keep them for somebody who is gone.

#![allow(clippy::disallowed_methods, reason = "shell: waits with a deadline")]

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Steady<S> {
    stream: S,
    /// How long the other side may take nothing.
    patience: Duration,
    /// While something waits to be taken.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Steady<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Steady<S> {
        Steady { stream, patience, until: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, taken: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if taken.is_ready() {
            self.until = None;
            return taken;
        }
        let patience = self.patience;
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(patience)));
        match until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Steady<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Steady<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, taken)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let taken = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, taken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let taken = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, taken)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_and_who_takes_something_is_not() {
        let (ours, _silent) = duplex(8);
        let mut steady = Steady::new(ours, Duration::from_millis(1));
        steady.write_all(&[0; 8]).await.unwrap();
        assert_eq!(steady.write_all(b"more").await.unwrap_err().kind(), ErrorKind::TimedOut);
        let (ours, mut theirs) = duplex(8);
        let mut steady = Steady::new(ours, Duration::from_secs(60));
        let read = async {
            let mut bytes = [0; 48];
            theirs.read_exact(&mut bytes).await.map(|_| bytes)
        };
        let (written, read) = tokio::join!(steady.write_all(&[7; 48]), read);
        written.unwrap();
        assert_eq!(read.unwrap(), [7; 48]);
    }
}
