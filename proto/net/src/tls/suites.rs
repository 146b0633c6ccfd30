//! Names of protocols (`tls-protocols`), of cipher suites for TLS 1.2 in OpenSSL's spelling (`tls-ciphers`) and for
//! TLS 1.3 (`tls-ciphersuites`).
//!
//! Differs from Valkey: what rustls does not have is refused in words instead of being passed over, since whoever names
//! a suite relies on it. Of OpenSSL's words for groups of suites those are known that a conf file is likely to have.

use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

use super::{TlsError, failed};

/// The suites for TLS 1.2, by OpenSSL's names.
const OPENSSL: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
];

/// The suites for TLS 1.3.
const TLS13: [(&str, CipherSuite); 3] = [
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
];

/// Words of OpenSSL's that stand for suites, with what the names of these have in them.
const GROUPS: [(&str, &str); 11] = [
    ("DEFAULT", ""),
    ("ALL", ""),
    ("HIGH", ""),
    ("ECDHE", ""),
    ("EECDH", ""),
    ("kECDHE", ""),
    ("AESGCM", "-GCM-"),
    ("CHACHA20", "CHACHA20"),
    ("aECDSA", "-ECDSA-"),
    ("ECDSA", "-ECDSA-"),
    ("aRSA", "-RSA-"),
];

/// Words for what rustls does not have: they may be excluded.
const UNSUPPORTED: [&str; 20] = [
    "MEDIUM", "LOW", "EXP", "EXPORT", "aNULL", "eNULL", "NULL", "ADH", "AECDH", "MD5", "SHA1", "RC4", "DES",
    "3DES", "PSK", "SRP", "DSS", "kRSA", "CAMELLIA", "SEED",
];

/// What `tls-protocols` allows.
///
/// # Errors
/// A word that is unknown, or of a protocol that is not supported.
pub fn protocols(words: &str) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    const USAGE: &str = "Invalid tls-protocols specified. Use a combination of 'TLSv1.2' and 'TLSv1.3'";
    let mut found: Vec<&'static SupportedProtocolVersion> = Vec::new();
    for word in words.split([' ', ',']).filter(|word| !word.is_empty()) {
        match word.to_ascii_lowercase().as_str() {
            "tlsv1.3" => found.push(&version::TLS13),
            "tlsv1.2" => found.push(&version::TLS12),
            "tlsv1" | "tlsv1.1" => {
                return failed(format!("{USAGE}: {word} is not supported, as it is not secure any more"));
            }
            _ => return failed(format!("{USAGE}: {word:?} is neither")),
        }
    }
    if found.is_empty() {
        found = vec![&version::TLS13, &version::TLS12];
    }
    Ok(found)
}

/// The suites that `tls-ciphers` and `tls-ciphersuites` allow, in the order of preference.
///
/// # Errors
/// A name that is not known, or nothing is left.
pub fn suites(ciphers: &str, ciphersuites: &str) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let mut found = tls13(ciphersuites)?;
    found.extend(tls12(ciphers)?);
    Ok(found.into_iter().filter_map(supported).collect())
}

fn supported(suite: CipherSuite) -> Option<SupportedCipherSuite> {
    ALL_CIPHER_SUITES.iter().copied().find(|candidate| candidate.suite() == suite)
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split([':', ',', ' ']).filter(|word| !word.is_empty())
}

fn tls13(names: &str) -> Result<Vec<CipherSuite>, TlsError> {
    let mut found = Vec::new();
    for word in words(names) {
        match TLS13.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
            Some((_, suite)) => found.push(*suite),
            None => return failed(format!("Failed to configure ciphersuites: {word:?} is not supported")),
        }
    }
    if found.is_empty() {
        found = TLS13.iter().map(|(_, suite)| *suite).collect();
    }
    Ok(found)
}

