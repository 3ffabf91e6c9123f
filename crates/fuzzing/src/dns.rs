//! DNS messages, alone and behind lengths as TCP carries them.

use tollgate_l7::dns::{ADDRESSES_MAX, Framer, answer, question};

/// What two bytes of length can announce.
const MESSAGE_MAX: usize = 65_535;

/// Reads the data as a query, as an answer, and as a TCP stream that is cut where its first byte says.
pub fn dns(data: &[u8]) {
    let asked = question(data);
    if let Some(answer) = answer(data) {
        assert!(
            answer.addresses.len() <= ADDRESSES_MAX,
            "addresses are bounded"
        );
        assert!(asked.is_none(), "no message is a query and an answer");
    }
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let mut whole = Vec::new();
    Framer::default().push(stream, |message| whole.push(message.to_vec()));
    let mut pieces = Vec::new();
    let mut framer = Framer::default();
    for piece in stream.chunks(usize::from(cut).max(1)) {
        framer.push(piece, |message| pieces.push(message.to_vec()));
        assert!(framer.held() <= MESSAGE_MAX + 2, "held bytes are bounded");
    }
    assert_eq!(whole, pieces, "cuts change nothing");
}
