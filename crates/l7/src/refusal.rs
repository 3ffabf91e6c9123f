//! Why bytes are refused: one constant for each reason.

/// Why the bytes cannot be judged safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{detail} [{reason}]")]
pub struct Refusal {
    /// Stable word for logs and metrics, e.g. `http-bare-lf`.
    pub reason: &'static str,
    /// One sentence for people.
    pub detail: &'static str,
}

/// A refusal and the place of the byte that caused it, counted from the start of the piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub at: usize,
    pub why: Refusal,
}

macro_rules! refusals {
    ($($name:ident = $reason:literal, $detail:literal;)*) => {
        $(#[doc = $detail]
        pub const $name: Refusal = Refusal { reason: $reason, detail: $detail };)*

        /// Every refusal of this crate, for documentation and metric labels.
        pub const ALL: &[Refusal] = &[$($name),*];
    };
}

refusals! {
    TLS_NOT_HANDSHAKE = "tls-not-handshake", "A TLS record of another type came before the ClientHello was complete.";
    TLS_RECORD_VERSION = "tls-record-version", "The TLS record does not carry a version of TLS.";
    TLS_RECORD_LENGTH = "tls-record-length", "A TLS record is longer than 2^14 bytes.";
    TLS_EMPTY_RECORD = "tls-empty-record", "A TLS handshake record is empty (RFC 8446 section 5.1 forbids it).";
    TLS_NOT_CLIENT_HELLO = "tls-not-client-hello", "The first TLS handshake message is not a ClientHello.";
    TLS_HELLO_TOO_LARGE = "tls-hello-too-large", "The ClientHello is larger than the limit.";
    TLS_TRAILING_DATA = "tls-trailing-data", "The record goes on behind the end of the ClientHello.";
    TLS_MALFORMED = "tls-malformed", "A length inside the ClientHello does not fit.";
    TLS_DUPLICATE_EXTENSION = "tls-duplicate-extension", "The ClientHello has the same extension twice (RFC 8446 section 4.2 forbids it).";
    TLS_TOO_MANY_EXTENSIONS = "tls-too-many-extensions", "The ClientHello has more extensions than the limit.";
    TLS_TOO_MANY_ALPN = "tls-too-many-alpn", "The ClientHello offers more application protocols than the limit.";
    TLS_SNI_COUNT = "tls-sni-count", "The server name extension does not hold exactly one name.";
    TLS_SNI_TYPE = "tls-sni-type", "The server name extension holds a name that is not a host name.";
    TLS_SNI_EMPTY = "tls-sni-empty", "The server name is empty.";
    TLS_SNI_INVALID = "tls-sni-invalid", "The server name is not a valid DNS name.";
    TLS_PSK_NOT_LAST = "tls-psk-not-last", "The pre_shared_key extension is not the last one (RFC 8446 section 4.2.11 wants it there).";
    TLS_RECORD_TYPE = "tls-record-type", "A TLS record behind the ClientHello is of a type that has no place in a handshake.";
    TLS_CHANGE_CIPHER_SPEC = "tls-change-cipher-spec", "A change_cipher_spec record behind the ClientHello is not exactly one byte of value 1.";
    TLS_TOO_MANY_RECORDS = "tls-too-many-records", "More records behind the ClientHello than the limit would be ignored by a server.";
    TLS_SPLIT_HELLO = "tls-split-hello", "A record of another type stands inside the second ClientHello.";
    TLS_SSLV2_HELLO = "tls-sslv2-hello", "The stream starts with a hello in the format of SSLv2 (RFC 6176 forbids it).";
    TLS_AFTER_HELLO = "tls-after-hello", "Bytes were shown to the reader behind a complete ClientHello.";

    SMTP_WITHOUT_TLS = "smtp-without-tls", "The client goes on with SMTP without having asked for TLS.";
    SMTP_MALFORMED = "smtp-malformed", "An SMTP command is longer than the limit, contains a control character or does not end with CRLF.";
    POSTGRESQL_WITHOUT_TLS = "postgresql-without-tls", "The client speaks PostgreSQL's protocol without asking for TLS first.";
    STARTTLS_INJECTION = "starttls-injection", "Bytes follow the request for TLS before the server has answered it.";
    MYSQL_UNSUPPORTED = "mysql-unsupported", "The client speaks MySQL's protocol, which is not understood.";
    LDAP_UNSUPPORTED = "ldap-unsupported", "The client speaks LDAP, which is not understood.";

    HTTP_BARE_LF = "http-bare-lf", "A line ends with LF alone instead of CRLF.";
    HTTP_BARE_CR = "http-bare-cr", "A CR is not followed by LF.";
    HTTP_EMPTY_LINES = "http-empty-lines", "More than one empty line precedes the request line.";
    HTTP_BAD_METHOD = "http-bad-method", "The method is not a token of at most 32 characters.";
    HTTP_TARGET_EMPTY = "http-target-empty", "The request line has no target, or more than one space before it.";
    HTTP_TARGET_CONTROL = "http-target-control", "The request target contains a control character.";
    HTTP_TARGET_NON_ASCII = "http-target-non-ascii", "The request target contains a raw byte above 0x7e.";
    HTTP_NO_VERSION = "http-no-version", "The request line has no HTTP version (HTTP/0.9).";
    HTTP_BAD_VERSION = "http-bad-version", "The target is not followed by exactly HTTP/1.0 or HTTP/1.1.";
    HTTP_REQUEST_LINE_TOO_LONG = "http-request-line-too-long", "The request line is longer than the limit.";
    HTTP_HEAD_TOO_LARGE = "http-head-too-large", "The head is larger than the limit.";
    HTTP_TOO_MANY_FIELDS = "http-too-many-fields", "The head has more header fields than the limit.";
    HTTP_OBS_FOLD = "http-obs-fold", "A header line starts with white space (folding is obsolete).";
    HTTP_SPACE_BEFORE_COLON = "http-space-before-colon", "White space stands between a header name and its colon.";
    HTTP_BAD_FIELD_NAME = "http-bad-field-name", "A header name is empty or contains a character that is not allowed.";
    HTTP_NO_COLON = "http-no-colon", "A header line has no colon.";
    HTTP_FIELD_CONTROL = "http-field-control", "A header value contains NUL or another control character.";
    HTTP_MALFORMED = "http-malformed", "The head cannot be parsed.";

    HTTP_LENGTH_AND_CHUNKED = "http-length-and-chunked", "The request has both Content-Length and Transfer-Encoding.";
    HTTP_DUPLICATE_LENGTH = "http-duplicate-length", "The request has more than one Content-Length.";
    HTTP_BAD_LENGTH = "http-bad-length", "Content-Length is not one plain decimal number below 2^63.";
    HTTP_DUPLICATE_TRANSFER_ENCODING = "http-duplicate-transfer-encoding", "The request has more than one Transfer-Encoding.";
    HTTP_BAD_TRANSFER_ENCODING = "http-bad-transfer-encoding", "Transfer-Encoding is not exactly \"chunked\".";
    HTTP_TRANSFER_ENCODING_IN_10 = "http-transfer-encoding-in-1.0", "An HTTP/1.0 request has Transfer-Encoding.";
    HTTP_FRAMING_LOOKALIKE = "http-framing-lookalike", "A header name is Content-Length, Transfer-Encoding or Host written with an underscore.";
    HTTP_CONNECTION_FRAMING = "http-connection-framing", "Connection names Host, Content-Length or Transfer-Encoding for removal.";
    HTTP_CONNECT_BODY = "http-connect-body", "A CONNECT request announces a body.";
    HTTP_BAD_EXPECT = "http-bad-expect", "Expect is repeated or is not exactly \"100-continue\".";
    HTTP2_UNSUPPORTED = "http2-unsupported", "The request asks for an upgrade to HTTP/2.";

    HTTP_HOST_MISSING = "http-host-missing", "An HTTP/1.1 request has no Host.";
    HTTP_DUPLICATE_HOST = "http-duplicate-host", "The request has more than one Host.";
    HTTP_HOST_EMPTY = "http-host-empty", "The host is empty.";
    HTTP_HOST_INVALID = "http-host-invalid", "The host is not a DNS name or an IP address, with at most a port behind it.";
    HTTP_HOST_USERINFO = "http-host-userinfo", "The host contains user information.";
    HTTP_HOST_PORT = "http-host-port", "The port behind the host is not a number below 65536.";
    HTTP_HOST_MISMATCH = "http-host-mismatch", "The request target names another host or port than Host does.";
    HTTP_TARGET_FORM = "http-target-form", "The form of the request target does not fit the method.";
    HTTP_TARGET_SCHEME = "http-target-scheme", "The request target has a scheme other than http and https.";

    HTTP_PATH_BACKSLASH = "http-path-backslash", "The path contains a backslash, which some servers take for a slash.";
    HTTP_PATH_FRAGMENT = "http-path-fragment", "The path contains \"#\", where some servers end it.";
    HTTP_PATH_PARAMETERS = "http-path-parameters", "The path contains \";\", which some servers cut off with what follows.";
    HTTP_PATH_ENCODED_SLASH = "http-path-encoded-slash", "The path contains a percent-encoded slash or backslash.";
    HTTP_PATH_ENCODED_CONTROL = "http-path-encoded-control", "The path contains a percent-encoded NUL or control character.";
    HTTP_PATH_BAD_ESCAPE = "http-path-bad-escape", "The path contains \"%\" without two hexadecimal digits behind it.";
    HTTP_PATH_DOUBLE_ENCODING = "http-path-double-encoding", "The path is percent-encoded twice.";
    HTTP_PATH_NOT_UTF8 = "http-path-not-utf8", "The decoded path is not valid UTF-8.";
    HTTP_PATH_DOT_SEGMENTS = "http-path-dot-segments", "The path contains \".\" or \"..\" segments, which only some servers resolve.";
    HTTP_PATH_ABOVE_ROOT = "http-path-above-root", "The path climbs above the root.";
    HTTP_PATH_DOUBLE_SLASH = "http-path-double-slash", "The path starts with two slashes, which some servers take for a host.";
    HTTP_PATH_OPTIONS_ROOT = "http-path-options-root", "OPTIONS without a path: \"*\" to some servers and \"/\" to others.";

    HTTP_CHUNK_SIZE = "http-chunk-size", "A chunk size is not a plain hexadecimal number below 2^63.";
    HTTP_CHUNK_EXTENSION = "http-chunk-extension", "A chunk has an extension, which servers read in different ways.";
    HTTP_CHUNK_END = "http-chunk-end", "The data of a chunk is not followed by CRLF.";
    HTTP_TRAILERS_TOO_LARGE = "http-trailers-too-large", "The trailer section is larger than the limit.";
    HTTP_TRAILER_FORBIDDEN = "http-trailer-forbidden", "A trailer names a field that decides framing or routing.";
    HTTP_SKIPPED_TOO_MUCH = "http-skipped-too-much", "More bytes went by unseen than the body has.";

    HTTP_RESPONSE_STATUS_LINE = "http-response-status-line", "The answer to an Upgrade or CONNECT request has no valid status line.";
}
