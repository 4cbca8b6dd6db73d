//! A certificate for loopback, from an authority that lives as long as a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Where the system keeps the roots that it trusts; Lambda's has about as many.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What a server needs, and what its clients need to trust it.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    /// The authority's certificate alone, for clients that bring roots of their own.
    pub(crate) authority: PathBuf,
    /// The roots that were asked for, and the authority among them.
    pub(crate) roots: PathBuf,
    /// How many certificates the roots are.
    pub(crate) root_count: usize,
}

impl Tls {
    /// Makes an authority, has it vouch for `localhost`, and writes what clients need into the folder: the authority beside these roots, or the system's.
    pub(crate) fn new(folder: &Path, roots: Option<&Path>) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "Landfall footprint");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let key = KeyPair::generate()?;
        let server = CertificateParams::new(names)?.signed_by(&key, &authority)?;

        let own = authority.pem();
        let mut roots = match roots {
            Some(roots) => {
                std::fs::read(roots).with_context(|| format!("read {}", roots.display()))?
            }
            None => std::fs::read(SYSTEM_ROOTS).unwrap_or_default(),
        };
        if !roots.ends_with(b"\n") {
            roots.push(b'\n');
        }
        roots.extend_from_slice(own.as_bytes());
        let root_count = String::from_utf8_lossy(&roots)
            .matches("-----BEGIN CERTIFICATE-----")
            .count();
        let paths = [folder.join("authority.pem"), folder.join("roots.pem")];
        std::fs::write(&paths[0], own)?;
        std::fs::write(&paths[1], roots)?;

        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![server.der().clone()], private)
            .context("take the certificate")?;
        // What DynamoDB and SQS speak.
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let [authority, roots] = paths;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            authority,
            roots,
            root_count,
        })
    }
}
