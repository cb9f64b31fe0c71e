//! Who a member is to the others of its gang: a certificate of its own, made when its training begins and told to them by the
//! coordinator. They take that one and no other, so it needs neither an authority nor a name, and is of no use to anybody else.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, ServerConfig,
    SignatureScheme,
};

use crate::{Error, Result};

/// The name in every certificate; nobody looks at it.
const NAME: &str = "member";

/// A certificate with its key.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    /// A new one.
    pub(super) fn generate() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])
            .map_err(|e| Error::Gang(format!("cannot make a certificate: {e}")))?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Ok(Self { certificate: made.cert.der().clone(), key, provider: Arc::new(ring::default_provider()) })
    }

    /// What the others are told, as DER.
    pub(super) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// For a call to the member of a certificate.
    pub(super) fn calling(&self, member: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
        let config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.pin(member))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key())?;
        Ok(Arc::new(config))
    }

    /// For a call from the member of a certificate.
    pub(super) fn called(&self, member: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(self.pin(member))
            .with_single_cert(vec![self.certificate.clone()], self.key())?;
        // Nobody reads on the calling side: what lies there unread would reset the stream at its end.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(self.key.clone_key())
    }

    fn pin(&self, member: &[u8]) -> Arc<Pin> {
        Arc::new(Pin { member: CertificateDer::from(member.to_vec()), provider: self.provider.clone() })
    }
}

/// The name that a caller asks for.
pub(super) fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a word is a name")
}

/// Takes one certificate, whose holder has to prove that the key is his.
#[derive(Debug)]
struct Pin {
    member: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Pin {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), TlsError> {
        if self.member.as_ref() == shown.as_ref() {
            return Ok(());
        }
        Err(TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn signed(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// There is no other version of TLS here.
fn old<T>() -> Result<T, TlsError> {
    Err(TlsError::General("only TLS 1.3 is spoken here".to_owned()))
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pin {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
