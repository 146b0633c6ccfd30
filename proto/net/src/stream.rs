//! A client's connection, encrypted or not.
//!
//! An enum and no trait object: a read or write of a plain connection costs one comparison more than the socket's own.
//! What is written to an encrypted one may wait in its [`Layer`]; it counts as waiting until it is flushed.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::linger::linger;
use crate::tls::layer::CIPHERTEXT_BYTES_MAX;
use crate::tls::{Layer, ServerConnection};

thread_local! {
    /// What a read has brought, until it is decrypted; made when this thread first reads what is encrypted.
    static CIPHERTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// See the module documentation.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<Encrypted>),
}

/// A socket with the encryption of what passes through it.
#[derive(Debug)]
pub struct Encrypted {
    socket: TcpStream,
    layer: Layer,
}

impl Stream {
    /// Of a connection whose handshake is done.
    pub fn encrypted(socket: TcpStream, connection: ServerConnection) -> Stream {
        Stream::Tls(Box::new(Encrypted { socket, layer: Layer::new(connection) }))
    }

    /// Ready when this runtime knows that the socket takes something. Before it has looked, a write at once would be
    /// refused, and what has come with the handshake would be answered too late if the client has already left.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // Nothing has been read of it.
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(encrypted) => encrypted.socket.poll_write_ready(cx),
        }
    }

    /// Whether something that was taken has not left.
    #[inline]
    pub fn waits(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(encrypted) => encrypted.layer.waits(),
        }
    }

    /// Bytes that were taken and have not left, at least those.
    #[inline]
    pub fn waiting_bytes(&self) -> usize {
        match self {
            Stream::Plain(_) => 0,
            Stream::Tls(encrypted) => encrypted.layer.waiting_bytes(),
        }
    }

    /// Writes what is taken at once.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is. Others are the socket's.
    #[inline]
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.try_write(bytes),
            Stream::Tls(encrypted) => encrypted.try_write(&[IoSlice::new(bytes)]),
        }
    }

    /// As [`Stream::try_write`], of several pieces.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn try_write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.try_write_vectored(pieces),
            Stream::Tls(encrypted) => encrypted.try_write(pieces),
        }
    }

    /// Reads while the runtime does not run: the socket itself is asked. Zero is the end, or nothing.
    ///
    /// # Errors
    /// The socket's, `WouldBlock` too; the client has broken the protocol.
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => (&*SockRef::from(&*socket)).read(buffer),
            Stream::Tls(encrypted) => {
                let Encrypted { socket, layer } = &mut **encrypted;
                let buffered = layer.buffered(buffer);
                if 0 < buffered {
                    return Ok(buffered);
                }
                with_ciphertext(|scratch| {
                    let received = (&*SockRef::from(&*socket)).read(scratch)?;
                    layer.decrypt(scratch.get(..received).unwrap_or_default(), buffer)
                })
            }
        }
    }

    /// Writes while the runtime does not run.
    ///
    /// # Errors
    /// The socket's, `WouldBlock` too.
    pub fn write_now(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => (&*SockRef::from(&*socket)).write_vectored(pieces),
            Stream::Tls(encrypted) => {
                let Encrypted { socket, layer } = &mut **encrypted;
                layer.write(&mut &*SockRef::from(&*socket), pieces)
            }
        }
    }

    /// Writes what waits here, while the runtime does not run.
    ///
    /// # Errors
    /// The socket's, but for `WouldBlock`.
    pub fn flush_now(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(encrypted) => {
                let Encrypted { socket, layer } = &mut **encrypted;
                layer.flush(&mut &*SockRef::from(&*socket))
            }
        }
    }

    /// Ends the sending side while the runtime does not run.
    ///
    /// # Errors
    /// The socket's.
    pub fn shutdown_now(&mut self) -> io::Result<()> {
        let socket = match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(encrypted) => {
                let Encrypted { socket, layer } = &mut **encrypted;
                layer.close(&mut &*SockRef::from(&*socket));
                socket
            }
        };
        SockRef::from(&*socket).shutdown(Shutdown::Write)
    }

    /// Tells the client that nothing more comes. The socket closes when this is dropped.
    pub fn say_goodbye(&mut self) {
        if let Stream::Tls(encrypted) = self {
            let Encrypted { socket, layer } = &mut **encrypted;
            layer.close(&mut Unblocking(socket));
        }
    }

    /// As [`linger`]: the client may be sending still, and shall be able to read what it was sent last.
    pub async fn linger(&mut self) {
        self.say_goodbye();
        match self {
            Stream::Plain(socket) => linger(socket).await,
            Stream::Tls(encrypted) => linger(&mut encrypted.socket).await,
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Plain(socket) => socket.as_raw_fd(),
            Stream::Tls(encrypted) => encrypted.socket.as_raw_fd(),
        }
    }
}

impl AsyncRead for Stream {
    /// The room in `buffer` is to be [`PLAIN_BYTES_MIN`](crate::tls::layer::PLAIN_BYTES_MIN): with less of it more has to
    /// be kept.
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Tls(encrypted) => encrypted.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Tls(encrypted) => encrypted.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, pieces),
            Stream::Tls(encrypted) => encrypted.poll_write(cx, pieces),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(encrypted) => encrypted.poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_goodbye();
        ready!(self.as_mut().poll_flush(cx))?;
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(encrypted) => Pin::new(&mut encrypted.socket).poll_shutdown(cx),
        }
    }
}

impl Encrypted {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        let mut filled = self.layer.buffered(room);
        if filled == 0 {
            filled = ready!(with_ciphertext(|scratch| self.poll_decrypt(cx, scratch, room)))?;
        }
        buffer.advance(filled);
        Poll::Ready(Ok(()))
    }

    /// Reads until something is decrypted, or to the end: zero.
    fn poll_decrypt(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // A client that sends records without anything in them is left by the runtime after some.
        loop {
            let mut received = ReadBuf::new(scratch);
            if !self.layer.has_ended() {
                ready!(Pin::new(&mut self.socket).poll_read(cx, &mut received))?;
            }
            if received.filled().is_empty() {
                // A client may end without saying so, as most do.
                return Poll::Ready(Ok(0));
            }
            let decrypted = self.layer.decrypt(received.filled(), room);
            if self.layer.waits() {
                // An alert, or an answer of the protocol itself.
                self.layer.flush(&mut Unblocking(&self.socket))?;
            }
            match decrypted {
                Ok(0) => {}
                decrypted => return Poll::Ready(decrypted),
            }
        }
    }

    fn try_write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.layer.write(&mut Unblocking(&self.socket), pieces)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.try_write(pieces) {
                // It was not ready after all.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.layer.waits() {
            ready!(self.socket.poll_write_ready(cx))?;
            self.layer.flush(&mut Unblocking(&self.socket))?;
        }
        Poll::Ready(Ok(()))
    }
}

fn with_ciphertext<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    CIPHERTEXT.with_borrow_mut(|scratch| {
        scratch.resize(CIPHERTEXT_BYTES_MAX, 0);
        read(scratch)
    })
}

/// Writes to a socket of the runtime what it takes at once.
struct Unblocking<'a>(&'a TcpStream);

impl Write for Unblocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
