//! A client's session and what each command does to it. Pure: replies go to a buffer, and what the
//! shell has to do afterwards is returned.

use std::collections::BTreeSet;
use std::fmt::Write;

use bytes::{Bytes, BytesMut};
use keyward_proto::VALKEY_VERSION;
use keyward_proto::ids::ShardId;
use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{ReplyWriter, Version};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Transport;

use super::info::info;
use super::instances::View;
use super::subcommand::sentinel;
use crate::rules::events::Event;
use keyward_proto::glob;

/// Subscriptions of one client.
const SUBSCRIPTIONS_MAX: usize = 1000;

/// What the shell must do after the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AfterReply {
    Nothing,
    Close,
    FailOver(ShardId),
}

/// Whether a client has given the password, or needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    Stranger,
    Known,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub id: u64,
    pub address: String,
    pub since: Monotonic,
    transport: Transport,
    version: Version,
    trust: Trust,
    name: Bytes,
    lib_name: Bytes,
    lib_version: Bytes,
    channels: BTreeSet<Bytes>,
    patterns: BTreeSet<Bytes>,
}

/// Name, arity as COMMAND reports it, flags.
const COMMANDS: &[(&str, i64, &[&str])] = &[
    ("auth", -2, &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"]),
    ("client", -2, &[]),
    ("command", -1, &["loading", "stale"]),
    ("hello", -1, &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"]),
    ("info", -1, &["loading", "stale"]),
    ("ping", -1, &["fast"]),
    ("psubscribe", -2, &["pubsub", "noscript", "loading", "stale"]),
    ("publish", 3, &["pubsub", "loading", "stale", "fast", "may_replicate"]),
    ("punsubscribe", -1, &["pubsub", "noscript", "loading", "stale"]),
    ("quit", -1, &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"]),
    ("reset", 1, &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"]),
    ("role", 1, &["noscript", "loading", "stale", "fast"]),
    ("sentinel", -2, &[]),
    ("subscribe", -2, &["pubsub", "noscript", "loading", "stale"]),
    ("unsubscribe", -1, &["pubsub", "noscript", "loading", "stale"]),
];

impl Session {
    /// `password` is what clients have to give, if anything.
    pub(crate) fn new(
        id: u64,
        address: String,
        transport: Transport,
        since: Monotonic,
        password: Option<&str>,
    ) -> Self {
        Session {
            id,
            address,
            since,
            transport,
            version: Version::default(),
            trust: if password.is_some() { Trust::Stranger } else { Trust::Known },
            name: Bytes::new(),
            lib_name: Bytes::new(),
            lib_version: Bytes::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn trust(&self) -> Trust {
        self.trust
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    /// Writes what this client has subscribed to of an event.
    pub(crate) fn deliver(&self, event: &Event, out: &mut BytesMut) {
        if event.transport != self.transport {
            return;
        }
        let mut out = ReplyWriter::new(out, self.version);
        if self.channels.contains(event.channel.as_bytes()) {
            out.push(3);
            out.bulk_str("message");
            out.bulk_str(event.channel);
            out.bulk_str(&event.message);
        }
        for pattern in self.patterns.iter().filter(|p| glob::matches(p, event.channel.as_bytes())) {
            out.push(4);
            out.bulk_str("pmessage");
            out.bulk(pattern);
            out.bulk_str(event.channel);
            out.bulk_str(&event.message);
        }
    }

    /// Executes one command; `args` is not empty.
    pub(crate) fn execute(
        &mut self,
        view: &View<'_>,
        password: Option<&str>,
        args: &[Bytes],
        out: &mut BytesMut,
    ) -> AfterReply {
        let Some((first, rest)) = args.split_first() else { return AfterReply::Nothing };
        let command = lower(first);
        let mut out = ReplyWriter::new(out, self.version);
        let Some((_, arity, flags)) = COMMANDS.iter().find(|(name, ..)| *name == command) else {
            out.error(unknown_command(first, rest));
            return AfterReply::Nothing;
        };
        if self.trust == Trust::Stranger && !flags.contains(&"no_auth") {
            out.error("NOAUTH Authentication required.");
            return AfterReply::Nothing;
        }
        if !fits(*arity, args.len()) {
            out.error(format!("ERR wrong number of arguments for '{command}' command"));
            return AfterReply::Nothing;
        }
        let always = ["ping", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "quit", "reset"];
        if self.is_subscribed() && self.version == Version::Resp2 && !always.contains(&command.as_str()) {
            let with_subcommand = ["client", "sentinel", "command"].contains(&command.as_str());
            let sub = rest.first().filter(|_| with_subcommand).map(|s| format!("|{}", lower(s)));
            out.error(format!(
                "ERR Can't execute '{command}{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
                 allowed in this context",
                sub.unwrap_or_default()
            ));
            return AfterReply::Nothing;
        }
        match command.as_str() {
            "auth" => self.auth(password, rest, &mut out),
            "client" => self.client(view, rest, &mut out),
            "command" => command_table(rest, &mut out),
            "hello" => self.hello(password, rest, out),
            "info" => out.verbatim("txt", info(view, rest).as_bytes()),
            "ping" => self.ping(rest, &mut out),
            "psubscribe" | "subscribe" => self.subscribe(&command, rest, &mut out),
            "punsubscribe" | "unsubscribe" => self.unsubscribe(&command, rest, &mut out),
            "publish" => out.error("ERR Only HELLO messages are accepted by Sentinel instances."),
            "quit" => {
                out.ok();
                return AfterReply::Close;
            }
            "reset" => {
                *self = Session::new(
                    self.id,
                    std::mem::take(&mut self.address),
                    self.transport,
                    self.since,
                    password,
                );
                out.simple("RESET");
            }
            "role" => {
                let names = view.monitored();
                out.array(2);
                out.bulk_str("sentinel");
                out.array(names.len());
                names.iter().for_each(|m| out.bulk_str(&m.name));
            }
            _ => return sentinel(view, rest, &mut out),
        }
        AfterReply::Nothing
    }

    fn ping(&self, rest: &[Bytes], out: &mut ReplyWriter<'_>) {
        match rest {
            [] | [_] if self.is_subscribed() && self.version == Version::Resp2 => {
                out.array(2);
                out.bulk_str("pong");
                out.bulk(rest.first().map_or(&[], |text| text.as_ref()));
            }
            [] => out.simple("PONG"),
            [text] => out.bulk(text),
            _ => out.error("ERR wrong number of arguments for 'ping' command"),
        }
    }

    fn auth(&mut self, password: Option<&str>, rest: &[Bytes], out: &mut ReplyWriter<'_>) {
        match (password, rest) {
            (None, [_]) => out.error(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ),
            (_, [given]) => match self.authenticate(password, b"default", given) {
                Ok(()) => out.ok(),
                Err(error) => out.error(error),
            },
            (_, [user, given]) => match self.authenticate(password, user, given) {
                Ok(()) => out.ok(),
                Err(error) => out.error(error),
            },
            _ => out.error("ERR syntax error"),
        }
    }

    fn authenticate(
        &mut self,
        password: Option<&str>,
        user: &[u8],
        given: &[u8],
    ) -> Result<(), &'static str> {
        let is_right = password.is_none_or(|password| same_secret(password.as_bytes(), given));
        if user != b"default" || !is_right {
            return Err("WRONGPASS invalid username-password pair or user is disabled.");
        }
        self.trust = Trust::Known;
        Ok(())
    }

    fn hello(&mut self, password: Option<&str>, rest: &[Bytes], mut out: ReplyWriter<'_>) {
        let mut version = self.version;
        let mut options = rest;
        if let Some((wanted, after)) = rest.split_first() {
            version = match parse_i64(wanted) {
                Some(2) => Version::Resp2,
                Some(3) => Version::Resp3,
                Some(_) => return out.error("NOPROTO unsupported protocol version"),
                None => return out.error("ERR Protocol version is not an integer or out of range"),
            };
            options = after;
        }
        let mut name = None;
        while let Some((option, after)) = options.split_first() {
            options = match (lower(option).as_str(), after) {
                ("auth", [user, given, after @ ..]) => {
                    if let Err(error) = self.authenticate(password, user, given) {
                        return out.error(error);
                    }
                    after
                }
                ("setname", [given, after @ ..]) => {
                    name = Some(given.clone());
                    after
                }
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return out.error(format!("ERR Syntax error in HELLO option '{option}'"));
                }
            };
        }
        if self.trust == Trust::Stranger {
            return out.error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                 <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
                 the same time",
            );
        }
        if let Some(name) = name {
            if !is_plain(&name) {
                return out.error(BAD_NAME);
            }
            self.name = name;
        }
        self.version = version;
        out.set_version(version);
        out.map(6);
        out.bulk_str("server");
        out.bulk_str("valkey");
        out.bulk_str("version");
        out.bulk_str(VALKEY_VERSION);
        out.bulk_str("proto");
        out.integer(if version == Version::Resp3 { 3 } else { 2 });
        out.bulk_str("id");
        out.len(usize::try_from(self.id).unwrap_or(usize::MAX));
        out.bulk_str("mode");
        out.bulk_str("sentinel");
        out.bulk_str("modules");
        out.array(0);
    }

    fn client(&mut self, view: &View<'_>, rest: &[Bytes], out: &mut ReplyWriter<'_>) {
        let Some((first, rest)) = rest.split_first() else { return };
        match (lower(first).as_str(), rest) {
            ("id", []) => out.len(usize::try_from(self.id).unwrap_or(usize::MAX)),
            ("getname", []) if self.name.is_empty() => out.null(),
            ("getname", []) => out.bulk(&self.name),
            ("setname", [name]) if is_plain(name) => {
                self.name = name.clone();
                out.ok();
            }
            ("setname", [_]) => out.error(BAD_NAME),
            ("setinfo", [attribute, value]) => match lower(attribute).as_str() {
                "lib-name" if is_plain(value) => {
                    self.lib_name = value.clone();
                    out.ok();
                }
                "lib-ver" if is_plain(value) => {
                    self.lib_version = value.clone();
                    out.ok();
                }
                name @ ("lib-name" | "lib-ver") => {
                    out.error(format!("ERR {name} cannot contain spaces, newlines or special characters."))
                }
                other => out.error(format!("ERR Unrecognized option '{other}'")),
            },
            ("list" | "info", _) => out.verbatim("txt", self.describe(view.now).as_bytes()),
            ("no-evict" | "no-touch", [_]) => out.ok(),
            ("reply", [mode]) if lower(mode) == "on" => out.ok(),
            (sub @ ("id" | "getname" | "setname" | "setinfo" | "no-evict" | "no-touch" | "reply"), _) => {
                out.error(format!("ERR wrong number of arguments for 'client|{sub}' command"));
            }
            _ => out.error(unknown_subcommand(first, "CLIENT")),
        }
    }

    fn describe(&self, now: Monotonic) -> String {
        let text = String::from_utf8_lossy;
        let resp = if self.version == Version::Resp3 { 3 } else { 2 };
        let flags = if self.is_subscribed() { "P" } else { "N" };
        format!(
            "id={} addr={} name={} age={} idle=0 flags={flags} db=0 sub={} psub={} ssub=0 multi=-1 cmd=client|list \
             user=default redir=-1 resp={resp} lib-name={} lib-ver={}\n",
            self.id,
            self.address,
            text(&self.name),
            now.since(self.since).as_secs(),
            self.channels.len(),
            self.patterns.len(),
            text(&self.lib_name),
            text(&self.lib_version),
        )
    }

    fn subscribe(&mut self, command: &str, names: &[Bytes], out: &mut ReplyWriter<'_>) {
        for name in names {
            if SUBSCRIPTIONS_MAX <= self.channels.len() + self.patterns.len() {
                return out.error("ERR too many subscriptions");
            }
            let set = if command == "subscribe" { &mut self.channels } else { &mut self.patterns };
            set.insert(name.clone());
            self.confirm(command, Some(name), out);
        }
    }

    fn unsubscribe(&mut self, command: &str, names: &[Bytes], out: &mut ReplyWriter<'_>) {
        let set = if command == "unsubscribe" { &self.channels } else { &self.patterns };
        let names: Vec<Bytes> = if names.is_empty() { set.iter().cloned().collect() } else { names.to_vec() };
        if names.is_empty() {
            self.confirm(command, None, out);
        }
        for name in &names {
            let set = if command == "unsubscribe" { &mut self.channels } else { &mut self.patterns };
            set.remove(name);
            self.confirm(command, Some(name), out);
        }
    }

    fn confirm(&self, command: &str, name: Option<&Bytes>, out: &mut ReplyWriter<'_>) {
        out.push(3);
        out.bulk_str(command);
        out.optional_bulk(name.map(AsRef::as_ref));
        out.len(self.channels.len() + self.patterns.len());
    }
}

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|b| (b'!'..=b'~').contains(b))
}

/// Takes as long for a wrong password as for the right one.
fn same_secret(expected: &[u8], given: &[u8]) -> bool {
    let differing = expected.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    expected.len() == given.len() && differing == 0
}

pub(super) fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(word).to_ascii_lowercase()
}

fn fits(arity: i64, len: usize) -> bool {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    if arity < 0 { -arity <= len } else { arity == len }
}

fn unknown_command(name: &[u8], args: &[Bytes]) -> String {
    let shorten = |text: &[u8]| String::from_utf8_lossy(text).chars().take(128).collect::<String>();
    let mut shown = String::new();
    for arg in args {
        if 128 <= shown.len() {
            break;
        }
        write!(shown, "'{}' ", shorten(arg)).expect("writing to a String cannot fail");
    }
    format!("ERR unknown command '{}', with args beginning with: {shown}", shorten(name))
}

pub(super) fn unknown_subcommand(name: &[u8], command: &str) -> String {
    let name: String = String::from_utf8_lossy(name).chars().take(128).collect();
    format!("ERR unknown subcommand '{name}'. Try {command} HELP.")
}

fn command_table(rest: &[Bytes], out: &mut ReplyWriter<'_>) {
    let describe = |out: &mut ReplyWriter<'_>, (name, arity, flags): &(&str, i64, &[&str])| {
        out.array(10);
        out.bulk_str(name);
        out.integer(*arity);
        out.set(flags.len());
        flags.iter().for_each(|flag| out.simple(flag));
        (0..3).for_each(|_| out.integer(0));
        out.set(0);
        (0..3).for_each(|_| out.array(0));
    };
    let Some((sub, names)) = rest.split_first() else {
        out.array(COMMANDS.len());
        return COMMANDS.iter().for_each(|row| describe(out, row));
    };
    match lower(sub).as_str() {
        "count" => out.len(COMMANDS.len()),
        "docs" => out.map(0),
        "list" => {
            out.array(COMMANDS.len());
            COMMANDS.iter().for_each(|(name, ..)| out.bulk_str(name));
        }
        "info" => {
            out.array(names.len());
            for name in names {
                match COMMANDS.iter().find(|(known, ..)| *known == lower(name)) {
                    Some(row) => describe(out, row),
                    None => out.null_array(),
                }
            }
        }
        _ => out.error(unknown_subcommand(sub, "COMMAND")),
    }
}
