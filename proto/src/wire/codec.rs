//! Messages as bytes, with buffers that fit an idle stream. Never knows what a message means.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// What each direction of a call holds from its start: a heartbeat and an ack take less. A larger message gets a buffer of
/// its own size, which then serves those behind it.
const BUFFER_BYTES: usize = 512;
/// Messages that wait together are sent together up to here, as with gRPC's usual codec.
const TOGETHER_BYTES: usize = 32 * 1024;

/// The codec of every service: `T` goes out and `U` comes in.
pub(super) struct LeanCodec<T, U>(PhantomData<fn(T) -> U>);

impl<T, U> Default for LeanCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for LeanCodec<T, U>
where
    T: Message + 'static,
    U: Message + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = LeanEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        LeanEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(settings())
    }
}

/// Writes messages.
pub(super) struct LeanEncoder<T>(PhantomData<fn(T)>);

impl<T: Message> Encoder for LeanEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // At once as large as it must be, so that no part of a large message is copied while the buffer grows.
        buffer.reserve(item.encoded_len());
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, TOGETHER_BYTES)
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;
    use futures::executor::block_on;
    use futures::stream;
    use tonic::Code;
    use tonic::codec::{EncodeBody, Streaming};

    use super::*;
    use crate::wire::probe_message::Body;
    use crate::wire::{Batch, ProbeMessage};

    /// As on the collector's port.
    const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

    fn batch(bytes: usize) -> ProbeMessage {
        let columns: Vec<u8> = (0..bytes).map(|place| u8::try_from(place % 251).unwrap()).collect();
        let batch = Batch { boot: vec![7; 16], first_seq: 1, count: 1_000, columns: columns.into() };
        ProbeMessage { body: Some(Body::Batch(batch)) }
    }

    /// Sends bytes as they are.
    struct Raw;

    impl Encoder for Raw {
        type Item = Vec<u8>;
        type Error = Status;

        fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
            buffer.put_slice(&item);
            Ok(())
        }
    }

    fn streamed(messages: Vec<ProbeMessage>, bytes_max: usize) -> Streaming<ProbeMessage> {
        let mut codec = LeanCodec::<ProbeMessage, ProbeMessage>::default();
        let source = stream::iter(messages.into_iter().map(Ok));
        let body = EncodeBody::new_client(codec.encoder(), source, None, None);
        Streaming::new_request(codec.decoder(), body, None, Some(bytes_max))
    }

    #[test]
    fn messages_of_every_size_come_out_as_they_went_in() {
        let sizes = [0, 1, BUFFER_BYTES - 40, BUFFER_BYTES, BUFFER_BYTES + 1, 9_000, 40_000, 3, 256 * 1024, 5, 40_000];
        let messages: Vec<ProbeMessage> = sizes.map(batch).into();
        let mut received = streamed(messages.clone(), MESSAGE_BYTES_MAX);
        for message in messages {
            assert!(block_on(received.message()).unwrap() == Some(message));
        }
        assert_eq!(block_on(received.message()).unwrap(), None);
    }

    #[test]
    fn what_is_too_large_or_no_message_ends_the_stream() {
        let refused = block_on(streamed(vec![batch(5_000)], 4_999).message()).unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);

        // A Hello that says it is longer than all that comes.
        let source = stream::iter([Ok(vec![0x0a, 0x7f])]);
        let body = EncodeBody::new_client(Raw, source, None, None);
        let decoder = LeanCodec::<ProbeMessage, ProbeMessage>::default().decoder();
        let mut received = Streaming::new_request(decoder, body, None, Some(MESSAGE_BYTES_MAX));
        assert_eq!(block_on(received.message()).unwrap_err().code(), Code::Internal);
    }
}
