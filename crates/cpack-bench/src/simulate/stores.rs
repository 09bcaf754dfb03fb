//! Models of stores: how fast they send bytes to how many readers.

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Store {
    pub(crate) name: String,
    /// Copies of each block, for HDFS only.
    pub(crate) replication: Option<u32>,
    /// Bytes per second to all nodes together.
    pub(crate) aggregate: f64,
    /// Bytes per second to all connections of one container.
    pub(crate) per_container: f64,
    /// Seconds until the first byte of a request.
    pub(crate) latency: f64,
    /// Core seconds per byte on the node, more than reading a local file takes: encryption, checksums, copies.
    pub(crate) work: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Link {
    /// Bytes per second of a node's network.
    pub(crate) node: f64,
    /// Bytes per second of a shared directory's server.
    pub(crate) shared: f64,
    /// Nodes that hold blocks of HDFS.
    pub(crate) data_nodes: u32,
}

/// Ranges that `cpack-boot` fetches at once: one per thread, at most 16.
const RANGES: f64 = 16.0;

/// Size of an HDFS block.
const BLOCK: f64 = 128.0 * 1024.0 * 1024.0;

/// Bytes per second of one S3 connection: AWS's own guidance says 85 to 90 MB/s.
const S3_CONNECTION: f64 = 85e6;

/// The stores to compare, for an environment of `packed` bytes.
///
/// - A *shared directory* has one server, whose network all readers share.
/// - *HDFS* has each block on as many nodes as it has copies. All starts fetch an environment in the same order, so only nodes
///   with a block that is being fetched send bytes: `replication × min(blocks, 16)` nodes, at most all data nodes.
/// - *S3* grows with its readers. Each connection has a limit, and TLS costs work.
pub(crate) fn stores(packed: f64, link: &Link) -> Vec<Store> {
    let blocks = (packed / BLOCK).ceil().clamp(1.0, RANGES);
    let hdfs = |copies: u32| Store {
        name: "HDFS".into(),
        replication: Some(copies),
        aggregate: (f64::from(copies) * blocks).min(f64::from(link.data_nodes)) * link.node,
        per_container: f64::INFINITY,
        latency: 0.005,
        // CRC-32C of the received bytes and one copy out of the socket.
        work: 0.5e-9,
    };
    let shared = Store {
        name: "shared directory".into(),
        replication: None,
        aggregate: link.shared,
        per_container: f64::INFINITY,
        latency: 0.001,
        work: 0.2e-9,
    };
    let s3 = Store {
        name: "S3".into(),
        replication: None,
        aggregate: f64::INFINITY,
        per_container: RANGES * S3_CONNECTION,
        latency: 0.05,
        // AES-GCM and two copies.
        work: 1.0e-9,
    };
    vec![shared, hdfs(1), hdfs(3), hdfs(10), s3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_hdfs_are_faster_with_more_copies_up_to_all_nodes() {
        let link = Link { node: 1.0, shared: 4.0, data_nodes: 20 };
        let hdfs: Vec<f64> =
            stores(BLOCK * 3.5, &link).iter().filter(|s| s.name == "HDFS").map(|s| s.aggregate).collect();
        assert_eq!(hdfs, [4.0, 12.0, 20.0]);
    }
}
