//! A TCP proxy that cuts, delays and damages connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A fault of the bytes from the server, or of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The connection is closed after this many bytes.
    Cut(u64),
    /// No byte comes after this many, and the connection stays open.
    Stall(u64),
    /// Bytes per second.
    Slow(u64),
    /// One bit of the byte at this offset is wrong.
    Flip(u64),
    /// The last of each so many bytes has a wrong bit.
    Noise(u64),
    /// Connections are closed as soon as they are made.
    Refuse,
    /// Each request is answered by 503, as S3 does under load.
    Busy,
    /// The first answer goes to the client of another connection; with the second request the connection ends.
    Swap,
    /// Each connection waits up to this many milliseconds before its first byte, a different time each.
    Shuffle(u64),
}

impl Fault {
    /// Whether a connection has the fault at one byte only, to which it may never come.
    fn is_at_a_byte(self) -> bool {
        matches!(self, Self::Cut(_) | Self::Stall(_) | Self::Flip(_))
    }
}

/// Bytes that pass a limited proxy at once after a pause, as in the `tc` limits of measurements.
const BURST: f64 = 1e6;

/// A proxy on loopback before one server.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    upstream: AtomicU16,
    /// The fault, and how many more connections will have it.
    fault: Mutex<(Fault, u64)>,
    connections: AtomicU64,
    faulty: AtomicU64,
    /// Bytes to the server and from it.
    bytes: [AtomicU64; 2],
    /// Bytes per second from the server; 0 is no limit. `used_until` is the time until which earlier bytes use the rate up.
    rate: AtomicU64,
    used_until: Mutex<Option<Instant>>,
    /// Connections that wait for another one to swap answers with.
    waiting: Mutex<Vec<(u64, TcpStream)>>,
    swapped: Mutex<Vec<(u64, TcpStream)>>,
    arrived: Condvar,
}

impl Proxy {
    /// A proxy before the server on `upstream`, without faults.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket on loopback");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(State {
            upstream: AtomicU16::new(upstream),
            fault: Mutex::new((Fault::None, 0)),
            connections: AtomicU64::new(0),
            faulty: AtomicU64::new(0),
            bytes: Default::default(),
            rate: AtomicU64::new(0),
            used_until: Mutex::default(),
            waiting: Mutex::default(),
            swapped: Mutex::default(),
            arrived: Condvar::new(),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { port, state }
    }

    /// Limits all connections together to `rate` bytes per second from the server, after up to [`BURST`] at once.
    pub fn limit(&self, rate: u64) {
        self.state.rate.store(rate, Ordering::SeqCst);
    }

    /// Connects new clients to another server.
    pub fn lead_to(&self, upstream: u16) {
        self.state.upstream.store(upstream, Ordering::SeqCst);
    }

    /// Does `fault` to the next `connections` connections: one that ends before the byte of the fault does not count.
    pub fn inject(&self, fault: Fault, connections: u64) {
        *self.state.fault.lock().expect("not poisoned") = (fault, connections);
    }

    /// Bytes that went to the server and that came from it so far.
    pub fn bytes(&self) -> [u64; 2] {
        [0, 1].map(|side| self.state.bytes[side].load(Ordering::SeqCst))
    }

    /// The number of connections that had a fault so far.
    pub fn faulty(&self) -> u64 {
        self.state.faulty.load(Ordering::SeqCst)
    }
}

impl State {
    /// Copies the server's bytes to the client, at the limited rate.
    fn answer(&self, server: TcpStream, to_client: TcpStream, fault: Fault) {
        pump(server, to_client, fault, &|| self.spend(), &|count| {
            self.bytes[1].fetch_add(count, Ordering::SeqCst);
            let rate = self.rate.load(Ordering::SeqCst);
            if rate > 0 {
                let mut used_until = self.used_until.lock().expect("not poisoned");
                let now = Instant::now();
                let cost = |bytes: f64| Duration::from_secs_f64(bytes / rate as f64);
                // A sleep that was too long is made up for.
                let until =
                    used_until.unwrap_or(now).max(now.checked_sub(cost(BURST)).unwrap_or(now)) + cost(count as f64);
                *used_until = Some(until);
                drop(used_until);
                thread::sleep(until.saturating_duration_since(now));
            }
        });
    }

