//! Certificates for a server that speaks TLS: an authority and a server's, made for one test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::PathBuf;
use tempfile::TempDir;

/// The files of a server that speaks TLS.
#[derive(Debug)]
pub struct TlsFiles {
    directory: TempDir,
}

impl TlsFiles {
    /// Makes them, under an authority of their own.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let files = TlsFiles { directory: TempDir::new().expect("a temporary directory can be made") };
        let mut authority = CertificateParams::new(Vec::new()).expect("no names are fine");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Else it would have its server's name, and OpenSSL take the server's certificate for a self-signed one.
        authority.distinguished_name.push(DnType::CommonName, "an authority for tests");
        let key = KeyPair::generate().expect("a key can be made");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority signs itself");
        let key = KeyPair::generate().expect("a key can be made");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let server = CertificateParams::new(names).expect("the names are fine");
        let server = server.signed_by(&key, &authority).expect("the authority signs");
        for (file, text) in
            [("ca.pem", authority.pem()), ("cert.pem", server.pem()), ("key.pem", key.serialize_pem())]
        {
            std::fs::write(files.directory.path().join(file), text).expect("a file can be written");
        }
        files
    }

    /// The server's certificate, for `localhost` and 127.0.0.1.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    /// The authority's certificate.
    pub fn trusted_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub(crate) fn trusted_pem(&self) -> String {
        std::fs::read_to_string(self.trusted_file()).expect("it was written")
    }

    pub(crate) fn arguments(&self, port: u16) -> Vec<String> {
        let pairs = [
            ("--port", "0".to_owned()),
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", self.file("cert.pem")),
            ("--tls-key-file", self.file("key.pem")),
            ("--tls-ca-cert-file", self.file("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}
