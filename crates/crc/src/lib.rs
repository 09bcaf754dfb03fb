//! Replaces the part of the crate `crc` that `hdfs-native` uses, with the processor's own instructions.
//!
//! A data node sends a CRC for every 512 bytes, and the client checks each. The crate `crc` does that with tables, at a
//! tenth of the speed of `crc-fast`: a fifth of the processor time of a read from HDFS. A dependency that uses more of
//! `crc` does not compile.

use std::marker::PhantomData;

use crc_fast::CrcAlgorithm;

/// An algorithm on words of `W`.
#[derive(Debug)]
pub struct Algorithm<W> {
    by: CrcAlgorithm,
    word: PhantomData<W>,
}

/// Hadoop's `CRC32`.
pub const CRC_32_ISO_HDLC: Algorithm<u32> = Algorithm { by: CrcAlgorithm::Crc32IsoHdlc, word: PhantomData };

/// Hadoop's `CRC32C`.
pub const CRC_32_ISCSI: Algorithm<u32> = Algorithm { by: CrcAlgorithm::Crc32Iscsi, word: PhantomData };

/// The number of tables, of which this uses none.
#[derive(Debug)]
pub struct Table<const LANES: usize>;

/// An algorithm, ready for use.
#[derive(Debug)]
pub struct Crc<W, I> {
    by: CrcAlgorithm,
    like: PhantomData<(W, I)>,
}

impl<const LANES: usize> Crc<u32, Table<LANES>> {
    /// Prepares nothing.
    pub const fn new(algorithm: &'static Algorithm<u32>) -> Self {
        Self { by: algorithm.by, like: PhantomData }
    }

    /// The CRC of `bytes`.
    #[inline]
    pub fn checksum(&self, bytes: &[u8]) -> u32 {
        match self.by {
            CrcAlgorithm::Crc32Iscsi => crc_fast::crc32_iscsi(bytes),
            _ => crc_fast::crc32_iso_hdlc(bytes),
        }
    }

    /// Computes the CRC of bytes that come one after another.
    pub fn digest(&self) -> Digest {
        Digest(crc_fast::Digest::new(self.by))
    }
}

/// The CRC of the bytes so far.
#[derive(Debug)]
pub struct Digest(crc_fast::Digest);

impl Digest {
    /// Adds the next bytes.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC of all bytes.
    pub fn finalize(self) -> u32 {
        // The algorithms are of 32 bits.
        self.0.finalize() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        for (algorithm, check) in [(&CRC_32_ISO_HDLC, 0xcbf4_3926), (&CRC_32_ISCSI, 0xe306_9283)] {
            let crc = Crc::<u32, Table<16>>::new(algorithm);
            assert_eq!(crc.checksum(b"123456789"), check);
            let mut digest = crc.digest();
            digest.update(b"1234");
            digest.update(b"56789");
            assert_eq!(digest.finalize(), check);
        }
    }

    /// The definition, bit by bit, with the reversed polynomials.
    fn defined(polynomial: u32, bytes: &[u8]) -> u32 {
        let bit = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ polynomial } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
    }

    #[test]
    fn every_size_is_computed_as_defined() {
        let bytes: Vec<u8> = (0..1100_u32).map(|i| ((i * i) >> 3) as u8).collect();
        for (algorithm, polynomial) in [(&CRC_32_ISO_HDLC, 0xedb8_8320), (&CRC_32_ISCSI, 0x82f6_3b78)] {
            let crc = Crc::<u32, Table<16>>::new(algorithm);
            for size in 0..bytes.len() {
                assert_eq!(crc.checksum(&bytes[..size]), defined(polynomial, &bytes[..size]), "{size} bytes");
            }
        }
    }
}
