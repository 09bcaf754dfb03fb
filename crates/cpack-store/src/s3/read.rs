//! Reading objects and ranges of them.

use std::ops::Range;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;

use super::{S3Store, failed};
use crate::call::Call;
use crate::retry::Failure;
use crate::web::{Filling, Part, whole};
use crate::{Key, StoreError};

impl S3Store {
    pub(super) fn whole(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        let call = self.operation("cannot read", key.as_str());
        self.call(
            call,
            |client| async move { whole(call, self.get(call, &client, key, None, None).await?, limit).await },
        )
    }

    pub(super) fn range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let call = self.operation("cannot read", key.as_str()).moving(buffer.len() as u64);
        if buffer.is_empty() {
            return Ok(());
        }
        let filling = Filling::new(offset, buffer);
        self.call(call, |client| {
            let filling = &filling;
            async move {
                let client = &client;
                filling.attempt(call, |range, version| self.get(call, client, key, Some(range), version)).await
            }
        })
    }

    async fn get(
        &self,
        call: Call<'_>,
        client: &Client,
        key: &Key,
        range: Option<Range<u64>>,
        version: Option<String>,
    ) -> Result<Part, Failure> {
        let request = client
            .get_object()
            .bucket(&self.uri.authority)
            .key(self.name(key.as_str()))
            .set_range(range.map(|range| format!("bytes={}-{}", range.start, range.end - 1)))
            .set_if_match(version);
        request.send().await.map(part).map_err(|error| failed(call, &error))
    }
}

fn part(answer: GetObjectOutput) -> Part {
    Part {
        content_type: answer.content_type,
        content_range: answer.content_range,
        length: answer.content_length.and_then(|length| u64::try_from(length).ok()),
        version: answer.e_tag,
        body: answer.body,
    }
}
