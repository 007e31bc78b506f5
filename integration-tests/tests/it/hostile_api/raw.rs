//! gRPC without types: any bytes to any method, and what comes back. The methods come from the descriptor set, so that
//! a new one is tested on the day it is written.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use sonde_proto::wire;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A method of the API.
#[derive(Debug, Clone)]
pub(super) struct Method {
    /// `/sonde.v1.Service/Method`.
    pub(super) path: String,
    /// The comment above it.
    pub(super) comment: String,
}

impl Method {
    /// The scope that its comment promises: `Scope checks:write.`
    pub(super) fn scope(&self) -> &str {
        let promised = self.comment.split_once("Scope ").and_then(|(_, rest)| rest.split(['.', ' ', '\n']).next());
        promised.unwrap_or_else(|| panic!("{} does not say which scope it needs: {:?}", self.path, self.comment))
    }
}

/// Methods of the file `name` of the protocol.
pub(super) fn methods(name: &str) -> Vec<Method> {
    /// Field numbers of `service` in a file and of `method` in a service, which locations are made of.
    const SERVICE: i32 = 6;
    const METHOD: i32 = 2;
    let set = FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap();
    let file = set.file.iter().find(|file| file.name().ends_with(name)).unwrap();
    let locations = &file.source_code_info.as_ref().expect("the descriptor set holds comments").location;
    let comment = |path: &[i32]| {
        let found = locations.iter().find(|location| location.path == path);
        found.and_then(|location| location.leading_comments.clone()).unwrap_or_default()
    };
    let mut methods = Vec::new();
    for (at, service) in (0..).zip(&file.service) {
        for (nth, method) in (0..).zip(&service.method) {
            methods.push(Method {
                path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                comment: comment(&[SERVICE, at, METHOD, nth]),
            });
        }
    }
    assert!(!methods.is_empty(), "{name} has methods");
    methods
}

/// Sends `body` to `path`; returns the first message of the answer.
pub(super) async fn call(
    channel: &Channel,
    path: &str,
    authorization: Option<&[u8]>,
    body: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(tokio_stream::once(body));
    if let Some(value) = authorization {
        // Built from bytes: what no well-behaved client would send is wanted here.
        let value = http::HeaderValue::from_bytes(value).unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", value);
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    }
    let mut answer = grpc.streaming(request, path.parse().unwrap(), Raw).await?.into_inner();
    Ok(answer.message().await?.unwrap_or_default())
}

#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(target, &item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(source);
        let mut item = vec![0; length];
        bytes::Buf::copy_to_slice(source, &mut item);
        Ok(Some(item))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
