//! When the certificate ends that a process shows to others.

use std::path::Path;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use x509_parser::pem::Pem;

/// The end of a PEM file's chain, in seconds since 1970: that of whichever certificate ends first. None where the file cannot be read
/// or has no certificate.
#[must_use]
pub fn end(file: &Path) -> Option<i64> {
    let text = std::fs::read(file).ok()?;
    let ends = Pem::iter_from_buffer(&text).filter_map(|pem| {
        let pem = pem.ok()?;
        let certificate = pem.parse_x509().ok()?;
        Some(certificate.validity().not_after.timestamp())
    });
    ends.min()
}

/// Tells the end of the certificate that a process shows, if it shows one.
pub fn tell(registry: &mut Registry, end: Option<i64>) {
    let Some(end) = end else { return };
    let gauge: Gauge = Gauge::default();
    gauge.set(end);
    let help = "When the certificate ends that this process shows to others";
    registry.register_with_unit("certificate_expiration_timestamp", help, Unit::Seconds, gauge);
}
