//! Clients and their bytes: the threads that serve them ([`threads`]), one client's connection ([`connection`]), its
//! session ([`session`]), and the connected clients as others see them ([`clients`]). What a connection decides is pure:
//! how much it reads and executes (`flow`), what its client receives and when ([`outbox`]), and when a request that
//! has to wait goes on ([`wait`]). `pass`: what a thread does once for all connections that were ready. [`pause`]: CLIENT PAUSE. [`pulse`]: whether the threads come to run. `meanwhile`:
//! connections of a thread that runs a long script. `accept`: new connections, with their handshakes if they have TLS.

pub(crate) mod accept;
pub mod clients;
pub mod connection;
mod flow;
pub(crate) mod meanwhile;
pub mod outbox;
mod pass;
pub mod pause;
pub mod pulse;
pub mod session;
pub mod threads;
pub mod wait;
