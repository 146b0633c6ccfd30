//! Clients and their bytes: the threads that serve them ([`threads`]), one client's connection ([`connection`]), its
//! session ([`session`]), and the connected clients as others see them ([`clients`]).

pub mod clients;
pub mod connection;
pub mod session;
pub mod threads;
