//! What HTTP/2 clients are told, and what they may cost.

use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};

/// Streams at once on one connection. Proxies in front open another connection for more.
const STREAMS_MAX: u32 = 100;
/// What a client may send of one body before it is read: Pingora's 64 KiB would make long prompts wait for
/// round trips.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Room for every stream's window: a body that nobody reads yet holds back no other one.
const CONNECTION_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// What unread small frames may cost beside their bytes, until the connection is given up: h2 counts
/// what each lacks of 256. One stream's window full of frames of 16 bytes, or sixteen full of 128.
const FRAMES_BUDGET: usize = 4 * 1024 * 1024;
/// What is held of one answer that its client does not read, beside what the relay holds of it; h2's default
/// of 400 KiB is what a stalled reader would cost.
const SEND_BUFFER_MAX: usize = 64 * 1024;

/// The settings of every HTTP/2 connection. What they do not name is bounded by h2 and Pingora: the head's
/// size at 64 KiB, CONTINUATION frames, resets that a client makes or provokes.
pub(super) fn options() -> H2Options {
    let mut options = default_h2_options();
    options
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .data_frame_budget(FRAMES_BUDGET)
        .max_send_buffer_size(SEND_BUFFER_MAX);
    options
}
