//! The role that a client certificate carries.

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{Caller, Role, check_name};

/// What the URI of a caller begins with. The role follows, and a name behind a slash if there is one.
const TRUST_DOMAIN: &str = "spiffe://mllm4rec/";

/// The URI that makes a certificate that of `name` in a role.
#[must_use]
pub fn uri_of(role: Role, name: &str) -> String {
    format!("{TRUST_DOMAIN}{role}/{name}")
}

/// Who holds a certificate whose signature has been checked, or why that cannot be said.
pub(crate) fn holder(certificate: &CertificateDer<'_>) -> Result<Caller, String> {
    let certificate =
        webpki::EndEntityCert::try_from(certificate).map_err(|e| format!("the client certificate is damaged: {e}"))?;
    named_by(certificate.valid_uri_names())
}

/// Two roles in one certificate are as bad as none: nobody could say which of them was meant.
pub(crate) fn named_by<'a>(uris: impl Iterator<Item = &'a str>) -> Result<Caller, String> {
    let mut ours = uris.filter_map(|uri| uri.strip_prefix(TRUST_DOMAIN));
    let (Some(path), None) = (ours.next(), ours.next()) else {
        return Err(format!("the client certificate must carry exactly one URI {TRUST_DOMAIN}ROLE/NAME"));
    };
    let (role, name) = path.split_once('/').unwrap_or((path, path));
    let said = |e: super::AccessError| format!("the URI of the client certificate: {e}");
    let role: Role = role.parse().map_err(said)?;
    check_name(name).map_err(said)?;
    Ok(Caller::Known { name: name.to_owned(), role })
}
