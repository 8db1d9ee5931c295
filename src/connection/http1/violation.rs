//! How a request over HTTP/1 can break the rules, and what its caller is told.

use super::super::MAX_HEAD;
use crate::scoring::error::Refusal;
use crate::scoring::headers::MAX_FIELDS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    BareLineFeed,
    Chunk,
    ContentLength,
    FieldLine,
    HeadTooLarge,
    RequestLine,
    TooManyFields,
    TransferEncoding,
    TwoLengths,
    Version,
}

impl Violation {
    pub(super) fn to_refusal(self) -> Refusal {
        Refusal::bad_request(match self {
            Self::BareLineFeed => "A line ends with a line feed alone; HTTP/1.1 lines end with CR LF.",
            Self::Chunk => "A chunk of the request body is malformed.",
            Self::ContentLength => "Content-Length is not one decimal number.",
            Self::FieldLine => "A header field is malformed.",
            Self::HeadTooLarge => {
                return Refusal::headers_too_large(format!(
                    "The request head is larger than the limit of {MAX_HEAD} bytes."
                ));
            }
            Self::RequestLine => "The request line is malformed.",
            Self::TooManyFields => return Refusal::too_many_fields(MAX_FIELDS),
            Self::TransferEncoding => "Transfer-Encoding is not chunked alone, or the request is HTTP/1.0.",
            Self::TwoLengths => "The request body is announced twice, by Content-Length and Transfer-Encoding.",
            Self::Version => "The HTTP version is not 1.0 or 1.1; use ALPN h2 for HTTP/2.",
        })
    }
}
