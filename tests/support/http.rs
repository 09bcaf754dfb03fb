//! An HTTP server that gives one answer to everything: endpoints that are not what they should be.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

/// Serves `answer` (status line, headers and body) to every request, for as long as the process lives. Gives the port.
pub fn always(answer: &str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket on loopback");
    let port = listener.local_addr().expect("its address").port();
    let answer = answer.replace('\n', "\r\n");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || serve(stream, &answer));
        }
    });
    port
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