    /// The fault of a new connection. One at a byte is spent only where the connection comes to it.
    fn next_fault(&self) -> Fault {
        let fault = self.fault.lock().expect("not poisoned").0;
        if fault.is_at_a_byte() || self.spend() { fault } else { Fault::None }
    }

    /// Whether one more connection has the fault.
    fn spend(&self) -> bool {
        let mut fault = self.fault.lock().expect("not poisoned");
        if fault.1 == 0 || fault.0 == Fault::None {
            return false;
        }
        fault.1 -= 1;
        self.faulty.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn serve(&self, client: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let fault = self.next_fault();
        if fault == Fault::Refuse {
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        if fault == Fault::Busy {
            busy(client);
            return;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream.load(Ordering::SeqCst))) else {
            return;
        };
        let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
        thread::scope(|scope| {
            scope.spawn(|| {
                let count = |count| _ = self.bytes[0].fetch_add(count, Ordering::SeqCst);
                let fault = if fault == Fault::Swap { fault } else { Fault::None };
                pump(from_client, to_server, fault, &|| false, &count)
            });
            let to_client = if fault == Fault::Swap { self.swap(number, client) } else { Some(client) };
            match to_client {
                Some(to_client) => {
                    if let Fault::Shuffle(most) = fault {
                        thread::sleep(Duration::from_millis(number * 7919 % most.max(1)));
                    }
                    self.answer(server, to_client, if fault == Fault::Swap { Fault::None } else { fault });
                }
                None => {
                    let _ = server.shutdown(Shutdown::Both);
                }
            }
        });
    }

    /// Swaps `client` with that of another connection. `None` if there was none within 2 seconds.
    fn swap(&self, number: u64, client: TcpStream) -> Option<TcpStream> {
        let mut waiting = self.waiting.lock().expect("not poisoned");
        if let Some((other, theirs)) = waiting.pop() {
            self.swapped.lock().expect("not poisoned").push((other, client));
            self.arrived.notify_all();
            return Some(theirs);
        }
        waiting.push((number, client));
        let found = || {
            let mut swapped = self.swapped.lock().expect("not poisoned");
            swapped.iter().position(|(for_whom, _)| *for_whom == number).map(|at| swapped.swap_remove(at).1)
        };
        for _ in 0..20 {
            waiting = self.arrived.wait_timeout(waiting, Duration::from_millis(100)).expect("not poisoned").0;
            if let Some(theirs) = found() {
                return Some(theirs);
            }
        }
        waiting.retain(|(other, _)| *other != number);
        None
    }
}

/// Reads the head of a request and answers 503.
fn busy(mut client: TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") && matches!(client.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    let _ = client.write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = client.shutdown(Shutdown::Write);
    let _ = client.read(&mut byte);
}

/// Copies bytes until one side closes. `spend` says whether a fault at a byte happens where the connection comes to it.
fn pump(mut from: TcpStream, mut to: TcpStream, fault: Fault, spend: &dyn Fn() -> bool, moved: &dyn Fn(u64)) {
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0u64;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut chunk = &mut buffer[..count];
        match fault {
            Fault::Cut(at) | Fault::Stall(at) if (done..done + count as u64).contains(&at) && spend() => {
                chunk = &mut chunk[..(at - done) as usize];
                let _ = to.write_all(chunk);
                if matches!(fault, Fault::Stall(_)) {
                    // Waits until the client closes the connection.
                    let _ = to.read(&mut [0; 1]);
                }
                break;
            }
            Fault::Flip(at) if (done..done + count as u64).contains(&at) && spend() => {
                chunk[(at - done) as usize] ^= 1;
            }
            Fault::Noise(every) => {
                let first = every - 1 - done % every;
                chunk.iter_mut().skip(first as usize).step_by(every as usize).for_each(|byte| *byte ^= 1);
            }
            // The second request: one that follows a wrong answer must not get another one.
            Fault::Swap if done > 0 => break,
            Fault::Slow(rate) => thread::sleep(Duration::from_millis(count as u64 * 1000 / rate.max(1))),
            _ => {}
        }
        done += chunk.len() as u64;
        moved(chunk.len() as u64);
        if to.write_all(chunk).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