fn tls12(list: &str) -> Result<Vec<CipherSuite>, TlsError> {
    let list = if list.trim().is_empty() { "DEFAULT" } else { list };
    let (mut found, mut excluded) = (Vec::new(), Vec::new());
    for word in words(list) {
        let without = word.strip_prefix(['!', '-']);
        let meant = meant_by(without.unwrap_or(word)).filter(|meant| without.is_some() || !meant.is_empty());
        let Some(meant) = meant else {
            return failed(format!("Failed to configure ciphers: {word:?} is not supported"));
        };
        if without.is_some() { &mut excluded } else { &mut found }.extend(meant);
    }
    let mut left: Vec<CipherSuite> = Vec::new();
    for suite in found {
        if !excluded.contains(&suite) && !left.contains(&suite) {
            left.push(suite);
        }
    }
    if left.is_empty() { failed("Failed to configure ciphers: none is left") } else { Ok(left) }
}

/// The suites that a word stands for, which may be none of those that there are; `None`: it is no word.
fn meant_by(word: &str) -> Option<Vec<CipherSuite>> {
    let suites = |part: &str| -> Vec<CipherSuite> {
        OPENSSL.iter().filter(|(name, _)| name.contains(part)).map(|(_, suite)| *suite).collect()
    };
    if let Some((_, suite)) = OPENSSL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
        return Some(vec![*suite]);
    }
    if let Some((_, part)) = GROUPS.iter().find(|(name, _)| *name == word) {
        return Some(suites(part));
    }
    UNSUPPORTED.contains(&word).then(Vec::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ciphers: &str, ciphersuites: &str) -> Result<Vec<String>, String> {
        let shown = |s: &SupportedCipherSuite| s.suite().as_str().unwrap_or("?").to_owned();
        suites(ciphers, ciphersuites).map(|found| found.iter().map(shown).collect()).map_err(|e| e.0)
    }

    #[test]
    fn every_suite_has_a_name() {
        assert_eq!(names("", "").unwrap().len(), ALL_CIPHER_SUITES.len());
    }

    #[test]
    fn suites_are_named_as_for_openssl() {
        let found =
            names("ECDHE-RSA-AES128-GCM-SHA256,ecdhe-rsa-aes256-gcm-sha384", "TLS_AES_128_GCM_SHA256")
                .unwrap();
        let wanted = [
            "TLS13_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        ];
        assert_eq!(found, wanted);
        for (list, count) in [
            ("DEFAULT:!MEDIUM", 6),
            ("HIGH:!aNULL:!MD5", 6),
            ("aRSA", 3),
            ("AESGCM:!aRSA", 2),
            ("HIGH:!CHACHA20", 4),
            ("CHACHA20:CHACHA20", 2),
        ] {
            assert_eq!(names(list, "").unwrap().len() - TLS13.len(), count, "{list}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_in_words() {
        for (ciphers, ciphersuites, error) in [
            ("AES128-SHA", "", "Failed to configure ciphers: \"AES128-SHA\" is not supported"),
            ("HIGH:foo", "", "Failed to configure ciphers: \"foo\" is not supported"),
            ("MEDIUM", "", "Failed to configure ciphers: \"MEDIUM\" is not supported"),
            ("HIGH:!ECDHE", "", "Failed to configure ciphers: none is left"),
            (
                "",
                "TLS_AES_128_CCM_SHA256",
                "Failed to configure ciphersuites: \"TLS_AES_128_CCM_SHA256\" is not supported",
            ),
        ] {
            assert_eq!(names(ciphers, ciphersuites).unwrap_err(), error);
        }
    }

    #[test]
    fn protocols_are_valkeys_words() {
        let shown = |words: &str| protocols(words).map(|found| found.len()).map_err(|e| e.0);
        for (words, count) in [("", 2), ("TLSv1.2", 1), ("tlsv1.3", 1), ("TLSv1.2 TLSv1.3", 2)] {
            assert_eq!(shown(words), Ok(count), "{words}");
        }
        for words in ["TLSv1", "TLSv1.1 TLSv1.2", "SSLv3"] {
            assert!(shown(words).unwrap_err().starts_with("Invalid tls-protocols specified."), "{words}");
        }
    }
}
