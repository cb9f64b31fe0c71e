//! Certificates for a start: an authority of one's own, and what it signs.

use std::time::{Duration, SystemTime};

use coordinator::access::{Role, uri_of};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

/// The authority's name. An authority is taken up again from its key and this.
const AUTHORITY: &str = "mllm4rec certificate authority";

/// How long an authority is valid: longer than anything that it signs should be.
const AUTHORITY_DAYS: u32 = 3650;

/// Certificates begin so long ago that a clock which is late by a day does not matter.
const BEFORE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// A certificate and its key, PEM. The key is not shown by `Debug`, there is none.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Signs certificates.
pub(crate) struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Makes one, and what others need to trust it.
    pub(crate) fn make(days: u32) -> Result<(Self, Pair), Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(days);
        let pair = Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
        Ok((Self(Issuer::new(params, key)), pair))
    }

    /// Takes up the one with this key.
    pub(crate) fn from_key(pem: &str) -> Result<Self, Error> {
        Ok(Self(Issuer::new(authority_params(0), KeyPair::from_pem(pem)?)))
    }

    /// Signs a certificate of a coordinator for hosts, names and addresses alike.
    pub(crate) fn server(&self, hosts: &[String], days: u32) -> Result<Pair, Error> {
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, "mllm4rec coordinator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, days)
    }

    /// Signs a certificate of somebody in a role.
    pub(crate) fn client(&self, role: Role, name: &str, days: u32) -> Result<Pair, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri_of(role, name))?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, days)
    }

    fn sign(&self, mut params: CertificateParams, days: u32) -> Result<Pair, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, days);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Pair { certificate: params.signed_by(&key, &self.0)?.pem(), key: key.serialize_pem() })
    }
}

fn authority_params(days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, days.max(AUTHORITY_DAYS));
    params
}

fn valid_for(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 24 * 60 * 60)).into();
}
