//! A client that sends much and looks at little: replies are read over, and their end is found in one pass however
//! long they are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::resp_client::encode;

const DEADLINE: Duration = Duration::from_secs(120);
/// So much is sent before replies are read.
const SENT_MAX: usize = 32 << 10;
/// Elements of one command, where there may be several.
const ELEMENTS_MAX: usize = 500;

/// See the module documentation. The first thing that goes wrong is kept, and nothing is sent any more.
#[derive(Debug)]
pub struct Client {
    addr: String,
    stream: BufReader<TcpStream>,
    unsent: Vec<u8>,
    open: usize,
    error: Option<String>,
    others: Vec<Client>,
}

impl Client {
    /// # Errors
    /// Nobody listens there.
    pub fn connect(addr: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(addr).map_err(|e| e.to_string())?;
        let options = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(DEADLINE)))
            .and_then(|()| stream.set_write_timeout(Some(DEADLINE)));
        options.map_err(|e| e.to_string())?;
        let stream = BufReader::with_capacity(256 << 10, stream);
        let (unsent, others) = (Vec::new(), Vec::new());
        Ok(Client { addr: addr.to_owned(), stream, unsent, open: 0, error: None, others })
    }

    /// Another connection, which lives as long as this one.
    pub fn other(&mut self) -> &mut Client {
        let other = Client::connect(&self.addr).unwrap_or_else(|error| panic!("{}: {error}", self.addr));
        self.others.push(other);
        self.others.last_mut().expect("it was just added")
    }

    /// # Errors
    /// The first thing that went wrong.
    pub fn check(&self) -> Result<(), String> {
        self.others.iter().try_for_each(Client::check)?;
        self.error.clone().map_or(Ok(()), Err)
    }

    /// # Errors
    /// The first thing that went wrong.
    pub fn close(mut self) -> Result<(), String> {
        self.finish();
        self.check()
    }

    /// Sends a command with its replies to be read later. Words are separated by spaces.
    pub fn queue(&mut self, command: &str) {
        self.queue_words(&command.split(' ').map(str::as_bytes).collect::<Vec<_>>(), 1);
    }

    fn queue_words(&mut self, words: &[&[u8]], replies: usize) {
        encode(words, &mut self.unsent);
        self.open += replies;
        if SENT_MAX < self.unsent.len() {
            self.finish();
        }
    }

    /// Sends what is left and reads all replies.
    pub fn finish(&mut self) {
        self.exchange(&mut |_| ());
    }

    /// Sends a command and reads its reply.
    pub fn call(&mut self, command: &str) {
        self.queue(command);
        self.finish();
    }

    /// One command with all these words behind its first ones, and one reply.
    pub fn call_with(&mut self, command: &str, words: &[impl AsRef<[u8]>]) {
        self.call_for_each(command, words, 1);
    }

    /// As [`Client::call_with`], with several replies.
    pub fn call_for_each(&mut self, command: &str, words: &[impl AsRef<[u8]>], replies: usize) {
        let words: Vec<&[u8]> =
            command.split(' ').map(str::as_bytes).chain(words.iter().map(AsRef::as_ref)).collect();
        self.queue_words(&words, replies);
        self.finish();
    }

    /// Several commands with some of these words each, in groups of `group`.
    pub fn call_in_parts(&mut self, command: &str, words: &[impl AsRef<[u8]>], group: usize) {
        for part in words.chunks(ELEMENTS_MAX / group * group) {
            let words: Vec<&[u8]> =
                command.split(' ').map(str::as_bytes).chain(part.iter().map(AsRef::as_ref)).collect();
            self.queue_words(&words, 1);
        }
        self.finish();
    }

    /// Sends a command without waiting for its reply.
    pub fn send(&mut self, command: &str) {
        self.queue(command);
        let unsent = std::mem::take(&mut self.unsent);
        let sent = self.stream.get_mut().write_all(&unsent);
        self.note(sent.map_err(|e| e.to_string()));
    }

    /// Every bulk string of the reply to a command.
    pub fn read(&mut self, command: &str) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        self.queue(command);
        self.exchange(&mut |bulk| found.push(bulk.to_vec()));
        found
    }

    /// What SCAN or one of its like shows, in its order. The command ends before the cursor.
    pub fn scan(&mut self, command: &str) -> Vec<Vec<u8>> {
        let (mut found, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let mut page = self.read(&format!("{command} {cursor} COUNT 1000")).into_iter();
            cursor = page.next().map_or_else(String::new, |text| String::from_utf8_lossy(&text).into_owned());
            found.extend(page);
            if cursor == "0" || self.error.is_some() {
                return found;
            }
        }
    }

    fn note(&mut self, result: Result<(), String>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    fn exchange(&mut self, visit: &mut dyn FnMut(&[u8])) {
        let (unsent, open) = (std::mem::take(&mut self.unsent), std::mem::take(&mut self.open));
        if self.error.is_none() {
            let mut result = self.stream.get_mut().write_all(&unsent).map_err(|e| e.to_string());
            for _ in 0..open {
                result = result.and_then(|()| self.read_reply(visit));
            }
            self.note(result);
        }
    }

    fn read_reply(&mut self, visit: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let len = || text[1..].parse::<i64>().map_err(|_| format!("{text:?} is no length"));
        match line.first() {
            Some(b'+' | b':') => Ok(()),
            Some(b'-') => Err(text),
            Some(b'$') => {
                let Ok(len) = usize::try_from(len()?) else { return Ok(()) };
                let mut bulk = vec![0; len + 2];
                self.stream.read_exact(&mut bulk).map_err(|e| e.to_string())?;
                visit(&bulk[..len]);
                Ok(())
            }
            Some(b'*') => (0..len()?).try_for_each(|_| self.read_reply(visit)),
            Some(_) | None => Err(format!("{text:?} is no reply")),
        }
    }
}
