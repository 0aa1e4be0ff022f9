//! The edge's own certificate, re-read without a restart.

use std::fs;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::listeners::TlsAccept;
use pingora_core::listeners::tls::TlsSettings;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Tls;

/// The certificate in use.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Tls,
    current: ArcSwap<CertifiedKey>,
}

impl Certificates {
    pub(crate) fn load(files: &Tls) -> anyhow::Result<Arc<Self>> {
        let current = ArcSwap::from_pointee(read(files)?);
        Ok(Arc::new(Self { files: files.clone(), current }))
    }

    /// Takes the files as they are now; if they do not fit, the old certificate stays.
    pub(crate) fn reload(&self) {
        match read(&self.files) {
            Ok(key) => self.current.store(Arc::new(key)),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the old certificate stays in use");
            }
        }
    }

    /// Settings of a listener that speaks HTTP/2 and HTTP/1.1 with this certificate.
    pub(crate) fn settings(self: &Arc<Self>) -> anyhow::Result<TlsSettings> {
        let mut settings = TlsSettings::with_callbacks(Box::new(NoCallbacks))?;
        let resolver: Arc<dyn ResolvesServerCert> = self.clone();
        settings.set_cert_resolver(resolver);
        settings.enable_h2();
        Ok(settings)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(files: &Tls) -> anyhow::Result<CertifiedKey> {
    let pem = fs::read(&files.certificate).context("listen.tls.certificate cannot be read")?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .context("listen.tls.certificate is not PEM")?;
    let key = PrivateKeyDer::from_pem_file(&files.key).context("listen.tls.key is not PEM")?;
    let key = any_supported_type(&key).context("listen.tls.key is of no supported type")?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().context("listen.tls.key does not belong to listen.tls.certificate")?;
    Ok(certified)
}

/// Pingora wants callbacks where a resolver is set; there is nothing to do in them.
struct NoCallbacks;

#[async_trait]
impl TlsAccept for NoCallbacks {}
