//! The certificate of the client listener: read from files, and read again when they change.
//!
//! A pair that cannot be used never replaces one that can; connections that are open keep theirs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use regatta_control::config::TlsFiles;
use regatta_control::files::Watched;
use regatta_proxy::listener::server_config;
use rustls::ServerConfig;

/// A certificate in use.
#[derive(Debug)]
pub struct Certs {
    files: TlsFiles,
    watched: Watched,
    shared: Arc<ArcSwap<ServerConfig>>,
}

impl Certs {
    /// Reads `files`.
    ///
    /// # Errors
    /// Which file cannot be used and why, for a person.
    pub fn load(files: &TlsFiles) -> Result<Certs, String> {
        // Watched before it is read: a change in between is seen.
        let watched = Watched::new(vec![files.cert.clone(), files.key.clone()]);
        let shared = Arc::new(ArcSwap::from_pointee(read(files)?));
        Ok(Certs { files: files.clone(), watched, shared })
    }

    /// What the listener reads for each connection.
    pub fn shared(&self) -> Arc<ArcSwap<ServerConfig>> {
        self.shared.clone()
    }

    /// Takes the files again if they changed.
    pub fn look(&mut self) {
        if !self.watched.changed() {
            return;
        }
        match read(&self.files) {
            Ok(config) => {
                self.shared.store(Arc::new(config));
                tracing::info!("the certificate was reloaded");
            }
            Err(why) => tracing::error!(why, "the certificate was not reloaded, the old one stays"),
        }
    }
}

fn read(files: &TlsFiles) -> Result<ServerConfig, String> {
    let file =
        |path: &std::path::Path| std::fs::read(path).map_err(|why| format!("{}: {why}", path.display()));
    server_config(&file(&files.cert)?, &file(&files.key)?)
        .map_err(|why| format!("{} and {}: {why}", files.cert.display(), files.key.display()))
}
