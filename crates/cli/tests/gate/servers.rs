//! Servers of the tests' own in the outside namespace: they tell exactly what arrived.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tollgate_lab::lab::Place;

use crate::bed::Bed;
use crate::net::spawn;

/// How often a server looks whether it shall end.
const LOOK: Duration = Duration::from_millis(10);

/// What one connection brought.
type Record = Arc<Mutex<Vec<u8>>>;

/// A TCP server that remembers what it gets and answers every empty line with a 200.
#[derive(Debug)]
pub struct Recorder {
    stop: Arc<AtomicBool>,
    records: Arc<Mutex<Vec<Record>>>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Listens on a port, for both families.
    pub fn start(bed: &Bed, port: u16) -> Recorder {
        let (stop, records) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let listener = spawn(bed, Place::Out, move || {
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()
        });
        let listener = listener.join().unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn({
            let (stop, records) = (Arc::clone(&stop), Arc::clone(&records));
            move || accept(&listener, &stop, &records)
        });
        Recorder {
            stop,
            records,
            thread: Some(thread),
        }
    }

    /// What each connection brought so far, in order.
    pub fn received(&self) -> Vec<String> {
        let records = self.records.lock().unwrap();
        let text = |record: &Record| String::from_utf8_lossy(&record.lock().unwrap()).into_owned();
        records.iter().map(text).collect()
    }

    /// Everything that any connection brought so far.
    pub fn all(&self) -> String {
        self.received().concat()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &Arc<AtomicBool>, records: &Mutex<Vec<Record>>) {
    let mut threads = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok((tcp, _)) = listener.accept() else {
            std::thread::sleep(LOOK);
            continue;
        };
        let record = Record::default();
        records.lock().unwrap().push(Arc::clone(&record));
        let stop = Arc::clone(stop);
        threads.push(std::thread::spawn(move || answer(tcp, &stop, &record)));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn answer(mut tcp: TcpStream, stop: &AtomicBool, record: &Record) {
    tcp.set_nonblocking(false).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp.set_read_timeout(Some(LOOK)).unwrap();
    let mut buffer = vec![0; 64 << 10];
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        match tcp.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => record.lock().unwrap().extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        }
        let text = String::from_utf8_lossy(&record.lock().unwrap()).into_owned();
        let heads = text.matches("\r\n\r\n").count();
        for _ in answered..heads {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        answered = heads;
    }
}

/// A UDP server that sends back what it gets.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens on a port, for both families.
    pub fn start(bed: &Bed, port: u16) -> Echo {
        let socket = spawn(bed, Place::Out, move || {
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()
        });
        let socket = socket.join().unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = std::thread::spawn({
            let (stop, received) = (Arc::clone(&stop), Arc::clone(&received));
            move || echo(&socket, &stop, &received)
        });
        Echo {
            stop,
            received,
            thread: Some(thread),
        }
    }

    /// Datagrams that came so far.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool, received: &AtomicUsize) {
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            received.fetch_add(1, Ordering::Relaxed);
            let _ = socket.send_to(&buffer[..n], from);
        }
    }
}
