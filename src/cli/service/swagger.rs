//! What a service says of what it takes, asked as a caller would; and what that call showed of the way there.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use super::address::Place;
use super::call::{Call, UnknownIssuer};

/// As long as the original waited for it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// More than any description of a model has.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What came of asking.
pub struct Seen {
    pub document: anyhow::Result<Value>,
    /// Whether nothing was found wrong with the certificate.
    pub is_trusted: bool,
    /// Whether it was let in.
    pub is_let_in: bool,
}

/// Asks for the document at `place`.
///
/// # Errors
///
/// It cannot be asked with this key.
pub async fn ask(place: &Place, cacert: Option<&Path>, key: Option<&str>) -> anyhow::Result<Seen> {
    let mut call = Call::new(Method::GET, Bytes::new(), TIMEOUT);
    if let Some(key) = key {
        call = call.with_key(key)?;
    }
    let answered = call.send(place, cacert, async |mut answer| {
        let status = answer.response.status();
        let body = if status == StatusCode::OK { answer.body(MAX_BYTES).await? } else { Vec::new() };
        Ok((status, body))
    });
    let answered = answered.await;
    Ok(Seen {
        is_trusted: !answered.as_ref().is_err_and(anyhow::Error::is::<UnknownIssuer>),
        is_let_in: answered.as_ref().is_ok_and(|(status, _)| *status != StatusCode::UNAUTHORIZED),
        document: answered.and_then(|(status, body)| document(status, &body)),
    })
}

fn document(status: StatusCode, body: &[u8]) -> anyhow::Result<Value> {
    match status {
        StatusCode::OK => Ok(serde_json::from_slice(body)?),
        StatusCode::NOT_FOUND => bail!("it has no swagger.json"),
        status => bail!("swagger.json is answered with {status}"),
    }
}

/// What the model gives as an example of its input. A text is none: on a command line it could stand for a file.
pub fn sample(document: &Value) -> Option<String> {
    let example = document.pointer("/definitions/ServiceInput/example")?;
    (!example.is_null() && !example.is_string()).then(|| example.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_example_is_what_the_model_says() {
        let with = |example| json!({"definitions": {"ServiceInput": {"example": example}}});
        assert_eq!(sample(&with(json!({"data": [[1.5]]}))).as_deref(), Some(r#"{"data":[[1.5]]}"#));
        assert_eq!(sample(&json!({"definitions": {"ServiceInput": {}}})), None);
        assert_eq!(sample(&with(json!("@/etc/passwd"))), None);
    }
}
