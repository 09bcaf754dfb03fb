//! The ends of Kerberos tickets and of Hadoop's delegation tokens, from their files. Pure functions: a file that cannot be
//! understood has no end.

/// The bytes of a file that are not read yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A big-endian number of this many bytes.
    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Bytes after their length, which has four.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.number(4)?;
        self.take(usize::try_from(length).ok()?)
    }

    /// Hadoop's `WritableUtils.readVLong`, of numbers that are not negative.
    fn variable(&mut self) -> Option<u64> {
        let first = self.take(1)?.first()?.cast_signed();
        match first {
            0.. => u64::try_from(first).ok(),
            -120..=-113 => self.number(usize::from((-112 - first).unsigned_abs())),
            _ => None,
        }
    }

    /// Bytes after their length, as Hadoop writes `Text` and arrays.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.variable()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// The realm and the first component of a principal.
    fn principal(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        self.number(4)?;
        let components = self.number(4)?;
        let realm = self.counted()?;
        let mut first: &[u8] = &[];
        for index in 0..components {
            let component = self.counted()?;
            if index == 0 {
                first = component;
            }
        }
        Some((realm, first))
    }
}

/// When the last ticket-granting ticket of a file cache ends, in seconds since 1970. Of the format that MIT Kerberos (its
/// documentation: "Credential cache file format") and Java write, version 4.
pub(super) fn ticket_end(cache: &[u8]) -> Option<u64> {
    let mut bytes = Bytes(cache);
    if bytes.number(2)? != 0x0504 {
        return None;
    }
    let header = bytes.number(2)?;
    bytes.take(usize::try_from(header).ok()?)?;
    bytes.principal()?;
    let mut last = None;
    while !bytes.0.is_empty() {
        bytes.principal()?;
        let (_, service) = bytes.principal()?;
        bytes.number(2)?;
        bytes.counted()?;
        let [_, _, end, _] = [bytes.number(4)?, bytes.number(4)?, bytes.number(4)?, bytes.number(4)?];
        bytes.take(5)?;
        for _ in 0..2 {
            for _ in 0..bytes.number(4)? {
                bytes.number(2)?;
                bytes.counted()?;
            }
        }
        bytes.counted()?;
        bytes.counted()?;
        if service == b"krbtgt" {
            last = last.max(Some(end));
        }
    }
    last
}

/// When the first delegation token for HDFS ends at the latest, in seconds since 1970: a name node may end it before, if
/// no client renews it. The file is what Hadoop's `Credentials.writeTokenStorageToStream` writes, as YARN does for its containers.
pub(super) fn tokens_end(file: &[u8]) -> Option<u64> {
    let mut bytes = Bytes(file);
    if bytes.take(5)? != b"HDTS\0" {
        return None;
    }
    let mut first: Option<u64> = None;
    for _ in 0..bytes.variable()? {
        bytes.text()?;
        let identifier = bytes.text()?;
        bytes.text()?;
        let kind = bytes.text()?;
        bytes.text()?;
        if kind == b"HDFS_DELEGATION_TOKEN" {
            let end = token_end(identifier)?;
            first = Some(first.map_or(end, |known| known.min(end)));
        }
    }
    first
}

/// The last moment of a token: version, owner, renewer, real user, when it was issued, when it ends, in milliseconds.
fn token_end(identifier: &[u8]) -> Option<u64> {
    let mut bytes = Bytes(identifier);
    bytes.number(1)?;
    for _ in 0..3 {
        bytes.text()?;
    }
    bytes.variable()?;
    Some(bytes.variable()? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str) -> Vec<u8> {
        [&u32::try_from(text.len()).expect("short").to_be_bytes(), text.as_bytes()].concat()
    }

    fn principal(parts: &[&str]) -> Vec<u8> {
        let parts: Vec<u8> = parts.iter().flat_map(|part| counted(part)).collect();
        [vec![0, 0, 0, 1, 0, 0, 0, 2], counted("REALM"), parts].concat()
    }

    /// A ticket for a service, that ends then.
    fn ticket(service: &str, end: u32) -> Vec<u8> {
        let times = [[0; 4], [0; 4], end.to_be_bytes(), [0; 4]].concat();
        let address = [vec![0, 0, 0, 1, 0, 2], counted("ad")].concat();
        let (own, other) = (principal(&["me", "host"]), principal(&[service, "REALM"]));
        let rest = [vec![0; 4], counted("ticket"), counted("")].concat();
        [own, other, vec![0, 18], counted("key"), times, vec![0; 5], address, rest].concat()
    }

    #[test]
    fn ticket_s_end_is_that_of_the_ticket_granting_one() {
        let head = [vec![5, 4, 0, 12], vec![0; 12], principal(&["me", "host"])].concat();
        let cache = [head.clone(), ticket("krbtgt", 1000), ticket("hdfs", 9000), ticket("krbtgt", 2000)].concat();
        assert_eq!(ticket_end(&cache), Some(2000));
        assert_eq!(ticket_end(&head), None);
        for cut in 1..cache.len() - head.len() {
            let _ = ticket_end(&cache[..cache.len() - cut]);
        }
        assert_eq!(ticket_end(b"\x05\x03"), None);
    }

    #[test]
    fn token_s_end_is_its_last_moment() {
        let text = |text: &[u8]| [&[u8::try_from(text.len()).expect("short")], text].concat();
        // Six bytes of milliseconds: -112 - 6.
        let long = |milliseconds: u64| [&[0x8a_u8], &milliseconds.to_be_bytes()[2..]].concat();
        let identifier =
            |end| [vec![0], text(b"me"), text(b"yarn"), text(b""), long(1), long(end), vec![1, 2]].concat();
        let token = |kind: &[u8], end| {
            [text(b"alias"), text(&identifier(end)), text(b"password"), text(kind), text(b"host:8020")].concat()
        };
        let kind = b"HDFS_DELEGATION_TOKEN";
        let tokens = [token(kind, 9_000_000_000_000), token(b"other", 1000), token(kind, 1_800_000_000_000)].concat();
        let file = [b"HDTS\0\x03".to_vec(), tokens].concat();
        assert_eq!(tokens_end(&file), Some(1_800_000_000));
        assert_eq!(tokens_end(&file[..file.len() - 3]), None);
        assert_eq!(tokens_end(b"HDTS\x01"), None);
    }
}
