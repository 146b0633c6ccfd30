//! Without a secret a bus serves this machine alone: whoever reaches it can read, append and vote.

use std::net::IpAddr;

/// What ends it: for errors of both programs.
pub const REMEDY: &str = "give all nodes and sentinels the same secret in a file (cluster-secret-file) or in the variable \
                          KEYWARD_CLUSTER_SECRET, or certificates of one CA (tls-cluster yes)";

/// A process that others are to reach from elsewhere, and has no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} is not this machine, and whoever reaches a bus port without a secret can do everything: {REMEDY}"
)]
pub struct Exposed {
    host: String,
}

/// Whether all `hosts` are this machine itself.
///
/// # Errors
/// The first that is another, as far as can be told from its name.
pub fn check<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Result<(), Exposed> {
    match hosts.into_iter().find(|host| !is_here(host)) {
        None => Ok(()),
        Some(host) => Err(Exposed { host: host.to_owned() }),
    }
}

fn is_here(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        assert_eq!(check(["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost"]), Ok(()));
        for host in ["10.0.0.1", "::", "0.0.0.0", "fe80::1", "node-1", "localhost.example"] {
            let error = check(["::1", host]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{host} is not this machine")), "{error}");
            assert!(error.contains("cluster-secret-file"), "{error}");
        }
    }
}
