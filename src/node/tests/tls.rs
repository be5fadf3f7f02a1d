//! `wss` and `https` to a node.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use super::super::socket::{Dial, trusting};
use super::backend::{Backend, Script};
use super::*;

fn start(scheme: &str, node: &Backend, roots: RootCertStore) -> (Pool, DropGuard) {
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let url = Url::parse(&format!("{scheme}://localhost:{}", node.address.port())).unwrap();
    let environment = Environment { clocks: quick(), ..environment(vec![url], Duration::from_secs(20)) };
    let metrics = Metrics::new().unwrap();
    let tls = Some(trusting(roots).unwrap());
    (Pool::start_with(&environment, None, &metrics, stop, tls, Dial::Tcp), guard)
}

#[tokio::test]
async fn a_trusted_certificate_connects_and_another_does_not() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(server));
    for (scheme, transport) in [("wss", Transport::WebSocket), ("https", Transport::Http)] {
        let mut node = Backend::by(transport, Script::default(), Some(tls.clone())).await;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let (trusting, _stop) = start(scheme, &node, roots);
        let asked = async { node.asked().await.answer(json!(1)) };
        let (result, ()) = soon(async { tokio::join!(trusting.call::<u8>("eth_x", ()), asked) }).await;
        assert_eq!(result.unwrap(), 1);

        let (distrusting, _stop) = start(scheme, &node, RootCertStore::empty());
        until(&distrusting, |pool| pool.endpoints()[0].detail.as_ref().is_some_and(|why| why.contains("certificate"))).await;
        assert!(matches!(distrusting.fault(), Some(CallError::Unavailable)));
    }
}
