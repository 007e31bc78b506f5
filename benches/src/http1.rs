//! The least of HTTP/1.1 that a load generator needs: one request at a time on a kept connection, small answers.

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Most bytes of an answer: the counters of a store fit in it many times.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    host: String,
}

/// Status and body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Connection {
    /// Connects to `address:port`.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("nobody listens on {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: address.to_owned() })
    }

    /// Sends a request and reads its answer; `headers` are whole lines.
    ///
    /// # Errors
    /// When the connection breaks, or the answer is none of HTTP.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.host, body.len());
        for header in headers {
            head += header;
            head += "\r\n";
        }
        head += "\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(body).await?;
        self.answer().await.with_context(|| format!("{method} {path} was not answered well"))
    }

    async fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut bytes = Vec::new();
        let begin = loop {
            self.more(&mut bytes).await?;
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = std::str::from_utf8(&bytes[..begin])?.to_ascii_lowercase();
        let status: u16 = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).context("no status")?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
        if let Some(length) = field("content-length:") {
            let length: usize = length.parse()?;
            while bytes.len() < begin + length {
                self.more(&mut bytes).await?;
            }
        } else if field("transfer-encoding:").is_some() {
            // The chunks are not taken apart: who reads such an answer searches it for words.
            while !bytes.ends_with(b"\r\n0\r\n\r\n") {
                self.more(&mut bytes).await?;
            }
        }
        Ok(Answer { status, body: bytes.split_off(begin) })
    }

    async fn more(&mut self, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
        anyhow::ensure!(bytes.len() < ANSWER_BYTES_MAX, "the answer is longer than {ANSWER_BYTES_MAX} bytes");
        anyhow::ensure!(self.stream.read_buf(bytes).await? > 0, "the connection was closed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn answers_of_three_forms_are_read_on_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in [
                "HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            ] {
                let mut request = Vec::new();
                while !request.ends_with(b"body") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let client = async {
            let mut connection = Connection::open(&address).await.unwrap();
            let mut said = Vec::new();
            for _ in 0..3 {
                let answer = connection.request("POST", "/", &["x: y"], b"body").await.unwrap();
                said.push((answer.status, String::from_utf8(answer.body).unwrap()));
            }
            said
        };
        let (said, ()) = tokio::join!(client, server);
        assert_eq!(said[0], (204, String::new()));
        assert_eq!(said[1], (200, "hello".to_owned()));
        assert!(said[2].0 == 200 && said[2].1.contains("ab"), "{said:?}");
    }
}
