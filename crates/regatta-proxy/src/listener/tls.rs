//! The listener's side of TLS: a config from PEM texts.
//!
//! It reads no file and watches none: whoever does hands a new config to the `ArcSwap` that `serve` was given, and the
//! next handshake uses it.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate or a key cannot be used; for people.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate in the text, or a broken one.
    #[error("no certificate could be read: {0}")]
    Certificate(String),
    /// No private key in the text, or a broken one.
    #[error("no private key could be read: {0}")]
    Key(String),
    /// Both were read, but do not go together or are of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// TLS 1.2 and 1.3 with ALPN `http/1.1`, from a certificate chain and its private key, both PEM.
///
/// # Errors
/// Which of the two texts is wrong, and how.
pub fn server_config(chain: &[u8], key: &[u8]) -> Result<ServerConfig, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("the text holds none".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
    // The provider is named: a second one that some dependency brings must not make the choice ambiguous.
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
