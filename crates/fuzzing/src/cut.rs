//! Cutting an input: where a stream is cut is the input's choice, and so part of what is fuzzed.

/// How many bytes at the start of a stream target's input choose the cuts.
const SIZES: usize = 2;

/// Below this many bytes a stream is also fed byte by byte; longer ones would make an input slow
/// without telling more.
const SINGLE_BYTES_MAX: usize = 4096;

/// The stream in an input and the ways in which it is to be cut.
pub(crate) struct Stream<'a> {
    sizes: [usize; SIZES],
    /// What is left of the input behind the choice.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Stream<'a> {
    /// `None` if the input is too short to choose.
    pub(crate) fn new(data: &'a [u8]) -> Option<Self> {
        let (sizes, bytes) = data.split_first_chunk::<SIZES>()?;
        let sizes = sizes.map(usize::from);
        Some(Self { sizes, bytes })
    }

    /// Asserts that `read` says the same to the whole stream and to its pieces, and returns it.
    pub(crate) fn same_however_cut<T: PartialEq + std::fmt::Debug>(
        &self,
        read: impl Fn(&[&[u8]]) -> T,
    ) -> T {
        let whole = read(&[self.bytes]);
        assert_eq!(read(&cut(self.bytes, &self.sizes)), whole, "as chosen");
        if self.bytes.len() <= SINGLE_BYTES_MAX {
            assert_eq!(read(&cut(self.bytes, &[1])), whole, "byte by byte");
        }
        whole
    }
}

/// Cuts `bytes` behind every size in turn, over and over. A size of 0 is left out; without any
/// other there is one piece.
fn cut<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut sizes = sizes.iter().copied().filter(|&size| size > 0).cycle();
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
        let (piece, tail) = rest.split_at(size);
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

/// Splits the next record off: two bytes of length, big-endian, and as many bytes as there are of
/// that. `None` at the end.
pub(crate) fn record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, behind) = rest.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*len)).min(behind.len());
    let (body, behind) = behind.split_at(len);
    *rest = behind;
    Some(body)
}
