//! Keys, TLS, and limits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use super::client::Server;
use crate::common::lattice;

fn make_key(base: &Path, name: &str, scope: &str) -> String {
    let output = lattice(base, &["key", "create", name, "--scope", scope]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn status(server: &Server, method: &str, path: &str, key: Option<&str>) -> u16 {
    let bearer = key.map(|key| format!("Bearer {key}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|key| ("Authorization", key.as_str())).collect();
    server.request(method, path, &headers, b"{}").status
}

#[test]
fn keys_let_in_and_can_be_revoked_while_the_server_runs() {
    let base = tempfile::tempdir().unwrap();
    let refused = lattice(base.path(), &["serve", "--port", "0", "--require-key"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("lattice key create"));

    let read = make_key(base.path(), "reader", "read");
    let queue = make_key(base.path(), "writer", "queue");
    let admin = make_key(base.path(), "owner", "admin");
    assert!(!lattice(base.path(), &["key", "create", "owner"]).status.success(), "names are taken once");
    let listed = lattice(base.path(), &["key", "list"]).stdout;
    assert_eq!(String::from_utf8(listed).unwrap(), "reader\tread\nwriter\tqueue\nowner\tadmin\n");

    let server = Server::start(base.path(), &["--memory-queue", "--require-key"]);
    for (method, path, expected) in [
        ("GET", "/queue", [401, 401, 200, 200, 200]),
        ("GET", "/api/queue", [401, 401, 200, 200, 200]),
        ("POST", "/queue", [401, 401, 403, 200, 200]),
        ("POST", "/interrupt", [401, 401, 403, 200, 200]),
        ("POST", "/free", [401, 401, 403, 403, 200]),
        ("GET", "/internal/logs", [401, 401, 403, 403, 200]),
        ("GET", "/nothing", [401, 401, 404, 404, 404]),
        ("GET", "/healthz", [200, 200, 200, 200, 200]),
        ("GET", "/readyz", [200, 200, 200, 200, 200]),
        ("HEAD", "/metrics", [401, 401, 200, 200, 200]),
        ("GET", "/openapi.json", [401, 401, 200, 200, 200]),
        ("GET", "/v1/queue", [401, 401, 200, 200, 200]),
        ("POST", "/v1/queue/prompts/x/move", [401, 401, 403, 400, 400]),
        ("PATCH", "/v1/queue/prompts/x", [401, 401, 403, 404, 404]),
        ("DELETE", "/v1/queue/prompts/x", [401, 401, 403, 404, 404]),
        ("POST", "/v1/queue/import", [401, 401, 403, 400, 400]),
        ("GET", "/v1/queue/export", [401, 401, 403, 403, 200]),
        ("PUT", "/v1/queue/order", [401, 401, 403, 403, 400]),
        ("POST", "/v1/queue/pause", [401, 401, 403, 403, 200]),
        ("POST", "/v1/queue/resume", [401, 401, 403, 403, 200]),
    ] {
        let keys = [None, Some("wrong"), Some(&*read), Some(&*queue), Some(&*admin)];
        assert_eq!(keys.map(|key| status(&server, method, path, key)), expected, "{method} {path}");
    }
    let refused = server.get("/queue");
    assert!(refused.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic")));
    assert_eq!(server.request("GET", "/queue", &[("X-API-Key", &read)], b"").status, 200);

    assert!(lattice(base.path(), &["key", "revoke", "reader"]).status.success());
    assert_eq!(status(&server, "GET", "/queue", Some(&read)), 401);
    assert_eq!(status(&server, "GET", "/queue", Some(&queue)), 200);
    assert!(!lattice(base.path(), &["key", "revoke", "reader"]).status.success());
}

#[test]
fn requests_and_answers_go_through_tls() {
    let base = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (base.path().join("cert.pem"), base.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = ["--tls-certfile", certificate.to_str().unwrap(), "--tls-keyfile", key.to_str().unwrap()];
    let server = Server::start(base.path(), &[&files[..], &["--memory-queue"]].concat());

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(&server.address).unwrap());
    stream.write_all(b"GET /prompt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("exec_info"), "{answer}");

    let mut plain = TcpStream::connect(&server.address).unwrap();
    plain.write_all(b"GET /prompt HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));

    std::fs::write(&certificate, "nothing").unwrap();
    let refused = lattice(base.path(), &[&["serve", "--port", "0"], &files[..]].concat());
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cert.pem"));
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue", "--max-connections", "2"]);
    let sockets = [server.socket("a"), server.socket("b")];
    let mut third = TcpStream::connect(&server.address).unwrap();
    let _ = third.write_all(b"GET /prompt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = third.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    drop(sockets);
    let asked = super::client::eventually(|| {
        let mut stream = TcpStream::connect(&server.address).ok()?;
        stream.write_all(b"GET /prompt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 200").then_some(json!(true))
    });
    assert_eq!(asked, true);
}
