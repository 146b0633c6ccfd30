//! SENTINEL and its subcommands (<https://valkey.io/topics/sentinel/#sentinel-api>).

use bytes::Bytes;
use keyward_proto::resp::ReplyWriter;
use keyward_proto::resp::number::parse_i64;

use super::command::{AfterReply, lower, unknown_subcommand};
use super::instances::{Monitored, View};
use crate::rules::events::sentinel_run_id;
use crate::rules::health::Hosts;
use keyward_proto::glob;

const NO_SUCH_PRIMARY: &str = "ERR No such master with that name";

const HELP: &[&str] = &[
    "SENTINEL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CKQUORUM <primary-name>",
    "    Check if the current Sentinel configuration is able to reach the quorum",
    "    needed to failover a primary and the majority needed to authorize the",
    "    failover.",
    "CONFIG GET <param> [param param param ...]",
    "    Get global Sentinel configuration parameter.",
    "GET-PRIMARY-ADDR-BY-NAME <primary-name>",
    "    Return the ip and port number of the primary with that name.",
    "FAILOVER <primary-name> [COORDINATED]",
    "    Hand the primary's role over to a replica, without losing a write.",
    "FLUSHCONFIG",
    "    Does nothing: the state is on disk before any answer.",
    "INFO-CACHE <primary-name>",
    "    Return an empty list.",
    "IS-PRIMARY-DOWN-BY-ADDR <ip> <port> <current-epoch> <runid>",
    "    Check if the primary specified by ip:port is down from current Sentinel's",
    "    point of view.",
    "PRIMARY <primary-name>",
    "    Show the state and info of the specified primary.",
    "PRIMARIES",
    "    Show a list of monitored primaries and their state.",
    "MYID",
    "    Return the ID of the Sentinel instance.",
    "PENDING-SCRIPTS",
    "    Return an empty list.",
    "REPLICAS <primary-name>",
    "    Show a list of replicas for this primary and their states.",
    "RESET <pattern>",
    "    Count the primaries whose name matches this pattern; there is nothing to reset.",
    "SENTINELS <primary-name>",
    "    Show a list of Sentinel instances for this primary and their state.",
    "HELP",
    "    Print this help.",
];

/// Arguments after the subcommand: how many it takes at least and at most.
fn sentinel_arity(subcommand: &str) -> Option<(usize, usize)> {
    Some(match subcommand {
        "masters" | "primaries" | "myid" | "flushconfig" | "pending-scripts" | "help" => (0, 0),
        "master"
        | "primary"
        | "replicas"
        | "slaves"
        | "sentinels"
        | "ckquorum"
        | "reset"
        | "remove"
        | "get-master-addr-by-name"
        | "get-primary-addr-by-name" => (1, 1),
        "failover" => (1, 2),
        "is-master-down-by-addr" | "is-primary-down-by-addr" | "monitor" => (4, 4),
        "config" => (2, usize::MAX),
        "info-cache" => (1, usize::MAX),
        "set" => (3, usize::MAX),
        _ => return None,
    })
}

/// Answers one subcommand.
pub(super) fn sentinel(view: &View<'_>, rest: &[Bytes], out: &mut ReplyWriter<'_>) -> AfterReply {
    let Some((first, args)) = rest.split_first() else { return AfterReply::Nothing };
    let subcommand = lower(first);
    let Some((least, most)) = sentinel_arity(&subcommand) else {
        out.error(unknown_subcommand(first, "SENTINEL"));
        return AfterReply::Nothing;
    };
    if args.len() < least || most < args.len() {
        out.error(format!("ERR wrong number of arguments for 'sentinel|{subcommand}' command"));
        return AfterReply::Nothing;
    }
    let first = args.first().cloned().unwrap_or_default();
    match subcommand.as_str() {
        "masters" | "primaries" => {
            let all = view.monitored();
            out.array(all.len());
            all.iter().for_each(|m| view.primary_fields(m).write(out));
        }
        "myid" => out.bulk_str(&sentinel_run_id(view.own_id, view.own_name)),
        "flushconfig" => out.ok(),
        "pending-scripts" | "info-cache" => out.array(0),
        "help" => {
            out.array(HELP.len());
            HELP.iter().for_each(|line| out.simple(line));
        }
        "reset" => {
            out.len(view.monitored().iter().filter(|m| glob::matches(&first, m.name.as_bytes())).count())
        }
        "config" => config(view, args, out),
        "is-master-down-by-addr" | "is-primary-down-by-addr" => is_down_by_addr(view, args, out),
        "get-master-addr-by-name" | "get-primary-addr-by-name" => {
            match view.find(&first).and_then(|m| view.primary_of(m.shard)) {
                Some(node) => {
                    out.array(2);
                    out.bulk_str(&view.host(node));
                    out.bulk_integer(i64::from(view.port(node)));
                }
                None => out.null_array(),
            }
        }
        "monitor" => {
            out.error("ERR the shards that are watched come from the topology: use keyward-sentinel")
        }
        _ => return about_primary(view, &subcommand, &first, out),
    }
    AfterReply::Nothing
}

