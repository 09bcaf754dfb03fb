//! HTTP servers that give one answer to every request, for tests with wrong endpoints.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Serves `answer` (status line, headers and body) to every request until the process ends. Returns the port.
pub fn always(answer: &str) -> u16 {
    counted(answer).0
}

/// Like [`always`]. Also returns the number of requests so far.
pub fn counted(answer: &str) -> (u16, Arc<AtomicU64>) {
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    let answer = answer.to_owned();
    let port = listen(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        answer.clone()
    });
    (port, requests)
}

/// Serves an S3 error `code` that repeats the head of the request, as the error of a wrong signature does. Returns the port
/// and the heads so far.
pub fn echoing(status: u16, code: &str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let code = code.to_owned();
    let port = listen(move |head| {
        seen.lock().expect("no panic").push(head.to_owned());
        let said = head.replace(['<', '>', '&', '\r'], " ");
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{said}</Message><StringToSign>{said}</StringToSign></Error>"
        );
        format!("HTTP/1.1 {status} No\nContent-Type: application/xml\nx-amz-request-id: {code}\n\n{body}")
    });
    (port, heads)
}

/// Redirects every request to the same path below `to`. Returns the port and the heads so far.
pub fn redirecting(to: &str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let to = to.to_owned();
    let port = listen(move |head| {
        seen.lock().expect("no panic").push(head.to_owned());
        let path = head.split(' ').nth(1).unwrap_or_default();
        format!("HTTP/1.1 302 Found\nLocation: {to}{path}\n\n")
    });
    (port, heads)
}

fn listen(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket on loopback");
    let port = listener.local_addr().expect("its address").port();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(stream, &*answer));
        }
    });
    port
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str) -> String) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    let (mut head, mut length) = (String::new(), 0u64);
    let mut from = 0;
    while reader.read_line(&mut head).is_ok_and(|count| count > 0) {
        let line = head[from..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
        if line.trim().is_empty() {
            break;
        }
        from = head.len();
    }
    let _ = std::io::copy(&mut reader.take(length), &mut std::io::sink());
    let answer = answer(&head);
    let (headers, body) = answer.split_once("\n\n").unwrap_or((&answer, ""));
    let body = if head.starts_with("HEAD ") { "" } else { body };
    let headers = headers.replace('\n', "\r\n");
    let _ = write!(stream, "{headers}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
}
