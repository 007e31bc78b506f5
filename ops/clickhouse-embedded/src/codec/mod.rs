//! Bytes on the wire: compression of requests and answers, and the one answer that this server writes itself.
//! Never touches the engine or a socket.

pub(crate) mod blocks;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod header;
pub(crate) mod hello;
