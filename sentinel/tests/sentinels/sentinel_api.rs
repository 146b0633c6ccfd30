//! The Sentinel API as clients see it: replies in Valkey's shapes, events, passwords.

use crate::harness::{Group, LIMIT, eventually, id, three_in_sync};
use keyward_proto::rpc;
use keyward_proto::rpc::admin_reply::Outcome;
use keyward_proto::rpc::admin_request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Inline commands out, raw replies in.
struct Client(TcpStream);

impl Client {
    async fn connect(group: &Group) -> Client {
        Client(TcpStream::connect(("127.0.0.1", group.port(0))).await.unwrap())
    }

    /// Reads until what has come ends with `end`.
    async fn read_until(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        let read = async {
            while !got.ends_with(end.as_bytes()) {
                let mut buffer = [0; 4096];
                let len = self.0.read(&mut buffer).await.unwrap();
                assert!(len > 0, "closed after {}", String::from_utf8_lossy(&got));
                got.extend_from_slice(&buffer[..len]);
            }
        };
        if timeout(LIMIT, read).await.is_err() {
            panic!("no {end:?} in {:?}", String::from_utf8_lossy(&got));
        }
        String::from_utf8(got).unwrap()
    }

    /// The reply to one command: a PING after it marks its end.
    async fn ask(&mut self, command: &str) -> String {
        self.0.write_all(format!("{command}\r\nPING end-of-reply\r\n").as_bytes()).await.unwrap();
        let reply = self.read_until("$12\r\nend-of-reply\r\n").await;
        reply.strip_suffix("$12\r\nend-of-reply\r\n").unwrap().to_owned()
    }

    /// The reply, which must be a list of bulk strings, without their lengths.
    async fn words(&mut self, command: &str) -> Vec<String> {
        let reply = self.ask(command).await;
        reply
            .split("\r\n")
            .filter(|l| !l.is_empty() && !l.starts_with(['*', '$', '%']))
            .map(String::from)
            .collect()
    }
}

