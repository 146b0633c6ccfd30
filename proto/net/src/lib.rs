//! What both programs do with clocks and sockets in the same way.
//!
//! - [`bus`]: gRPC over connections whose both ends know the cluster's secret
//! - [`clock`]: the clock that leases go by
//! - [`crowd`]: connections that make room for each other
//! - [`flight`]: recordings of the last minutes, in files
//! - [`http`]: a port for HTTP that takes nothing away from the others
//! - [`linger`]: how a connection ends so that the client can read why
//! - [`logging`]: the form of the lines that are logged
//! - [`observe`]: metrics, health and readiness over HTTP
//! - [`reach`]: why another process does not answer, in words
//! - [`stream`]: a client's connection, encrypted or not
//! - [`tls`]: certificates, keys and encrypted connections
//!
//! Nothing is decided here; the rules about other processes are those of [`keyward_proto::peer`].

pub mod bus;
pub mod clock;
pub mod crowd;
pub mod duplex;
pub mod flight;
pub mod http;
pub mod linger;
pub mod logging;
pub mod observe;
pub mod reach;
pub mod stream;
pub mod tls;
