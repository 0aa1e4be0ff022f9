//! That no byte is searched twice, which only the scanner's inside shows.

use super::*;

#[test]
fn what_was_searched_is_not_searched_again() {
    let stream = b"\xef\xbb\xbf: c\r\n\r\nevent: e\ndata: a\r\ndata: b\n\ndata: c\r\rid: 1";
    for frame_bytes in 1..12 {
        let mut scanner = Scanner::new();
        for frame in stream.repeat(3).chunks(frame_bytes) {
            scanner.feed(Bytes::copy_from_slice(frame));
            // At most the `\r` of a blank line is looked at again, when its next byte is there.
            let again = scanner.pending.get(scanner.searched..).unwrap();
            assert!(again.is_empty() || again == b"\r", "{again:?}");
            assert!(scanner.line <= scanner.searched);
        }
    }
}
