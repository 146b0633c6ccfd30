//! The encryption of one connection after its handshake, apart from its socket.
//!
//! Whoever owns the socket gives what it has received and writes through here. Nothing is kept but half a record that
//! has come, and records that the socket did not take: those count as waiting for the client. So a client that does not
//! send and reads what it gets costs little memory, and one that does not read is bounded by the records of one write.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use rustls::ServerConnection;

/// Bytes that are decrypted at once: the most that is given to [`Layer::decrypt`] for it to need no more room than
/// [`PLAIN_BYTES_MIN`], with half a record from before.
pub const CIPHERTEXT_BYTES_MAX: usize = 32 << 10;
/// The room for what is decrypted.
pub const PLAIN_BYTES_MIN: usize = 64 << 10;
/// Bytes that are encrypted at once: while they wait no more are.
const WRITE_BYTES: usize = 64 << 10;

/// See the module documentation.
#[derive(Debug)]
pub struct Layer {
    tls: ServerConnection,
    /// Bytes of replies in the records that the socket has not taken; at most what was put in since all had been taken.
    waiting_bytes: usize,
    /// The client has said that nothing more comes.
    has_ended: bool,
}

impl Layer {
    /// Of a connection whose handshake is done. What has come behind it is the first that [`Layer::buffered`] gives.
    pub fn new(mut tls: ServerConnection) -> Layer {
        tls.set_buffer_limit(Some(WRITE_BYTES));
        Layer { tls, waiting_bytes: 0, has_ended: false }
    }

    /// Decrypts what the socket has brought; returns how much of `plain` it fills, which is nothing while a record is not
    /// whole. What does not fit is what [`Layer::buffered`] gives.
    ///
    /// # Errors
    /// The client has broken the protocol: the connection ends. [`Layer::flush`] tells the client why.
    pub fn decrypt(&mut self, mut ciphertext: &[u8], plain: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while !ciphertext.is_empty() && !self.has_ended {
            self.tls.read_tls(&mut ciphertext)?;
            let state = self.tls.process_new_packets();
            let state = state.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            self.has_ended = state.peer_has_closed();
            filled += self.buffered(plain.get_mut(filled..).unwrap_or_default());
        }
        Ok(filled)
    }

    /// Gives what was decrypted before and had no room; returns how much of `plain` it fills.
    #[inline]
    pub fn buffered(&mut self, plain: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(room) = plain.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.tls.reader().read(room) {
                // It may have said so with the last bytes of its handshake.
                Ok(0) => {
                    self.has_ended = true;
                    break;
                }
                Ok(taken) => filled += taken,
                // Only tells why nothing is there.
                Err(_) => break,
            }
        }
        filled
    }

    /// Whether the client has said that nothing more comes.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether records wait for the socket.
    #[inline]
    pub fn waits(&self) -> bool {
        self.tls.wants_write()
    }

    /// Bytes of replies that wait here, at least those that do.
    #[inline]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Encrypts and writes as much as the socket takes at once; returns how much of `plain` is done with. Of that some
    /// may wait here ([`Layer::waits`]), and then [`Layer::flush`] is to be called when the socket is ready.
    ///
    /// # Errors
    /// `WouldBlock`: nothing was taken. Others are the socket's.
    pub fn write(&mut self, socket: &mut impl Write, plain: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(socket)?;
        if self.waits() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = self.tls.writer().write_vectored(plain)?;
        self.waiting_bytes += taken;
        self.flush(socket)?;
        Ok(taken)
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// The socket's, but for `WouldBlock`.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Tells the client that nothing more comes, if the socket takes that at once.
    pub fn close(&mut self, socket: &mut impl Write) {
        self.tls.send_close_notify();
        if let Err(error) = self.flush(socket) {
            tracing::trace!(%error, "while a connection ends");
        }
    }
}
