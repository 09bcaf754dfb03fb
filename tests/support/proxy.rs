//! A TCP proxy that does to a connection what networks do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to the bytes that come from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The connection is closed after this many bytes.
    Cut(u64),
    /// No further byte comes after this many, and the connection stays open.
    Stall(u64),
    /// This many bytes a second.
    Slow(u64),
    /// One bit of the byte at this offset is wrong.
    Flip(u64),
    /// Connections are closed as soon as they are made.
    Refuse,
    /// Each answer goes to the client of another connection.
    Swap,
    /// Each connection waits up to this many milliseconds before its first byte, a different time each.
    Shuffle(u64),
}

/// A proxy on loopback before one server.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    upstream: u16,
    /// The fault, and for how many more connections.
    fault: Mutex<(Fault, u64)>,
    connections: AtomicU64,
    faulty: AtomicU64,
    /// Connections that wait for another one to change answers with.
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
            upstream,
            fault: Mutex::new((Fault::None, 0)),
            connections: AtomicU64::new(0),
            faulty: AtomicU64::new(0),
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

    /// Does `fault` to the next `connections` connections.
    pub fn inject(&self, fault: Fault, connections: u64) {
        *self.state.fault.lock().expect("not poisoned") = (fault, connections);
    }

    /// How many connections had a fault so far.
    pub fn faulty(&self) -> u64 {
        self.state.faulty.load(Ordering::SeqCst)
    }
}

impl State {
    fn next_fault(&self) -> Fault {
        let mut fault = self.fault.lock().expect("not poisoned");
        if fault.1 == 0 || fault.0 == Fault::None {
            return Fault::None;
        }
        fault.1 -= 1;
        self.faulty.fetch_add(1, Ordering::SeqCst);
        fault.0
    }

    fn serve(&self, client: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let fault = self.next_fault();
        if fault == Fault::Refuse {
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream)) else { return };
        let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
        thread::scope(|scope| {
            scope.spawn(|| pump(from_client, to_server, Fault::None));
            let to_client = if fault == Fault::Swap { self.swap(number, client) } else { Some(client) };
            match to_client {
                Some(to_client) => {
                    if let Fault::Shuffle(most) = fault {
                        thread::sleep(Duration::from_millis(number * 7919 % most.max(1)));
                    }
                    pump(server, to_client, fault);
                }
                None => {
                    let _ = server.shutdown(Shutdown::Both);
                }
            }
        });
    }

    /// Gives away `client` and takes another connection's. None if no other came for a while.
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

/// Moves bytes from one side to the other until one of them closes.
fn pump(mut from: TcpStream, mut to: TcpStream, fault: Fault) {
    let mut buffer = vec![0; 16 << 10];
    let mut done = 0u64;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut chunk = &mut buffer[..count];
        match fault {
            Fault::Cut(after) | Fault::Stall(after) if done + count as u64 > after => {
                chunk = &mut chunk[..(after - done) as usize];
                let _ = to.write_all(chunk);
                if matches!(fault, Fault::Stall(_)) {
                    // Until the client loses patience.
                    let _ = to.read(&mut [0; 1]);
                }
                break;
            }
            Fault::Flip(at) if (done..done + count as u64).contains(&at) => chunk[(at - done) as usize] ^= 1,
            Fault::Slow(rate) => thread::sleep(Duration::from_millis(count as u64 * 1000 / rate.max(1))),
            _ => {}
        }
        done += chunk.len() as u64;
        if to.write_all(chunk).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
