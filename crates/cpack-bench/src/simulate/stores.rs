//! Stores, as far as a simulation knows them: how fast they give bytes to how many.

/// A store that many nodes read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// What it is called.
    pub name: String,
    /// Copies of each block, where that is a choice.
    pub replication: Option<u32>,
    /// Bytes per second that it gives to all nodes together.
    pub aggregate: f64,
    /// Bytes per second that one container gets at most: of its connections together.
    pub per_container: f64,
    /// Seconds until the first byte of a request.
    pub latency: f64,
    /// Core seconds per byte on the node, beyond reading from a local file: encryption, checksums, copies.
    pub work: f64,
}

/// Networks of a cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Bytes per second of a node.
    pub node: f64,
    /// Bytes per second that a shared directory gives to all.
    pub shared: f64,
    /// Nodes that hold blocks of HDFS.
    pub data_nodes: u32,
}

/// Ranges that a boot has under way at once: one per thread, of which it has at most 16.
const RANGES: f64 = 16.0;

/// Bytes of a block of HDFS.
const BLOCK: f64 = 128.0 * 1024.0 * 1024.0;

/// Bytes per second of one S3 connection: AWS's own guidance says 85 to 90 MB/s.
const S3_CONNECTION: f64 = 85e6;

/// The stores that are compared, for an environment of this many packed bytes.
///
/// - A *shared directory* has one server, whose network all share.
/// - *HDFS* has a block on as many nodes as it has copies. Boots go through an environment in the same order, so that only the
///   blocks of the ranges that are under way at once give bytes: `replication × min(blocks, 16)` nodes, all at most.
/// - *S3* grows with its readers; a connection has its limit, and TLS its work.
pub fn stores(packed: f64, link: &Link) -> Vec<Store> {
    let blocks = (packed / BLOCK).ceil().clamp(1.0, RANGES);
    let hdfs = |copies: u32| Store {
        name: "HDFS".into(),
        replication: Some(copies),
        aggregate: (f64::from(copies) * blocks).min(f64::from(link.data_nodes)) * link.node,
        per_container: f64::INFINITY,
        latency: 0.005,
        // CRC-32C over what was received and one copy out of the socket.
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
    fn copies_help_until_every_node_has_one() {
        let link = Link { node: 1.0, shared: 4.0, data_nodes: 20 };
        let hdfs: Vec<f64> =
            stores(BLOCK * 3.5, &link).iter().filter(|s| s.name == "HDFS").map(|s| s.aggregate).collect();
        assert_eq!(hdfs, [4.0, 12.0, 20.0]);
    }
}
