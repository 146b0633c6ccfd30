//! What is read from an X.509 certificate: its serial number, between which times it is valid, and which users of the
//! server a client's certificate may name.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

/// What is shown of a certificate, and by which it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Hexadecimal digits, two for each byte, as Valkey shows it.
    pub serial: String,
    /// The first and the last second in which it is valid, since the Unix epoch.
    pub not_before: i64,
    pub not_after: i64,
}

impl Certificate {
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(der: &CertificateDer<'_>) -> Result<Certificate, &'static str> {
        let certificate = parse(der)?;
        let validity = certificate.validity();
        Ok(Certificate {
            serial: serial(certificate.raw_serial()),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// Seconds until it is not valid any more; negative if it is not now.
    pub fn seconds_left(&self, now: i64) -> i64 {
        self.not_after.saturating_sub(now)
    }

    /// Why it is not valid now, with the date.
    ///
    /// # Errors
    /// It has expired, or is not valid yet.
    pub fn check_time(&self, now: i64) -> Result<(), String> {
        if now < self.not_before {
            return Err(format!("it is not valid before {}", date(self.not_before)));
        }
        if self.not_after < now {
            return Err(format!("it has expired on {}", date(self.not_after)));
        }
        Ok(())
    }
}

/// Which part of a client's certificate names its user: `tls-auth-clients-user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameField {
    /// The common name of the subject.
    CommonName,
    /// The URIs among the alternative names.
    Uri,
}

/// The users that a certificate may stand for, the first that exists counts. A name with a NUL is none: another program
/// would take what is before it for the whole.
pub fn user_names(der: &CertificateDer<'_>, field: NameField) -> Vec<String> {
    let Ok(certificate) = parse(der) else { return Vec::new() };
    let names: Vec<&str> = match field {
        // Of several only the first, as whoever reads a certificate sees that one.
        NameField::CommonName => {
            certificate.subject().iter_common_name().take(1).filter_map(|name| name.as_str().ok()).collect()
        }
        NameField::Uri => {
            let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
            extension.value.general_names.iter().filter_map(uri).collect()
        }
    };
    let is_name = |name: &&str| !name.is_empty() && !name.contains('\0');
    names.into_iter().filter(is_name).map(str::to_owned).collect()
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}

/// The public key, as it stands in the certificate.
pub(super) fn public_key<'a>(der: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    parse(der).ok().map(|certificate| certificate.tbs_certificate.subject_pki.raw)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, &'static str> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("there are bytes behind the certificate"),
        Err(_) => Err("it is not an X.509 certificate"),
    }
}

fn serial(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    match bytes.get(zeros..) {
        None | Some([]) => "0".to_owned(),
        Some(digits) => digits.iter().map(|byte| format!("{byte:02X}")).collect(),
    }
}

fn date(seconds: i64) -> String {
    ASN1Time::from_timestamp(seconds).map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
}
