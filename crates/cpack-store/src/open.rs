//! Opens the store at a URI.

use std::collections::BTreeMap;

#[cfg(feature = "s3")]
use crate::S3Store;
#[cfg(feature = "hdfs")]
use crate::hdfs::HdfsStore;
use crate::{FileStore, Scheme, Store, StoreError, StoreOptions, StoreUri};

/// Opens the store at `uri`.
///
/// A network store contacts nothing and starts no thread before the first call. A scheme that this build leaves out is
/// [`crate::StoreErrorKind::Misconfigured`].
pub fn open(uri: &StoreUri, options: &StoreOptions) -> Result<Box<dyn Store>, StoreError> {
    let _ = options;
    match uri.scheme {
        Scheme::File => Ok(Box::new(FileStore::new(uri.path.as_ref()))),
        #[cfg(feature = "hdfs")]
        Scheme::Hdfs | Scheme::ViewFs => Ok(Box::new(HdfsStore::new(uri, options)?)),
        #[cfg(not(feature = "hdfs"))]
        Scheme::Hdfs | Scheme::ViewFs => Err(left_out(uri, "hdfs")),
        #[cfg(feature = "s3")]
        Scheme::S3 => Ok(Box::new(S3Store::new(uri, options)?)),
        #[cfg(not(feature = "s3"))]
        Scheme::S3 => Err(left_out(uri, "s3")),
    }
}

/// The properties that an executor without client configuration needs to open the store at `uri`: name services and
/// authentication of HDFS, endpoint and region of S3. Never credentials.
pub fn cluster_properties(uri: &StoreUri, options: &StoreOptions) -> Result<BTreeMap<String, String>, StoreError> {
    let _ = options;
    match uri.scheme {
        Scheme::File => Ok(BTreeMap::new()),
        #[cfg(feature = "hdfs")]
        Scheme::Hdfs | Scheme::ViewFs => HdfsStore::cluster_properties(uri, options),
        #[cfg(not(feature = "hdfs"))]
        Scheme::Hdfs | Scheme::ViewFs => Err(left_out(uri, "hdfs")),
        #[cfg(feature = "s3")]
        Scheme::S3 => S3Store::cluster_properties(uri, options),
        #[cfg(not(feature = "s3"))]
        Scheme::S3 => Err(left_out(uri, "s3")),
    }
}

#[cfg(not(all(feature = "hdfs", feature = "s3")))]
fn left_out(uri: &StoreUri, feature: &str) -> StoreError {
    let reason = format!("this program was built without {feature}: use a build with the feature {feature:?}");
    StoreError::misconfigured(uri, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreErrorKind;

    #[test]
    fn a_directory_is_always_there() {
        let uri: StoreUri = "file:/a/b".parse().expect("a URI");
        assert_eq!(open(&uri, &StoreOptions::default()).expect("opens").uri(), &uri);
    }

    #[test]
    fn what_is_left_out_is_named() {
        for (text, feature, there) in
            [("hdfs://nn:1/x", "hdfs", cfg!(feature = "hdfs")), ("s3://bucket/x", "s3", cfg!(feature = "s3"))]
        {
            match open(&text.parse().expect("a URI"), &StoreOptions::default()) {
                Ok(store) => assert!(there, "{store:?}"),
                Err(error) => {
                    assert!(!there && error.kind == StoreErrorKind::Misconfigured, "{error}");
                    assert!(error.to_string().contains(&format!("without {feature}")), "{error}");
                }
            }
        }
    }
}
