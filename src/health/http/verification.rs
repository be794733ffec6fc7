//! Whom to believe by TLS.

use crate::error::ParseError;
use std::fmt;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Which certificates are good ones.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Verification {
    /// For the host, within their time, and from an authority that browsers believe: Mozilla's list,
    /// as of when the program was built. Needs a [host](super::Http::host) that is a name.
    #[default]
    WebRoots,
    /// For the host, within their time, and from one of these authorities, and no others.
    Authorities(Authorities),
    /// All: the probe then tells that somebody speaks TLS, and not who. For what is only watched,
    /// within one's own network.
    Nothing,
}

/// Certificates of authorities; see [`Verification::authorities`].
#[derive(Clone)]
pub struct Authorities(Vec<Certificate<'static>>);

impl Verification {
    /// Believes the authorities whose certificates are in this PEM text (RFC 7468), and no others.
    ///
    /// # Errors
    ///
    /// When it is no PEM text, or has no certificate that can be used.
    pub fn authorities(pem: &str) -> Result<Self, ParseError> {
        let refused = || {
            let expected = "PEM text with one or more -----BEGIN CERTIFICATE----- sections";
            // It is long, and may have a private key in it by mistake.
            ParseError::new("authorities' certificates", "…", expected)
        };
        let mut certificates = Vec::new();
        for item in parse_pem(pem.as_bytes()) {
            match item {
                Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                Ok(_) => {}
                Err(_) => return Err(refused()),
            }
        }
        if certificates.is_empty() {
            return Err(refused());
        }
        Ok(Self::Authorities(Authorities(certificates)))
    }

    pub(super) fn config(&self) -> TlsConfig {
        let builder = TlsConfig::builder();
        match self {
            Self::WebRoots => builder.root_certs(RootCerts::WebPki),
            Self::Authorities(Authorities(them)) => {
                builder.root_certs(RootCerts::new_with_certs(them))
            }
            Self::Nothing => builder.disable_verification(true),
        }
        .build()
    }
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WebRoots => f.write_str("WebRoots"),
            Self::Authorities(them) => them.fmt(f),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({} certificates)", self.0.len())
    }
}
