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

    SMTP_TOO_EARLY = "smtp-too-early", "The client asked for TLS before it had read the server's answers to what it sent before.";

    QUIC_MALFORMED = "quic-malformed", "A length inside the QUIC datagram does not fit, or a reserved bit is set.";
    QUIC_FIXED_BIT = "quic-fixed-bit", "The fixed bit of a QUIC packet is clear before the connection is set up.";
    QUIC_UNKNOWN_VERSION = "quic-unknown-version", "The QUIC version is neither 1 nor 2.";
    QUIC_VERSION_NEGOTIATION = "quic-version-negotiation", "A client sent a QUIC Version Negotiation packet, which only servers send.";
    QUIC_RETRY_PACKET = "quic-retry-packet", "A client sent a QUIC Retry packet, which only servers send.";
    QUIC_CONNECTION_ID = "quic-connection-id", "A QUIC connection ID is longer than 20 bytes, or the first one is shorter than 8.";
    QUIC_DATAGRAM_TOO_SMALL = "quic-datagram-too-small", "A datagram with a QUIC Initial packet of a new connection is shorter than 1200 bytes.";
    QUIC_TOO_MANY_PACKETS = "quic-too-many-packets", "The datagram holds more QUIC packets than the limit.";
    QUIC_COALESCED = "quic-coalesced", "The QUIC packets of one datagram belong to different connections.";
    QUIC_UNDECRYPTABLE = "quic-undecryptable", "No key opens the QUIC Initial packet.";
    QUIC_AMBIGUOUS = "quic-ambiguous", "The keys of more than one connection open the QUIC Initial packet.";
    QUIC_PACKET_NUMBER = "quic-packet-number", "The number of the QUIC Initial packet is cut, so that it depends on what the server has seen.";
    QUIC_FRAME_FORBIDDEN = "quic-frame-forbidden", "A QUIC Initial packet carries a frame that is not allowed in it.";
    QUIC_CRYPTO_CONFLICT = "quic-crypto-conflict", "A byte of the QUIC handshake came twice with different values.";
    QUIC_CRYPTO_AFTER_HELLO = "quic-crypto-after-hello", "Bytes follow the ClientHello in QUIC Initial packets before the server can have asked for them.";
    QUIC_HELLO_TOO_LARGE = "quic-hello-too-large", "The ClientHello in QUIC Initial packets is larger than the limit.";
    QUIC_NOT_CLIENT_HELLO = "quic-not-client-hello", "The handshake message in QUIC Initial packets is not a ClientHello.";
    QUIC_TOO_MANY_CONNECTIONS = "quic-too-many-connections", "The flow has more QUIC connections than the limit.";
    QUIC_CONNECTION_FORGOTTEN = "quic-connection-forgotten", "An Initial packet came for a QUIC connection that had to make room for newer ones.";
    QUIC_CONNECTION_DENIED = "quic-connection-denied", "The packet belongs to a QUIC connection whose ClientHello was denied.";
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
    HTTP_UNEXPECTED_BODY = "http-unexpected-body", "A GET or HEAD request has a body that some servers may take for the next request.";
    HTTP_BAD_EXPECT = "http-bad-expect", "Expect is repeated or is not exactly \"100-continue\".";
    HTTP2_UNSUPPORTED = "http2-unsupported", "The request asks for an upgrade to HTTP/2 by a name other than h2c, or to one of several protocols.";

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

    HTTP_CHUNK_SIZE = "http-chunk-size", "A chunk size is not a plain hexadecimal number below 2^31.";
    HTTP_CHUNK_EXTENSION = "http-chunk-extension", "A chunk has an extension, which servers read in different ways.";
    HTTP_CHUNK_END = "http-chunk-end", "The data of a chunk is not followed by CRLF.";
    HTTP_TRAILERS_TOO_LARGE = "http-trailers-too-large", "The trailer section is larger than the limit.";
    HTTP_TRAILER_FORBIDDEN = "http-trailer-forbidden", "A trailer names a field that decides framing or routing.";
    HTTP_SKIPPED_TOO_MUCH = "http-skipped-too-much", "More bytes went by unseen than the body has.";

    HTTP2_PREFACE = "http2-preface", "The connection does not start with the HTTP/2 preface.";
    HTTP2_FIRST_FRAME = "http2-first-frame", "The first HTTP/2 frame is not SETTINGS.";
    HTTP2_FRAME_TOO_LARGE = "http2-frame-too-large", "An HTTP/2 frame is larger than the limit.";
    HTTP2_FRAME_LENGTH = "http2-frame-length", "The length of an HTTP/2 frame does not fit its type.";
    HTTP2_PADDING = "http2-padding", "The padding of an HTTP/2 frame is longer than its payload.";
    HTTP2_STREAM_ID = "http2-stream-id", "An HTTP/2 frame is on a stream that its type may not be on.";
    HTTP2_STREAM_CLOSED = "http2-stream-closed", "A frame came on a stream whose client half is closed.";
    HTTP2_IDLE_STREAM = "http2-idle-stream", "A frame came on a stream that no request opened.";
    HTTP2_TOO_MANY_STREAMS = "http2-too-many-streams", "More streams are open than the limit.";
    HTTP2_TOO_MANY_SETTINGS = "http2-too-many-settings", "A SETTINGS frame holds more settings than the limit.";
    HTTP2_PUSH_PROMISE = "http2-push-promise", "A client sent PUSH_PROMISE.";
    HTTP2_SELF_DEPENDENCY = "http2-self-dependency", "A stream depends on itself.";
    HTTP2_CONTINUATION_EXPECTED = "http2-continuation-expected", "An unfinished header block is followed by something other than its CONTINUATION.";
    HTTP2_CONTINUATION_UNEXPECTED = "http2-continuation-unexpected", "A CONTINUATION frame follows no unfinished header block.";
    HTTP2_TOO_MANY_CONTINUATIONS = "http2-too-many-continuations", "A header block has more CONTINUATION frames, or empty ones, than the limit.";
    HTTP2_BLOCK_TOO_LARGE = "http2-block-too-large", "A header block is larger than the limit.";
    HTTP2_FLOOD = "http2-flood", "Too many frames carry nothing for a request.";
    HTTP2_RAPID_RESET = "http2-rapid-reset", "Too many requests are reset.";

    HTTP2_HPACK_TRUNCATED = "http2-hpack-truncated", "A header block ends inside a field.";
    HTTP2_HPACK_INTEGER = "http2-hpack-integer", "An integer in a header block is too large or too long.";
    HTTP2_HPACK_INDEX = "http2-hpack-index", "A header block names a table entry that does not exist.";
    HTTP2_HPACK_HUFFMAN = "http2-hpack-huffman", "A Huffman string in a header block has EOS or wrong padding.";
    HTTP2_HPACK_TABLE_SIZE = "http2-hpack-table-size", "The client sets the HPACK table to a size above the limit.";
    HTTP2_HPACK_TABLE_UPDATE = "http2-hpack-table-update", "A table size update is not at the start of a header block, or is the third.";
    HTTP2_FIELDS_TOO_LARGE = "http2-fields-too-large", "The decoded field section is larger than the limit.";
    HTTP2_TOO_MANY_FIELDS = "http2-too-many-fields", "The field section has more fields than the limit.";

    HTTP2_FIELD_NAME = "http2-field-name", "A field name is empty, has upper-case letters or characters that are not allowed.";
    HTTP2_FIELD_VALUE = "http2-field-value", "A field value has a control character, or white space at an end.";
    HTTP2_CONNECTION_FIELD = "http2-connection-field", "A field is specific to HTTP/1 connections.";
    HTTP2_PSEUDO_ORDER = "http2-pseudo-order", "A pseudo field follows a regular field.";
    HTTP2_PSEUDO_UNKNOWN = "http2-pseudo-unknown", "A pseudo field is not one of a request.";
    HTTP2_PSEUDO_DUPLICATE = "http2-pseudo-duplicate", "A pseudo field is repeated.";
    HTTP2_PSEUDO_MISSING = "http2-pseudo-missing", "A pseudo field that the request needs is missing.";
    HTTP2_PSEUDO_EXCESS = "http2-pseudo-excess", "A pseudo field does not go with the method.";
    HTTP2_METHOD = "http2-method", "The method is not a token of at most 32 characters.";
    HTTP2_SCHEME = "http2-scheme", "The scheme is neither http nor https.";
    HTTP2_PATH_EMPTY = "http2-path-empty", "The path is empty.";
    HTTP2_PATH_INVALID = "http2-path-invalid", "The path does not start with a slash, or has characters that are not allowed.";
    HTTP2_HOST_MISSING = "http2-host-missing", "The request has neither :authority nor host.";
    HTTP2_HOST_MISMATCH = "http2-host-mismatch", "The fields :authority and host name different hosts or ports.";
    HTTP2_DUPLICATE_HOST = "http2-duplicate-host", "The request has more than one host field.";
    HTTP2_DUPLICATE_LENGTH = "http2-duplicate-length", "The request has more than one content-length.";
    HTTP2_BAD_LENGTH = "http2-bad-length", "The content-length is not one plain decimal number below 2^63.";
    HTTP2_LENGTH_MISMATCH = "http2-length-mismatch", "The body is longer or shorter than content-length says.";
    HTTP2_DUPLICATE_TYPE = "http2-duplicate-type", "The request has more than one content-type.";
    HTTP2_TRAILERS_END = "http2-trailers-end", "Trailers do not end their stream.";
    HTTP2_TRAILER_FORBIDDEN = "http2-trailer-forbidden", "Trailers have a pseudo field or name a field that decides framing or routing.";

    HTTP_RESPONSE_STATUS_LINE = "http-response-status-line", "The answer to an Upgrade or CONNECT request has no valid status line.";
}
