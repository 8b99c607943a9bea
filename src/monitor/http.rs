//! The little of HTTP/1.1 that is spoken: a request's head in, an answer out, then the connection is closed. Pure.

/// A request's head is no longer than this; nobody's who asks for a page is.
pub const MOST_BYTES: usize = 8 << 10;
const MOST_HEADERS: usize = 64;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whether it only reads: GET or HEAD.
    pub reads: bool,
    /// Whether the body is left out of the answer: HEAD.
    pub head: bool,
    /// The path without its query.
    pub path: String,
    /// The formats that are taken, empty where none is named.
    pub accept: String,
}

/// What the bytes of a connection are so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head is not whole.
    Partial,
    /// A whole head.
    Whole(Request),
    /// No request, or too long a one: this answer ends it.
    Refused(Response),
}

/// An answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    content_type: &'static str,
    body: String,
}

/// Reads what a connection has sent so far.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => Parsed::Whole(request_of(&request)),
        Ok(httparse::Status::Partial) if bytes.len() < MOST_BYTES => Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => Parsed::Refused(Response::failure(431)),
        Err(_) => Parsed::Refused(Response::failure(400)),
    }
}

fn request_of(request: &httparse::Request<'_, '_>) -> Request {
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let accepts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("accept"));
    let accepts: Vec<_> = accepts.map(|header| String::from_utf8_lossy(header.value)).collect();
    Request {
        reads: matches!(method, "GET" | "HEAD"),
        head: method == "HEAD",
        path: target.split('?').next().unwrap_or_default().to_string(),
        accept: accepts.join(","),
    }
}

impl Response {
    /// An answer with a body.
    pub fn new(status: u16, content_type: &'static str, body: String) -> Response {
        Response { status, content_type, body }
    }

    /// An answer that says what was wrong with the request.
    pub fn failure(status: u16) -> Response {
        let body = match status {
            404 => "there is /metrics here, and / which links to it\n",
            405 => "nothing can be sent here: GET /metrics\n",
            431 => "the request is too long: GET /metrics\n",
            _ => "this is no HTTP request: GET /metrics\n",
        };
        Response::new(status, "text/plain; charset=utf-8", body.to_string())
    }

    /// The bytes to send; a HEAD's answer is the same without the body.
    pub fn bytes(&self, head: bool) -> Vec<u8> {
        let (status, reason) = match self.status {
            200 => (200, "OK"),
            404 => (404, "Not Found"),
            405 => (405, "Method Not Allowed"),
            431 => (431, "Request Header Fields Too Large"),
            _ => (400, "Bad Request"),
        };
        let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let (kind, length) = (self.content_type, self.body.len());
        let mut text = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        );
        if !head {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Whole(request) => request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn status(bytes: &[u8]) -> u16 {
        match parse(bytes) {
            Parsed::Refused(response) => response.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_its_method_its_path_and_what_it_accepts() {
        let get = whole("GET /metrics?a=b HTTP/1.1\r\nHost: x\r\naccept: text/plain\r\nAccept: */*\r\n\r\n");
        assert_eq!(
            (get.path.as_str(), get.accept.as_str(), get.reads, get.head),
            ("/metrics", "text/plain,*/*", true, false)
        );
        let head = whole("HEAD / HTTP/1.0\r\n\r\n");
        assert!(head.reads && head.head && head.accept.is_empty());
        assert!(!whole("POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello").reads);
    }

    #[test]
    fn what_is_not_whole_waits_and_what_is_too_long_ends() {
        assert_eq!(parse(b""), Parsed::Partial);
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nHost:"), Parsed::Partial);
        let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MOST_BYTES));
        assert_eq!(status(long.as_bytes()), 431);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MOST_HEADERS + 1));
        assert_eq!(status(many.as_bytes()), 431);
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [b"\x16\x03\x01\x02\x00\x01".as_slice(), b"\0\0\0\0", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
        {
            assert_eq!(status(bytes), 400, "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_has_the_length_it_says_and_heads_have_no_body() {
        let response = Response::new(200, "text/plain", "é\n".into());
        let text = String::from_utf8(response.bytes(false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("Content-Length: 3\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\né\n"));
        assert!(String::from_utf8(response.bytes(true)).unwrap().ends_with("\r\n\r\n"));
        assert!(String::from_utf8(Response::failure(405).bytes(false)).unwrap().contains("Allow: GET, HEAD\r\n"));
    }
}
