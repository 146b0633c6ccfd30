//! Certificates and keys from PEM files, and marks by which it is seen that files have changed.
//!
//! Every error names the file and what is wrong with it, never a part of what is in it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Secret, TlsError};

/// A file that is larger is no certificate and no key.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// As many files of a directory are looked at.
const FILES_MAX: usize = 10_000;

const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// How the files of older programs say that a key is encrypted.
const TRADITIONAL: &str = "Proc-Type: 4,ENCRYPTED";

/// How a file looked when it was read; another mark means that it has to be read again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    path: PathBuf,
    /// Device, inode, size, seconds and nanoseconds of the last change; `None`: it was not there.
    seen: Option<(u64, u64, u64, i64, i64)>,
}

/// The marks of these files and of all that is in these directories.
pub fn marks<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<Mark> {
    let mut marks = Vec::new();
    for path in paths {
        marks.push(mark(path));
        if path.is_dir() {
            marks.extend(files_in(path).unwrap_or_default().iter().map(|file| mark(file)));
        }
    }
    marks
}

fn mark(path: &Path) -> Mark {
    // Of a symbolic link what it leads to counts: that is how Kubernetes replaces a secret.
    let seen = |m: Metadata| (m.dev(), m.ino(), m.len(), m.ctime(), m.ctime_nsec());
    Mark { path: path.to_owned(), seen: fs::metadata(path).ok().map(seen) }
}

/// A certificate and those that lead from it to a CA.
///
/// # Errors
/// The file cannot be read or has none.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |why: String| TlsError(format!("Failed to load certificate: {}: {why}", path.display()));
    certificates(&read(path).map_err(fault)?).map_err(|why| fault(why.into()))
}

/// The certificates of the CAs, from a file and from all files of a directory.
///
/// # Errors
/// The file has none, the directory cannot be read, or none of its files has any.
pub(super) fn authorities(
    file: Option<&Path>,
    dir: Option<&Path>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |path: &Path, why: String| {
        TlsError(format!("Failed to configure CA certificate(s) file/directory: {}: {why}", path.display()))
    };
    let mut found = Vec::new();
    if let Some(file) = file {
        let read = read(file).map_err(|why| fault(file, why))?;
        found.extend(certificates(&read).map_err(|why| fault(file, why.into()))?);
    }
    if let Some(dir) = dir {
        let before = found.len();
        for file in files_in(dir).map_err(|why| fault(dir, why))? {
            // Such a directory has other files, too: revocation lists, links that lead nowhere.
            if let Ok(certificates) = read(&file).map(|text| certificates(&text).unwrap_or_default()) {
                found.extend(certificates);
            }
        }
        if found.len() == before {
            return Err(fault(dir, "no file in it has a certificate".into()));
        }
    }
    // Directories have each certificate under two names.
    found.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    found.dedup();
    Ok(found)
}

/// A private key.
///
/// # Errors
/// The file cannot be read, has no key, or the password does not open it.
pub(super) fn key(path: &Path, password: &Secret) -> Result<PrivateKeyDer<'static>, TlsError> {
    let fault = |why: String| TlsError(format!("Failed to load private key: {}: {why}", path.display()));
    let bytes = read(path).map_err(fault)?;
    key_from(&bytes, password).map_err(|why| fault(why.into()))
}

fn key_from(pem: &[u8], password: &Secret) -> Result<PrivateKeyDer<'static>, &'static str> {
    let text = String::from_utf8_lossy(pem);
    if text.contains(TRADITIONAL) {
        return Err("it is encrypted in OpenSSL's own format, which is not supported: convert it with \
                    'openssl pkcs8 -topk8 -in KEY -out NEW'");
    }
    if let Some((begin, end)) = text.find(ENCRYPTED).zip(text.find(ENCRYPTED_END)) {
        let section = text.get(begin..end + ENCRYPTED_END.len()).ok_or("its PEM sections are in disorder")?;
        return decrypt(section, password);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "there is no private key in it (PEM)")
}

fn decrypt(section: &str, Secret(password): &Secret) -> Result<PrivateKeyDer<'static>, &'static str> {
    if password.is_empty() {
        return Err("it is encrypted: its password is missing (tls-key-file-pass)");
    }
    let (_, document) = SecretDocument::from_pem(section).map_err(|_| "its PEM is damaged")?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(
        |_| "what is encrypted in it is not a PKCS#8 key, or not in a way that is supported (PBES2)",
    )?;
    let key = encrypted.decrypt(password).map_err(|_| "the password does not open it")?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("there is no certificate in it (PEM)"),
        Err(_) => Err("its PEM is damaged"),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".into());
    }
    if FILE_BYTES_MAX < metadata.len() {
        return Err("it is too large".into());
    }
    fs::read(path).map_err(|e| e.to_string())
}

/// In the order of their names.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(|e| e.to_string())?;
    let mut files: Vec<PathBuf> = entries
        .take(FILES_MAX)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    Ok(files)
}
