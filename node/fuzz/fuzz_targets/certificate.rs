//! A client's certificate: the names in it may be anything.
#![no_main]

use keyward_net::tls::certificate::{self, Certificate, NameField};
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

fuzz_target!(|data: &[u8]| {
    let der = CertificateDer::from(data);
    for field in [NameField::CommonName, NameField::Uri] {
        // A name with a NUL is the user of another name.
        assert!(certificate::user_names(&der, field).iter().all(|name| !name.contains('\0')));
    }
    if let Ok(read) = Certificate::read(&der) {
        read.seconds_left(0);
        drop(read.check_time(i64::MAX));
    }
});