fn value<'a>(fields: &'a [String], name: &str) -> &'a str {
    let at = fields.iter().position(|f| f == name).unwrap_or_else(|| panic!("no {name} in {fields:?}"));
    &fields[at + 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_have_valkeys_shapes() {
    let group = Group::start(1).await;
    let nodes = three_in_sync(&group).await;
    let mut client = Client::connect(&group).await;
    let port = nodes[0].address.port();
    let address = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.to_string().len());
    for (command, reply) in [
        ("PING", "+PONG\r\n"),
        ("SENTINEL GET-MASTER-ADDR-BY-NAME mymaster", address.as_str()),
        ("sentinel get-primary-addr-by-name mymaster", address.as_str()),
        ("SENTINEL GET-MASTER-ADDR-BY-NAME nope", "*-1\r\n"),
        ("SENTINEL MASTER nope", "-ERR No such master with that name\r\n"),
        ("SENTINEL REPLICAS nope", "-ERR No such master with that name\r\n"),
        ("SENTINEL SENTINELS mymaster", "*0\r\n"),
        (
            "SENTINEL CKQUORUM mymaster",
            "+OK 1 usable Sentinels. Quorum and failover authorization can be reached\r\n",
        ),
        ("SENTINEL RESET x*", ":0\r\n"),
        ("SENTINEL RESET my*", ":1\r\n"),
        ("SENTINEL IS-MASTER-DOWN-BY-ADDR 127.0.0.1 1 0 *", "*3\r\n:0\r\n$1\r\n*\r\n:0\r\n"),
        ("SENTINEL FOO", "-ERR unknown subcommand 'FOO'. Try SENTINEL HELP.\r\n"),
        ("SENTINEL", "-ERR wrong number of arguments for 'sentinel' command\r\n"),
        ("SENTINEL MASTER", "-ERR wrong number of arguments for 'sentinel|master' command\r\n"),
        ("GET a", "-ERR unknown command 'GET', with args beginning with: 'a' \r\n"),
        ("ROLE", "*2\r\n$8\r\nsentinel\r\n*1\r\n$8\r\nmymaster\r\n"),
        ("CLIENT SETNAME x", "+OK\r\n"),
        ("CLIENT GETNAME", "$1\r\nx\r\n"),
        ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"),
        ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
        ("PUBLISH a b", "-ERR Only HELLO messages are accepted by Sentinel instances.\r\n"),
        ("SENTINEL FAILOVER nope", "-ERR No such master with that name\r\n"),
    ] {
        assert_eq!(client.ask(command).await, reply, "{command}");
    }
    let primary = client.words("SENTINEL MASTER mymaster").await;
    assert_eq!(value(&primary, "port"), port.to_string());
    assert_eq!(value(&primary, "runid"), id(1).to_string());
    assert_eq!((value(&primary, "flags"), value(&primary, "num-slaves")), ("master", "2"));
    assert_eq!(primary.len(), 40, "as many fields as Valkey has");
    let replicas = client.ask("SENTINEL REPLICAS mymaster").await;
    assert!(replicas.starts_with("*2\r\n*42\r\n$4\r\nname\r\n"), "{replicas}");
    let info = client.ask("INFO sentinel").await;
    let line = format!("master0:name=mymaster,status=ok,address=127.0.0.1:{port},slaves=2,sentinels=1\r\n");
    assert!(info.contains(&line), "{info}");

    let hello = client.ask("HELLO 3").await;
    // The version that nodes tell, too.
    assert!(hello.contains(&format!("version\r\n$5\r\n{}\r\n", keyward_proto::VALKEY_VERSION)), "{hello}");
    assert!(hello.starts_with("%6\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n"), "{hello}");
    assert!(client.ask("SENTINEL MASTER mymaster").await.starts_with("%20\r\n"));
    assert_eq!(client.ask("SUBSCRIBE a").await, ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    assert!(client.ask("SENTINEL MYID").await.starts_with("$40\r\n"), "RESP3 goes on serving subscribers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_are_told_of_a_switch() {
    let group = Group::start(1).await;
    let mut nodes = three_in_sync(&group).await;
    let mut client = Client::connect(&group).await;
    client.0.write_all(b"SUBSCRIBE +switch-master\r\n").await.unwrap();
    client.read_until("*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n").await;
    let mut everything = Client::connect(&group).await;
    everything.0.write_all(b"PSUBSCRIBE *\r\nGET x\r\nROLE\r\n").await.unwrap();
    let refused =
        "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n";
    let greeting = everything.read_until(refused).await;
    assert!(greeting.contains("-ERR unknown command 'GET'") && greeting.contains("Can't execute 'role'"));

    nodes[0].stop().await;
    let [old, new] = [0, 1].map(|n| nodes[n].address.port());
    let message = format!("mymaster 127.0.0.1 {old} 127.0.0.1 {new}");
    let told = client.read_until(&format!("{message}\r\n")).await;
    assert!(told.starts_with("*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n"), "{told}");
    let slave = |port| format!("slave 127.0.0.1:{port} 127.0.0.1 {port} @ mymaster 127.0.0.1 {new}\r\n");
    let told = everything.read_until(&slave(nodes[2].address.port())).await;
    assert!(told.contains(&slave(old)), "{told}");
    for channel in ["+sdown", "+odown", "+failover-end", "+switch-master", "+slave"] {
        assert!(told.contains(&format!("\r\n{channel}\r\n")), "{channel} in {told}");
    }
    let mut other = Client::connect(&group).await;
    let address = other.words("SENTINEL GET-MASTER-ADDR-BY-NAME mymaster").await;
    assert_eq!(address, ["127.0.0.1".to_owned(), new.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_command_asks_the_primary_to_hand_over() {
    let group = Group::start(1).await;
    let nodes = three_in_sync(&group).await;
    let mut client = Client::connect(&group).await;
    assert_eq!(client.ask("SENTINEL FAILOVER mymaster").await, "+OK\r\n");
    let request =
        eventually("a hand-off request", async || nodes[0].state.lock().handoffs.first().cloned()).await;
    assert_eq!(request.term, 1);
    let failover = |shard: &str, target: String| {
        admin_request::Command::Failover(rpc::FailoverCommand { shard: shard.into(), target })
    };
    let reply = group.admin(failover("mymaster", id(3).to_string())).await;
    assert!(matches!(reply, Outcome::Done(_)), "{reply:?}");
    assert_eq!(nodes[0].state.lock().handoffs[1].target, id(3).to_string());
    let reply = group.admin(failover("nope", String::new())).await;
    assert_eq!(reply, Outcome::Refused("there is no shard nope".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_guards_everything() {
    let group = Group::start_with(1, &["--requirepass", "secret"]).await;
    let mut client = Client::connect(&group).await;
    client.0.write_all(b"SENTINEL MASTERS\r\nAUTH wrong\r\nAUTH secret\r\nPING\r\n").await.unwrap();
    let replies = client.read_until("+PONG\r\n").await;
    assert_eq!(
        replies,
        "-NOAUTH Authentication required.\r\n\
         -WRONGPASS invalid username-password pair or user is disabled.\r\n+OK\r\n+PONG\r\n"
    );
    let mut hello = Client::connect(&group).await;
    assert!(hello.0.write_all(b"HELLO 3 AUTH default secret\r\nPING\r\n").await.is_ok());
    assert!(hello.read_until("+PONG\r\n").await.starts_with("%6\r\n"));
}
