//! When the certificate of this process ends.

use std::path::Path;

use x509_parser::pem::Pem;

/// The end of a PEM file's chain, in seconds since 1970: that of whichever certificate ends first. None where the file cannot be read
/// or has no certificate. The file is read each time, as whoever shows the certificate does for each connection.
pub(crate) fn end(file: &Path) -> Option<i64> {
    let text = std::fs::read(file).ok()?;
    let ends = Pem::iter_from_buffer(&text).filter_map(|pem| {
        let pem = pem.ok()?;
        let certificate = pem.parse_x509().ok()?;
        Some(certificate.validity().not_after.timestamp())
    });
    ends.min()
}
