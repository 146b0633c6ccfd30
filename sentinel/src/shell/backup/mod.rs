//! `keyward-sentinel backup` and `restore`: the keyspace of all shards into a folder, and from there into a cluster.
//! The rules are [`crate::rules::backup`].
#![allow(clippy::disallowed_methods, reason = "a shell: files, times and connections")]

mod client;
mod restore;
mod save;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyward_net::clock;
use keyward_net::tls::Material;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::{Access as AccessArguments, TlsArguments, password_in};
use client::Access;

pub(crate) use restore::{Existing, restore};
pub(crate) use save::save;

const PIECE_BYTES: usize = 1 << 20;

/// How the nodes are reached that the arguments speak of.
///
/// # Errors
/// A file cannot be read, or certificates cannot be used.
fn access(arguments: &AccessArguments, tls: &TlsArguments) -> Result<Access, String> {
    let file = match &arguments.password_file {
        Some(path) => Some(path.clone()),
        None => std::env::var_os("VALKEY_PASSWORD_FILE").map(PathBuf::from),
    };
    let password = match file {
        Some(path) => password_in(&path)?,
        None => std::env::var("VALKEY_PASSWORD").unwrap_or_default(),
    };
    let tls = if arguments.client_tls {
        let material =
            Material::load(tls.options(), clock::unix_seconds()).map_err(|error| error.to_string())?;
        Some(Arc::new(material))
    } else {
        None
    };
    Ok(Access { password, tls })
}

/// Now, in UTC, to the second.
fn now() -> String {
    let now =
        OffsetDateTime::from_unix_timestamp(clock::unix_seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    now.format(&Rfc3339).unwrap_or_default()
}

/// A line for whoever looks on; what programs read comes at the end.
fn tell(line: &str) {
    // Without standard error nobody looks on.
    drop(writeln!(io::stderr(), "{line}"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file, in hexadecimal digits.
fn sha256_of(path: &Path) -> io::Result<String> {
    let (mut file, mut digest, mut piece) = (File::open(path)?, Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&digest.finalize())),
            read => digest.update(&piece[..read]),
        }
    }
}
