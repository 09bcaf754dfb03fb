//! Why a name node hangs up: a question of its own to it, when that has happened.
//!
//! A name node that wants Kerberos answers a client that speaks without it by an exception and hangs up. The HDFS client
//! sees only the end of the connection, and would go on trying.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// Hadoop's RPC header: magic, version 9, service class 0, no authentication.
const HEADER: [u8; 7] = *b"hrpc\x09\x00\x00";

/// What the exception says.
const REFUSAL: &[u8] = b"authentication is not enabled";

/// How long the answer may take. A name node that takes anybody waits for more and never answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the name node at `address` (`HOST:PORT`) refuses clients that do not prove who they are.
pub(super) fn wants_proof(address: &str) -> bool {
    let Some(address) = address.to_socket_addrs().ok().and_then(|mut found| found.next()) else { return false };
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { return false };
    let mut answer = Vec::new();
    let asked = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.write_all(&HEADER));
    // It hangs up after its answer; a time-out leaves what came before in the buffer.
    let _ = asked.and_then(|()| stream.take(4096).read_to_end(&mut answer));
    answer.windows(REFUSAL.len()).any(|window| window == REFUSAL)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_refusal_is_recognised_and_silence_is_none() {
        for (answer, wanted) in
            [(&b"\x00\x01SIMPLE authentication is not enabled. Available:[TOKEN]"[..], true), (b"", false)]
        {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            let address = listener.local_addr().expect("its address").to_string();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut header = [0; 7];
                stream.read_exact(&mut header).expect("the header");
                stream.write_all(answer).expect("answers");
                header
            });
            assert_eq!(wants_proof(&address), wanted);
            assert_eq!(server.join().expect("ends"), HEADER);
        }
        assert!(!wants_proof("no-such-host.invalid:1"));
    }
}
