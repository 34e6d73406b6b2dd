//! A bare client, the limit for any reader: sends pages of a stream, a few in
//! flight, and takes the bytes that come. Nothing is parsed.

use std::io::{Read, Write};

/// Entries of a page, and pages in flight: the fastest of those tried.
const PAGE: usize = 1000;
const IN_FLIGHT: usize = 6;
const PER_MS: usize = 3;
const FIRST_MS: u64 = 1_704_067_200_000;
/// The end of the reply to the last command.
const MARK: &[u8] = b"done\r\n";

/// The ID of the n-th entry: three a millisecond.
pub fn entry_id(n: usize) -> String {
    format!("{}-{}", FIRST_MS + (n / PER_MS) as u64, n % PER_MS)
}

/// The whole stream as commands for disjoint pages.
pub fn pages(stream: &str, entries: usize) -> Vec<Vec<u8>> {
    let page = |n: usize| {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(stream)
            .arg(entry_id(n))
            .arg(entry_id(entries.min(n + PAGE) - 1));
        cmd.get_packed_command()
    };
    (0..entries).step_by(PAGE).map(page).collect()
}

/// Sends a page whenever another page's worth of bytes has come; all at once without
/// the total, to learn it. How many bytes came.
pub fn drain(mut socket: impl Read + Write, pages: &[Vec<u8>], total: Option<usize>) -> usize {
    let echo = redis::cmd("ECHO").arg("done").get_packed_command();
    let mut buffer = vec![0; 1 << 20];
    let page_len = total.map(|total| total / pages.len());
    let mut tail = Vec::new();
    let (mut sent, mut received) = (0, 0);
    while tail != MARK {
        let due = page_len.map_or(pages.len(), |len| received / len + IN_FLIGHT);
        let due = due.min(pages.len());
        if due > sent {
            let mut batch = pages[sent..due].concat();
            if due == pages.len() {
                batch.extend_from_slice(&echo);
            }
            socket.write_all(&batch).expect("an open socket");
            sent = due;
        }
        let len = socket.read(&mut buffer).expect("replies");
        assert!(len > 0, "the server keeps the connection");
        received += len;
        // The mark may come in two pieces.
        tail.extend_from_slice(&buffer[len.saturating_sub(MARK.len())..len]);
        tail.drain(..tail.len().saturating_sub(MARK.len()));
    }
    received
}
