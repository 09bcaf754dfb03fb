//! From a URI to the store behind it.

use super::{FileStore, Scheme, Store, StoreError, StoreErrorKind, StoreOptions, StoreUri};

/// Opens the store at `uri`.
///
/// Nothing is contacted and no thread starts before the first call on a network store. A scheme that this build leaves
/// out is [`StoreErrorKind::Misconfigured`].
pub fn open(uri: &StoreUri, options: &StoreOptions) -> Result<Box<dyn Store>, StoreError> {
    let _ = options;
    match uri.scheme {
        Scheme::File => Ok(Box::new(FileStore::new(uri.path.as_ref()))),
        Scheme::Hdfs | Scheme::ViewFs => Err(left_out(uri, "hdfs")),
        Scheme::S3 => Err(left_out(uri, "s3")),
    }
}

/// What is said when the feature of a scheme is off.
fn left_out(uri: &StoreUri, feature: &str) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Misconfigured,
        operation: "cannot open",
        location: uri.to_string(),
        reason: format!("this program was built without {feature}: use a build with the feature {feature:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_always_there() {
        let uri: StoreUri = "file:/a/b".parse().expect("a URI");
        assert_eq!(open(&uri, &StoreOptions::default()).expect("opens").uri(), &uri);
    }

    #[test]
    fn what_is_left_out_is_named() {
        for (text, feature, there) in
            [("hdfs://nn/x", "hdfs", cfg!(feature = "hdfs")), ("s3://bucket/x", "s3", cfg!(feature = "s3"))]
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
