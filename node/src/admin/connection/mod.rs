//! Commands of the group connection: who the client is ([`hello`]), what it does with its session ([`session`]), and
//! CLIENT ([`client`], [`listing`] with the filters of LIST and KILL in [`filter`], [`tracking`]).

#[cfg(test)]
mod tests;

mod client;
mod filter;
mod hello;
pub(crate) mod listing;
mod session;
mod tracking;

use crate::admin::ServerCommand;
use crate::command::spec::{Group, family};
use client::{
    CLIENT, CLIENT_GETNAME, CLIENT_HELP, CLIENT_ID, CLIENT_NO_EVICT, CLIENT_NO_TOUCH, CLIENT_PAUSE,
    CLIENT_REPLY, CLIENT_SETINFO, CLIENT_SETNAME, CLIENT_UNBLOCK, CLIENT_UNPAUSE,
};
use hello::{AUTH, HELLO};
use listing::{CLIENT_INFO, CLIENT_KILL, CLIENT_LIST};
use session::{ECHO, PING, QUIT, RESET, SELECT};
use tracking::{
    CLIENT_CACHING, CLIENT_CAPA, CLIENT_GETREDIR, CLIENT_IMPORT_SOURCE, CLIENT_TRACKING, CLIENT_TRACKINGINFO,
};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [ServerCommand; 28] = family(Group::Connection, [
    AUTH, CLIENT, CLIENT_GETNAME, CLIENT_HELP, CLIENT_ID, CLIENT_INFO, CLIENT_KILL, CLIENT_LIST,
    CLIENT_NO_EVICT, CLIENT_NO_TOUCH, CLIENT_PAUSE, CLIENT_REPLY, CLIENT_SETINFO, CLIENT_SETNAME,
    CLIENT_UNBLOCK, CLIENT_UNPAUSE, CLIENT_CACHING, CLIENT_CAPA, CLIENT_GETREDIR, CLIENT_IMPORT_SOURCE,
    CLIENT_TRACKING, CLIENT_TRACKINGINFO, ECHO, HELLO, PING, QUIT, RESET, SELECT,
]);
