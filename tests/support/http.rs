//! An HTTP server that gives one answer to everything: endpoints that are not what they should be.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Serves `answer` (status line, headers and body) to every request, for as long as the process lives. Gives the port.
pub fn always(answer: &str) -> u16 {
    counted(answer).0
}

/// The same, with the number of requests so far.
pub fn counted(answer: &str) -> (u16, Arc<AtomicU64>) {
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket on loopback");
    let port = listener.local_addr().expect("its address").port();
    let answer = answer.replace('\n', "\r\n");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            counter.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || serve(stream, &answer));
        }
    });
    (port, requests)
}

fn serve(mut stream: TcpStream, answer: &str) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    let (mut line, mut length, mut head) = (String::new(), 0u64, false);
    while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
        head |= line.starts_with("HEAD ");
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
        if line.trim().is_empty() {
            break;
        }
        line.clear();
    }
    let _ = std::io::copy(&mut reader.take(length), &mut std::io::sink());
    let (headers, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let body = if head { "" } else { body };
    let _ = write!(stream, "{headers}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
}
