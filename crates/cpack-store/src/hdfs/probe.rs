//! Why a name node hangs up: a question of its own to it, when that has happened.
//!
//! A name node that wants Kerberos answers a client that speaks without it by an exception and hangs up. The HDFS client
//! sees only the end of the connection, and would go on trying. So it would with a web server, whose port people take for the
//! name node's.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// Hadoop's RPC header (magic, version 9, service class 0, no authentication), and an end of line: a web server waits for one.
const HEADER: &[u8] = b"hrpc\x09\x00\x00\r\n\r\n";

/// What the exception says.
const REFUSAL: &[u8] = b"authentication is not enabled";

/// What web servers say to that: a status line, or the page alone.
const PAGES: [&[u8]; 2] = [b"HTTP/", b"<"];

/// How long the answer may take. A name node without Kerberos waits for more and never answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A name node that refuses clients that do not prove who they are.
    WantsProof,
    /// What answers by a web page: most likely the name node's other port.
    WebServer,
    /// A name node without Kerberos, or a server that says nothing.
    Silent,
}

/// What answers at `address` (`HOST:PORT`).
pub(super) fn ask(address: &str) -> Peer {
    let Some(address) = address.to_socket_addrs().ok().and_then(|mut found| found.next()) else { return Peer::Silent };
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { return Peer::Silent };
    let mut answer = Vec::new();
    let asked = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.write_all(HEADER));
    // It hangs up after its answer; a time-out leaves what came before in the buffer.
    let _ = asked.and_then(|()| stream.take(4096).read_to_end(&mut answer));
    if memchr::memmem::find(&answer, REFUSAL).is_some() {
        Peer::WantsProof
    } else if PAGES.iter().any(|start| answer.starts_with(start)) {
        Peer::WebServer
    } else {
        Peer::Silent
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn answers_are_recognised_and_silence_is_none() {
        for (answer, peer) in [
            (&b"\x00\x01SIMPLE authentication is not enabled. Available:[TOKEN]"[..], Peer::WantsProof),
            (b"HTTP/1.1 400 Illegal character CNTL=0x9\r\n\r\n", Peer::WebServer),
            (b"<!DOCTYPE HTML>\n<html>", Peer::WebServer),
            (b"", Peer::Silent),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            let address = listener.local_addr().expect("its address").to_string();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut header = [0; HEADER.len()];
                stream.read_exact(&mut header).expect("the header");
                stream.write_all(answer).expect("answers");
                header
            });
            assert_eq!(ask(&address), peer);
            assert_eq!(server.join().expect("ends"), HEADER);
        }
        assert_eq!(ask("no-such-host.invalid:1"), Peer::Silent);
    }
}
