//! Messages on their way to a client, in pieces that are made when there is room for them.
//!
//! A client that starts is sent several megabytes, of which everything large is shared: a stream holds a chunk of that, and after a
//! message nothing. Invariant: the bytes are those of the message's own encoding, but for the order of fields.

use crate::discovery::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use crate::grpc::BoxStream;
use crate::json::JsonMessage;
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::codegen::http::HeaderMap;

/// What is handed to the connection at once: a frame of HTTP/2, as clients take them unless they say otherwise.
const CHUNK: usize = 16 * 1024;

/// An encoding, piece by piece.
pub(crate) type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// A message that streams carry.
pub(crate) trait Outgoing: Send + 'static {
    /// How long its encoding is, and the encoding.
    fn pieces(self) -> (usize, Pieces);
}

/// Both forms of responses have their resources there, and resources their bodies.
const RESOURCES: u32 = 2;
const BODY: u32 = 2;

impl Outgoing for DeltaDiscoveryResponse {
    fn pieces(mut self) -> (usize, Pieces) {
        let resources = std::mem::take(&mut self.resources);
        let one = |resource: &Resource| {
            let length = resource.encoded_len();
            key_len(RESOURCES) + encoded_len_varint(length as u64) + length
        };
        let length = self.encoded_len() + resources.iter().map(one).sum::<usize>();
        let pieces = resources.into_iter().flat_map(|mut resource| {
            let length = resource.encoded_len();
            let body = std::mem::take(&mut resource.resource);
            let mut head = BytesMut::with_capacity(length - body.len() + 8);
            encode_key(RESOURCES, WireType::LengthDelimited, &mut head);
            encode_varint(length as u64, &mut head);
            resource.encode_raw(&mut head);
            if !body.is_empty() {
                encode_key(BODY, WireType::LengthDelimited, &mut head);
                encode_varint(body.len() as u64, &mut head);
            }
            [head.freeze(), body]
        });
        (length, Box::new(std::iter::once(Bytes::from(self.encode_to_vec())).chain(pieces)))
    }
}

impl Outgoing for JsonMessage {
    fn pieces(self) -> (usize, Pieces) {
        let bytes = Bytes::from(self.encode_to_vec());
        (bytes.len(), Box::new(std::iter::once(bytes)))
    }
}

impl Outgoing for DiscoveryResponse {
    fn pieces(mut self) -> (usize, Pieces) {
        let resources = std::mem::take(&mut self.resources);
        let head = |body: &Bytes| {
            let mut head = BytesMut::with_capacity(8);
            encode_key(RESOURCES, WireType::LengthDelimited, &mut head);
            encode_varint(body.len() as u64, &mut head);
            head.freeze()
        };
        let length = self.encoded_len() + resources.iter().map(|body| head(body).len() + body.len()).sum::<usize>();
        let pieces = resources.into_iter().flat_map(move |body| [head(&body), body]);
        (length, Box::new(std::iter::once(Bytes::from(self.encode_to_vec())).chain(pieces)))
    }
}

/// The body of a streaming answer.
pub(crate) struct Answer<T> {
    messages: BoxStream<T>,
    /// What is left of a message.
    left: usize,
    pieces: Option<Pieces>,
    piece: Bytes,
    ended: bool,
}

impl<T: Outgoing> Answer<T> {
    pub(crate) fn new(messages: BoxStream<T>) -> Self {
        Self { messages, left: 0, pieces: None, piece: Bytes::new(), ended: false }
    }

    fn begin(&mut self, message: T) {
        let (length, pieces) = message.pieces();
        let mut prefix = BytesMut::with_capacity(5);
        prefix.put_u8(0);
        // A message is far from this long: responses are bounded.
        prefix.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        (self.left, self.pieces, self.piece) = (length + prefix.len(), Some(pieces), prefix.freeze());
    }

    fn chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK {
            if self.piece.is_empty() {
                let Some(piece) = self.pieces.as_mut().and_then(Iterator::next) else { break };
                self.piece = piece;
            }
            if chunk.capacity() == 0 {
                chunk.reserve(self.left.min(CHUNK));
            }
            let taken = self.piece.split_to(self.piece.len().min(CHUNK - chunk.len()));
            chunk.extend_from_slice(&taken);
        }
        if chunk.is_empty() {
            (self.left, self.pieces, self.piece) = (0, None, Bytes::new());
            return None;
        }
        self.left = self.left.saturating_sub(chunk.len());
        Some(chunk.freeze())
    }
}

impl<T: Outgoing> http_body::Body for Answer<T> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        loop {
            if let Some(chunk) = self.chunk() {
                return Poll::Ready(Some(Ok(http_body::Frame::data(chunk))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let status = match self.messages.as_mut().poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => {
                    self.begin(message);
                    continue;
                }
                Poll::Ready(Some(Err(status))) => status,
                Poll::Ready(None) => Status::new(tonic::Code::Ok, ""),
            };
            self.ended = true;
            let mut trailers = HeaderMap::new();
            status.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::ResourceError;

    fn body(length: usize) -> Bytes {
        (0..length).map(|at| at as u8).collect()
    }

    /// Everything a client gets of one message, and whether all but the last chunk are whole.
    fn sent<T: Outgoing>(message: T) -> (Vec<u8>, bool) {
        let mut answer = Answer::<T>::new(Box::pin(tokio_stream::empty()));
        answer.begin(message);
        let chunks: Vec<Bytes> = std::iter::from_fn(|| answer.chunk()).collect();
        let whole = chunks.iter().rev().skip(1).all(|chunk| chunk.len() == CHUNK);
        assert!(answer.left == 0 && answer.pieces.is_none());
        let all = chunks.concat();
        assert_eq!((all[0], &all[1..5]), (0, &((all.len() - 5) as u32).to_be_bytes()[..]));
        (all[5..].to_vec(), whole)
    }

    #[test]
    fn pieces_are_the_message() {
        let resource = |name: &str, length| Resource { name: name.into(), version: "7".into(), resource: body(length) };
        for lengths in [&[][..], &[0], &[1, 0, 300], &[CHUNK - 20, CHUNK, 3 * CHUNK, 5]] {
            let message = DeltaDiscoveryResponse {
                system_version_info: "s".into(),
                resources: lengths.iter().map(|length| resource("outbound|80||a", *length)).collect(),
                type_url: "type.googleapis.com/x".into(),
                nonce: "1.2".into(),
                removed_resources: vec!["gone".into()],
                resource_errors: vec![ResourceError::default()],
                ..DeltaDiscoveryResponse::default()
            };
            let (bytes, whole) = sent(message.clone());
            assert_eq!((DeltaDiscoveryResponse::decode(&*bytes).unwrap(), whole), (message, true));
            let message = DiscoveryResponse {
                version_info: "v".into(),
                resources: lengths.iter().map(|length| body(*length)).collect(),
                nonce: "n".into(),
                ..DiscoveryResponse::default()
            };
            let (bytes, whole) = sent(message.clone());
            assert_eq!((DiscoveryResponse::decode(&*bytes).unwrap(), whole), (message, true));
        }
    }
}
