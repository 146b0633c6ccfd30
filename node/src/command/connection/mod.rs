//! Commands of the group connection: who the client is ([`hello`]), what it does with its session ([`session`]), and
//! CLIENT ([`client`], [`listing`] with the filters of LIST and KILL in [`filter`]).

#[cfg(test)]
mod tests;

mod client;
mod filter;
mod hello;
mod listing;
mod session;

pub(super) use client::{
    client_getname, client_help, client_id, client_no_evict, client_no_touch, client_pause, client_reply,
    client_setinfo, client_setname, client_unblock, client_unpause,
};
pub(super) use hello::{auth, hello};
pub(super) use listing::{client_info, client_kill, client_list};
pub(super) use session::{echo, ping, quit, reset, select};
