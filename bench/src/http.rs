//! The part of HTTP/1.1 that a load generator needs: fixed requests, one at a time on a connection that stays
//! open.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A reply to a command is about 400 bytes; a longer one grows the buffer.
const BUFFER_BYTES: usize = 4_096;

/// Returns the bytes of a request with a JSON body.
pub(crate) fn request(method: &str, path: &str, body: &str) -> Arc<[u8]> {
    request_with(method, path, "", body)
}

/// Returns the same with more headers, each with its line's end.
pub(crate) fn request_with(method: &str, path: &str, headers: &str, body: &str) -> Arc<[u8]> {
    request_of("application/json", method, path, headers, body.as_bytes())
}

/// Returns the same with a body of another content type.
pub(crate) fn request_of(
    content_type: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Arc<[u8]> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n{headers}\
         content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat().into()
}

/// One open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The index in the buffer where the body of the last reply begins.
    body_at: usize,
}

/// A reply; the body is the last `body_bytes` of the connection's buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Head {
    status: u16,
    head_bytes: usize,
    body_bytes: usize,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(BUFFER_BYTES), body_at: 0 })
    }

    /// Sends a request, reads the whole reply and returns its status.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(head) = head(&self.buffer)?
                && self.buffer.len() >= head.head_bytes + head.body_bytes
            {
                self.body_at = head.head_bytes;
                return Ok(head.status);
            }
        }
    }

    /// Returns the body of the last reply.
    pub(crate) fn body(&self) -> &[u8] {
        &self.buffer[self.body_at..]
    }

    /// Returns the reply to the last request, for an error message.
    pub(crate) fn last_reply(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

/// Reads the head of a reply. Returns `None` as long as it is not complete.
fn head(reply: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = reply.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let broken =
        || io::Error::new(io::ErrorKind::InvalidData, "a reply without a status or a content-length");
    let text = str::from_utf8(&reply[..end]).map_err(|_| broken())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|line| line.get(..3));
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value.trim())
    });
    Ok(Some(Head {
        status: status.and_then(|status| status.parse().ok()).ok_or_else(broken)?,
        head_bytes: end + 4,
        body_bytes: length.and_then(|length| length.parse().ok()).ok_or_else(broken)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_the_status_and_the_length_once_it_is_complete() {
        let reply = b"HTTP/1.1 201 Created\r\netag: \"1\"\r\nContent-Length: 2\r\n\r\n{}";
        let expected = Head { status: 201, head_bytes: reply.len() - 2, body_bytes: 2 };
        assert_eq!(head(reply).unwrap(), Some(expected));
        assert_eq!(head(&reply[..50]).unwrap(), None);
    }

    #[test]
    fn a_reply_of_unknown_length_is_an_error() {
        for reply in
            ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "ICY 200\r\n\r\n"]
        {
            assert!(head(reply.as_bytes()).is_err(), "{reply:?}");
        }
    }
}
