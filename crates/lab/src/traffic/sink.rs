//! A server for uploads: reads bodies with large buffers and throws them away, or hashes them.
//!
//! nginx writes bodies to files; for measuring the path, a receiver that does nothing else is the
//! honest baseline. One thread per connection.
//!
//! * `PUT ...`: the body is discarded, `200` with an empty body
//! * `PUT .../hash`: `200` with the body's SHA-256
//! * `GET .../stream/N`: `200` with N bytes made on the fly

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use super::args::Args;
use super::bulk::{hash_body, make_body, receive, send};
use super::http::{RequestHead, Rest, read_request};
use super::stream::{BUFFER, IDLE, Stream, server, server_config};
use crate::error::{LabError, Result};

/// Serves on `--http ADDR` and, with `--cert` and `--key`, on `--https ADDR`, until it is killed.
/// Prints `{"ready":true}` once both accept.
pub fn serve(args: &Args) -> Result<()> {
    let http: SocketAddr = args.need("http")?;
    let https: SocketAddr = args.need("https")?;
    let (cert, key): (PathBuf, PathBuf) = (args.need("cert")?, args.need("key")?);
    let config = Arc::new(server_config(&cert, &key)?);
    let (plain, tls) = (bind(http)?, bind(https)?);
    super::print(&serde_json::json!({ "ready": true }))?;
    std::thread::scope(|scope| {
        scope.spawn(|| accept(&plain, None));
        accept(&tls, Some(&config));
    });
    Ok(())
}

fn bind(addr: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(addr).map_err(|e| LabError::Traffic(format!("listening on {addr}: {e}")))
}

fn accept(listener: &TcpListener, tls: Option<&Arc<rustls::ServerConfig>>) {
    for tcp in listener.incoming().flatten() {
        let tls = tls.cloned();
        // A connection that fails is the client's to report.
        std::thread::spawn(move || connection(tcp, tls.as_ref()));
    }
}

fn connection(tcp: TcpStream, tls: Option<&Arc<rustls::ServerConfig>>) -> Result<()> {
    let set = tcp
        .set_nodelay(true)
        .and_then(|()| tcp.set_read_timeout(Some(IDLE)));
    set.map_err(|e| LabError::Traffic(format!("socket: {e}")))?;
    let mut stream = server(tcp, tls)?;
    let mut rest = Vec::new();
    while let Some((head, after)) = read_request(&mut stream, rest)? {
        rest = answer(&mut stream, &head, after)?;
    }
    Ok(())
}

fn answer(stream: &mut Stream, head: &RequestHead, rest: Rest) -> Result<Rest> {
    if head.method == "GET" {
        let bytes = head
            .target
            .rsplit('/')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        send(stream, ok_head(bytes).as_bytes())?;
        make_body(bytes, |chunk| send(stream, chunk))?;
        return Ok(rest);
    }
    let body = if head.target.ends_with("/hash") {
        hash_body(stream, &rest, head.length)?
    } else {
        discard(stream, head.length.saturating_sub(rest.len() as u64))?;
        String::new()
    };
    send(
        stream,
        format!("{}{body}", ok_head(body.len() as u64)).as_bytes(),
    )?;
    Ok(Vec::new())
}

fn ok_head(length: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

fn discard(stream: &mut Stream, length: u64) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut left = length;
    while left > 0 {
        left = left.saturating_sub(receive(stream, &mut buffer)? as u64);
    }
    Ok(())
}
