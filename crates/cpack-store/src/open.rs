//! Opens the store at a URI.

use std::collections::BTreeMap;

#[cfg(feature = "s3")]
use crate::S3Store;
#[cfg(feature = "azure")]
use crate::azure::{self, AzureStore};
#[cfg(feature = "gs")]
use crate::gs::{self, GsStore};
#[cfg(feature = "hdfs")]
use crate::hdfs::HdfsStore;
#[cfg(feature = "http")]
use crate::web_server::WebStore;
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
        #[cfg(feature = "gs")]
        Scheme::Gs => Ok(Box::new(GsStore::new(uri, options)?)),
        #[cfg(not(feature = "gs"))]
        Scheme::Gs => Err(left_out(uri, "gs")),
        #[cfg(feature = "azure")]
        Scheme::Azure => Ok(Box::new(AzureStore::new(uri, options)?)),
        #[cfg(not(feature = "azure"))]
        Scheme::Azure => Err(left_out(uri, "azure")),
        #[cfg(feature = "http")]
        Scheme::Http | Scheme::Https => Ok(Box::new(WebStore::new(uri, options)?)),
        #[cfg(not(feature = "http"))]
        Scheme::Http | Scheme::Https => Err(left_out(uri, "http")),
    }
}

/// The properties that an executor without client configuration needs to open the store at `uri`: name services and
/// authentication of HDFS, endpoints, region of S3, account of Azure. Never credentials.
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
        #[cfg(feature = "gs")]
        Scheme::Gs => gs::cluster_properties(uri, options),
        #[cfg(not(feature = "gs"))]
        Scheme::Gs => Err(left_out(uri, "gs")),
        #[cfg(feature = "azure")]
        Scheme::Azure => azure::cluster_properties(uri, options),
        #[cfg(not(feature = "azure"))]
        Scheme::Azure => Err(left_out(uri, "azure")),
        #[cfg(feature = "http")]
        Scheme::Http | Scheme::Https => WebStore::cluster_properties(uri, options),
        #[cfg(not(feature = "http"))]
        Scheme::Http | Scheme::Https => Err(left_out(uri, "http")),
    }
}

/// Starts to write a large object and leaves it, as a killed writer does.
#[cfg(all(feature = "conformance", feature = "gs", feature = "azure"))]
pub fn abandon(uri: &StoreUri, options: &StoreOptions, key: &crate::Key) -> Result<(), StoreError> {
    match uri.scheme {
        Scheme::Gs => GsStore::new(uri, options)?.abandon(key),
        _ => AzureStore::new(uri, options)?.abandon(key),
    }
}

#[cfg(not(all(feature = "hdfs", feature = "s3", feature = "gs", feature = "azure", feature = "http")))]
fn left_out(uri: &StoreUri, feature: &str) -> StoreError {
    let reason = format!("this program was built without {feature}: use a build with the feature {feature:?}");
    StoreError::misconfigured(uri, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreErrorKind;

    #[test]
    fn directory_is_always_there() {
        let uri: StoreUri = "file:/a/b".parse().expect("a URI");
        assert_eq!(open(&uri, &StoreOptions::default()).expect("opens").uri(), &uri);
    }

    #[test]
    fn what_is_left_out_is_named() {
        for (text, feature, there) in [
            ("hdfs://nn:1/x", "hdfs", cfg!(feature = "hdfs")),
            ("s3://bucket/x", "s3", cfg!(feature = "s3")),
            ("gs://bucket/x", "gs", cfg!(feature = "gs")),
            ("abfss://c@a.dfs.core.windows.net/x", "azure", cfg!(feature = "azure")),
            ("https://host/x", "http", cfg!(feature = "http")),
        ] {
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