fn about_primary(view: &View<'_>, subcommand: &str, name: &[u8], out: &mut ReplyWriter<'_>) -> AfterReply {
    let Some(monitored) = view.find(name) else {
        out.error(NO_SUCH_PRIMARY);
        return AfterReply::Nothing;
    };
    let shard = monitored.shard;
    match subcommand {
        "master" | "primary" => view.primary_fields(&monitored).write(out),
        "replicas" | "slaves" => {
            let replicas = view.replicas_of(shard);
            out.array(replicas.len());
            replicas.iter().for_each(|node| view.replica_fields(shard, node).write(out));
        }
        "sentinels" => {
            out.array(view.others().count());
            view.others().for_each(|(id, address)| view.sentinel_fields(id, address).write(out));
        }
        "ckquorum" => {
            let usable = view.usable_sentinels();
            if view.quorum() <= usable && view.has_leader {
                out.simple(&format!(
                    "OK {usable} usable Sentinels. Quorum and failover authorization can be reached"
                ));
            } else {
                out.error(format!(
                    "NOQUORUM {usable} usable Sentinels. Not enough available Sentinels to reach the specified quorum \
                     for this primary. Not enough available Sentinels to reach the majority and authorize a failover"
                ));
            }
        }
        "failover" if view.failover_in_progress => out.error("INPROG Failover already in progress"),
        "failover" => {
            let electable = |id| shard.primary.as_ref() != Some(id) && !shard.restarted.contains(id);
            if shard.in_sync.iter().any(electable) {
                out.ok();
                return AfterReply::FailOver(shard.id.clone());
            }
            out.error("NOGOODSLAVE No suitable replica to promote");
        }
        _ => out.error("ERR the shards that are watched come from the topology: use keyward-sentinel"),
    }
    AfterReply::Nothing
}

fn is_down_by_addr(view: &View<'_>, args: &[Bytes], out: &mut ReplyWriter<'_>) {
    let [host, port, epoch, _] = args else { return };
    let (Some(port), Some(_)) = (parse_i64(port), parse_i64(epoch)) else {
        return out.error("ERR value is not an integer or out of range");
    };
    let is_meant = |m: &Monitored<'_>| {
        view.primary_of(m.shard).is_some_and(|node| {
            view.host(node).as_bytes() == host
                && i64::from(view.port(node)) == port
                && view.health.is_down(&node.id)
        })
    };
    out.array(3);
    out.integer(i64::from(view.monitored().iter().any(is_meant)));
    out.bulk_str("*");
    out.integer(0);
}

fn config(view: &View<'_>, args: &[Bytes], out: &mut ReplyWriter<'_>) {
    let Some((sub, patterns)) = args.split_first() else { return };
    if lower(sub) != "get" {
        return out.error("ERR options are given on the command line or in the conf file");
    }
    let hostnames = match view.hosts {
        Hosts::Names => "yes",
        Hosts::Addresses => "no",
    };
    let all = [
        ("resolve-hostnames", "yes"),
        ("announce-hostnames", hostnames),
        ("announce-ip", ""),
        ("announce-port", "0"),
        ("sentinel-user", ""),
        ("sentinel-pass", ""),
        ("loglevel", "notice"),
    ];
    let wanted = |name: &str| patterns.iter().any(|p| glob::matches(lower(p).as_bytes(), name.as_bytes()));
    let found: Vec<_> = all.iter().filter(|(name, _)| wanted(name)).collect();
    out.map(found.len());
    for (name, value) in found {
        out.bulk_str(name);
        out.bulk_str(value);
    }
}
