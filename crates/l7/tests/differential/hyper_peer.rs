//! hyper's server connection over memory.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};

use crate::seen::{Asked, End, Seen};

/// What hyper's server makes of the stream.
pub fn read(bytes: &[u8]) -> Seen {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request| serve(Arc::clone(&seen), request));
    let mut connection =
        pin!(http1::Builder::new().serve_connection(Memory(bytes.to_vec()), service));
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    let end = loop {
        flag.0.store(false, SeqCst);
        let poll = connection.as_mut().poll(&mut Context::from_waker(&waker));
        match poll {
            Poll::Ready(_) => break End::Closed,
            // Nothing can happen any more: there is no other thread.
            Poll::Pending if !flag.0.load(SeqCst) => break End::Open,
            Poll::Pending => {}
        }
    };
    let requests = seen.lock().unwrap().clone();
    Seen { requests, end }
}

/// Notes the request, reads its body, and answers 404: a CONNECT that succeeds would end the reading.
async fn serve(
    seen: Arc<Mutex<Vec<Asked>>>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let host = request.headers().get(HOST);
    let asked = Asked {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        host: host.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        body: None,
        done: false,
    };
    seen.lock().unwrap().push(asked);
    let body = request.into_body().collect().await?.to_bytes();
    if let Some(last) = seen.lock().unwrap().last_mut() {
        last.body = Some(body.len() as u64);
        last.done = true;
    }
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}

/// Whether somebody wants to be polled again.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// A client that has sent these bytes and waits.
struct Memory(Vec<u8>);

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let n = buf.remaining().min(self.0.len());
        buf.put_slice(&self.0[..n]);
        self.0.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
