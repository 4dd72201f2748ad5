use std::net::TcpListener;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::{fs, thread};

use super::super::bearer::Token;
use super::super::scripted_host::{ok, recording_host, scripted_host};
use super::*;

fn client(host: &str) -> Result<Client, ClientError> {
    let address = Address::parse(host)?;
    Client::of_target(Target { address, token: None, ca: None })
}

/// Returns a client that signs in.
fn signed_in(host: &str) -> Client {
    let (address, token) = (Address::parse(host).unwrap(), Token::parse("kt_abc", "x").ok());
    Client::of_target(Target { address, token, ca: None }).unwrap()
}

#[test]
fn every_failure_is_a_sentence() {
    let table = [
        (
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n\
             {\"title\":\"Not found\",\"status\":404,\"detail\":\"There is no order with the id 7.\",\
             \"code\":\"not-found\"}",
            "the host refused: There is no order with the id 7. (not-found)",
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n{\"title\":\"Too busy\"}",
            "the host cannot answer: Too busy",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\n\r\n<html>",
            "HOST answered with status 502 and no problem; is it a Kontor host?",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n", "cannot read the response of HOST"),
    ];
    for (answer, expected) in table {
        let (host, answering) = scripted_host(vec![answer.to_owned()]);
        let error = client(&host).unwrap().get("/x", &[]).unwrap_err().to_string();
        answering.join().unwrap();
        assert_eq!(error.replace(&host, "HOST"), expected);
    }
}

#[test]
fn a_client_without_tls_at_a_host_with_it_learns_the_address_to_use() {
    let problem = r#"{"title":"Plain HTTP","detail":"This address speaks TLS.","code":"plain-http"}"#;
    let (host, answering) =
        scripted_host(vec![format!("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n{problem}")]);
    let error = client(&host).unwrap().get("/x", &[]).unwrap_err();
    answering.join().unwrap();
    let secure = host.replace("http:", "https:");
    assert_eq!(error.to_string(), format!("the host at {host} speaks TLS: use {secure}"));
    assert_eq!(error.exit(), Exit::Usage);
}

#[test]
fn a_client_with_tls_at_a_host_without_it_learns_the_address_to_use() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("https://{}", listener.local_addr().unwrap());
    let answering = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        // The handshake, which is no request.
        assert!(connection.read(&mut [0; 16 << 10]).unwrap() > 0);
        connection.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").unwrap();
    });
    let error = client(&host).unwrap().get("/x", &[]).unwrap_err();
    answering.join().unwrap();
    let plain = host.replace("https:", "http:");
    assert_eq!(error.to_string(), format!("the host at {host} does not speak TLS: use {plain}"));
    assert_eq!(error.exit(), Exit::Usage);
}

#[test]
fn the_error_of_a_missing_host_says_how_to_start_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&host).unwrap().get("/x", &[]).unwrap_err().to_string();
    assert!(error.contains("start one with `kontor serve`"), "{error}");
}

#[test]
fn a_host_that_wants_a_token_is_answered_with_the_ways_to_have_one() {
    let problem = r#"{"title":"Sign in","detail":"Sign in first.","code":"not-signed-in"}"#;
    let (host, answering) =
        scripted_host(vec![format!("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n{problem}")]);
    let error = client(&host).unwrap().get("/x", &[]).unwrap_err().to_string();
    answering.join().unwrap();
    assert!(error.ends_with("(not-signed-in); sign in with `kontor login`, --token-file or KONTOR_TOKEN"));
}

#[test]
fn the_token_stands_in_every_request_and_in_none_after_a_redirect() {
    let (elsewhere, _) = scripted_host(vec![ok("{}")]);
    let redirect = format!("HTTP/1.1 307 Redirect\r\nconnection: close\r\nlocation: {elsewhere}/x\r\n\r\n");
    let (host, answering) = recording_host(vec![ok("{}"), ok("{}"), ok("{}"), ok("{}"), redirect]);
    let client = signed_in(&host);
    client.get("/x", &[]).unwrap();
    client.post("/x", &[], &Value::Null).unwrap();
    client.put("/x", &[], &[], b"x").unwrap();
    client.delete("/x", &[], &[]).unwrap();
    let error = client.get("/x", &[]).unwrap_err().to_string();
    assert_eq!(error, format!("{host} redirects to {elsewhere}/x; if that is the host, name it with --host"));
    for request in answering.join().unwrap() {
        assert!(request.head.iter().any(|line| line == "authorization: Bearer kt_abc"), "{request:?}");
    }
}

#[test]
fn a_unix_socket_is_called_like_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kontor.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let answering = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let read = connection.read(&mut request).unwrap();
        connection.write_all(ok("{}").as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let body = signed_in(&format!("unix:{}", socket.display())).get("/x", &[]).unwrap();
    let request = answering.join().unwrap();
    assert_eq!(body, "{}");
    for line in ["GET /x HTTP/1.1\r\n", "host: 127.0.0.1\r\n", "authorization: Bearer kt_abc\r\n"] {
        assert!(request.contains(line), "{request}");
    }
}

#[test]
fn a_host_with_tls_is_called_if_the_given_authority_has_signed_its_certificate() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let (server, listener) = (Arc::new(server), TcpListener::bind("127.0.0.1:0").unwrap());
    let host = format!("https://{}", listener.local_addr().unwrap());
    let answering = thread::spawn(move || {
        for socket in listener.incoming().take(2) {
            let connection = rustls::ServerConnection::new(server.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket.unwrap());
            // Err: the client does not trust the certificate.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(ok("{}").as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, cert.pem()).unwrap();
    let call = |ca| {
        let address = Address::parse(&host).unwrap();
        Client::of_target(Target { address, token: None, ca }).unwrap().get("/x", &[])
    };
    let error = call(None).unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error:?}");
    assert_eq!(call(Some(ca)).unwrap(), "{}");
    answering.join().unwrap();
}

#[test]
fn parameters_are_encoded_in_the_address() {
    let (host, answering) = scripted_host(vec!["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}".to_owned()]);
    let body = client(&host).unwrap().get("/events", &[("after", "3 &".to_owned())]).unwrap();
    assert_eq!(
        (body.as_str(), answering.join().unwrap()),
        ("{}", vec!["GET /events?after=3%20%26 HTTP/1.1".to_owned()])
    );
}
