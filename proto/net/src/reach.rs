//! Finds out why another process does not answer, and says so in words: the shell of [`keyward_proto::peer`].
#![allow(clippy::disallowed_methods, reason = "shell: connects over the network")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyward_proto::peer::{ANSWER_BYTES, Complaints, QUESTION, Speaks, Trouble, split_address};
use keyward_proto::rpc;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tracing::{info, warn};

use crate::bus::{Bus, refusal};
use crate::clock::monotonic;

/// For each step: a name, a connection, an answer.
const LIMIT: Duration = Duration::from_millis(500);

/// What was said of other processes, by their addresses.
#[derive(Debug)]
pub struct Reach {
    bus: Bus,
    /// As many as are known. Held for a few lines at a time.
    complaints: Mutex<BTreeMap<String, Complaints>>,
}

impl Reach {
    pub fn new(bus: Bus) -> Reach {
        Reach { bus, complaints: Mutex::default() }
    }

    /// `who` did not do what was asked; `status` is what it said, or gRPC. Finds out why, and says it if it is time to.
    pub fn failed(self: &Arc<Self>, who: &str, address: &str, status: Option<Status>) {
        if !self.complaints.lock().entry(address.to_owned()).or_default().begin_look(monotonic()) {
            return;
        }
        let (reach, who, address) = (Arc::clone(self), who.to_owned(), address.to_owned());
        tokio::spawn(async move {
            let trouble = trouble(&reach.bus, &address, status.as_ref()).await;
            if reach.complaints.lock().entry(address.clone()).or_default().is_due(monotonic(), &trouble) {
                warn!("can't reach {who} at {address}: {trouble}");
            }
        });
    }

    /// It does.
    pub fn answered(&self, who: &str, address: &str) {
        if self.complaints.lock().get_mut(address).is_some_and(Complaints::end) {
            info!("{who} at {address} answers");
        }
    }
}

/// Why `address` is not what was meant, or not reached.
pub async fn trouble(bus: &Bus, address: &str, status: Option<&Status>) -> Trouble {
    if let Some(words) = status.and_then(|status| refusal(status)) {
        return Trouble::Says(words);
    }
    if let Some(status) = status
        && status.source().is_none()
    {
        // Its own words.
        return match status.code() {
            Code::Unimplemented if is_node(bus, address).await => Trouble::IsNode,
            Code::Unimplemented => Trouble::Wrong(Speaks::Http2),
            _ => Trouble::Says(status.message().to_owned()),
        };
    }
    let Some((host, port)) = split_address(address) else { return Trouble::NotAnAddress };
    let Ok(Ok(found)) = timeout(LIMIT, lookup_host((host, port))).await else {
        return Trouble::Unresolved { host: host.to_owned() };
    };
    let found: Vec<SocketAddr> = found.collect();
    let stream = match timeout(LIMIT, TcpStream::connect(&found[..])).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => return Trouble::Refused,
        Ok(Err(_)) | Err(_) => return Trouble::Silent,
    };
    match timeout(LIMIT, ask(stream)).await.ok().and_then(|answer| Speaks::of(&answer)) {
        None => Trouble::Silent,
        Some(Speaks::Http2) => Trouble::Slow,
        Some(other) => Trouble::Wrong(other),
    }
}

/// The first bytes that it says; none if it ends the connection.
async fn ask(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = vec![0; ANSWER_BYTES];
    let asked = async {
        stream.write_all(QUESTION).await?;
        stream.read(&mut answer).await
    };
    let len = asked.await.unwrap_or(0);
    answer.truncate(len);
    answer
}

/// Whether a node's services are there. It may be one that does not answer yet.
async fn is_node(bus: &Bus, address: &str) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else { return false };
    let Ok(channel) = bus.connect(&endpoint.connect_timeout(LIMIT)).await else { return false };
    let mut client = NodeControlClient::new(channel);
    let asked = timeout(LIMIT, client.status(rpc::StatusRequest::default())).await;
    !matches!(asked, Ok(Err(status)) if status.code() == Code::Unimplemented)
}
