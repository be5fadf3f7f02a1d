//! Frames of a WebSocket that carry no call: pings, pongs, small pieces, what is too short for one, and what turns out to be none. They cost
//! the server time, and the limits of calls do not count them. More than so many per second are read as slowly as that.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A piece of a message that has fewer bytes is a small one.
const SMALL: u64 = 1024;
/// A whole message that has fewer bytes is no call: `{"jsonrpc":"2.0","id":1,"method":"a"}` has more.
const SHORTEST: u64 = 32;
/// Seconds' worth of them that may come at once.
const BURST: f64 = 10.0;
/// Messages that may be read and not be known for calls yet. The JSON-RPC library answers what is none by itself, each in a task.
const UNKNOWN: usize = 4096;
/// How long reading rests when there are more.
const PAUSE: Duration = Duration::from_millis(10);
/// The end of a request's headers.
const END: [u8; 4] = *b"\r\n\r\n";

/// Counts the small frames of one stream. See the module.
pub(super) struct Frames {
    header: Header,
    budget: Budget,
    /// The last bytes that were read before the stream became a WebSocket's.
    before: Option<[u8; 4]>,
    rest: Option<Pin<Box<Sleep>>>,
    /// Messages that pass for none after each pause.
    passed: usize,
}

impl Frames {
    pub(super) fn new(per_second: u32) -> Self {
        let (header, budget) = (Header::default(), Budget::new(per_second, Instant::now()));
        let passed = usize::try_from(per_second / 100).unwrap_or(1).max(1);
        Self { header, budget, before: Some([0; 4]), rest: None, passed }
    }

    /// Resolves when more may be read.
    pub(super) fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(()) };
        let over = rest.as_mut().poll(context);
        if over.is_ready() {
            self.rest = None;
        }
        over
    }

    /// So many messages were read and are not known for calls: how many of them pass for none, after a rest.
    pub(super) fn rest_if_many(&mut self, unknown: usize) -> usize {
        if unknown <= UNKNOWN || self.rest.is_some() {
            return 0;
        }
        self.rest = Some(Box::pin(sleep(PAUSE)));
        self.passed
    }

    /// These bytes came, and so many messages end in frames that begin in them; `is_upgraded` says whether a WebSocket was agreed on before they were read. An error if the client did not wait for
    /// that: its frames could not be told apart.
    pub(super) fn read(&mut self, bytes: &[u8], is_upgraded: bool) -> io::Result<usize> {
        match &mut self.before {
            Some(last) if !is_upgraded => {
                let from = bytes.len().saturating_sub(END.len());
                for byte in bytes.get(from..).unwrap_or_default() {
                    last.rotate_left(1);
                    last[END.len() - 1] = *byte;
                }
                return Ok(0);
            }
            Some(last) if *last != END => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "frames came before the handshake was answered"));
            }
            before => *before = None,
        }
        let (small, messages) = self.header.count(bytes);
        if small > 0
            && let Some(rest) = self.budget.spend(small, Instant::now())
        {
            tracing::debug!(?rest, "too many small frames: the client is read from later");
            self.rest = Some(Box::pin(sleep(rest)));
        }
        Ok(messages)
    }
}

/// Where in a frame the stream is (RFC 6455, section 5.2).
#[derive(Debug, Default)]
struct Header {
    bytes: [u8; 14],
    have: usize,
    /// Bytes of the frame's payload that have not come.
    payload: u64,
}

impl Header {
    /// How many small frames begin in these bytes, and how many that end a message.
    fn count(&mut self, mut bytes: &[u8]) -> (u32, usize) {
        let (mut small, mut messages) = (0, 0);
        loop {
            let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else { return (small, messages) };
            if let Some(place) = self.bytes.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            bytes = rest;
            if let Some(payload) = self.payload_bytes() {
                let least = if self.is_piece() { SMALL } else { SHORTEST };
                small += u32::from(self.is_control() || payload < least);
                messages += usize::from(!self.is_control() && self.is_last());
                (self.have, self.payload) = (0, payload);
            }
        }
    }

    fn is_control(&self) -> bool {
        self.bytes[0] & 0x08 != 0
    }

    fn is_last(&self) -> bool {
        self.bytes[0] & 0x80 != 0
    }

    /// Not the first, or not the last, of its message.
    fn is_piece(&self) -> bool {
        self.bytes[0] & 0x0f == 0 || !self.is_last()
    }

    /// Length of the payload, once the whole header has come.
    fn payload_bytes(&self) -> Option<u64> {
        let short = self.bytes[1] & 0x7f;
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.bytes[1] & 0x80 == 0 { 0 } else { 4 };
        if self.have < 2 + extended + mask {
            return None;
        }
        let long = self.bytes.get(2..2 + extended)?.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        Some(if extended == 0 { u64::from(short) } else { long })
    }
}

/// So many per second, and some seconds' worth at once. Pure.
#[derive(Debug)]
struct Budget {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, left: per_second * BURST, at: now }
    }

    /// Takes so many; what is to be waited if there are not as many.
    fn spend(&mut self, frames: u32, now: Instant) -> Option<Duration> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + gained).min(self.per_second * BURST) - f64::from(frames);
        self.at = now;
        (self.left < 0.0).then(|| Duration::from_secs_f64(-self.left / self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(0x80 | u8::try_from(payload).unwrap()),
            126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend(u64::try_from(payload).unwrap().to_be_bytes());
            }
        }
        frame.extend([9; 4]);
        frame.resize(frame.len() + payload, 0x89);
        frame
    }

    const TEXT: u8 = 0x81;
    const PING: u8 = 0x89;
    const BEGINS: u8 = 0x01;
    const GOES_ON: u8 = 0x00;
    const ENDS: u8 = 0x80;

    #[test]
    fn small_frames_are_found_however_the_bytes_come() {
        let frames = [
            (TEXT, 5, 1),
            (TEXT, 37, 0),
            (PING, 0, 1),
            (TEXT, 70_000, 0),
            (PING, 125, 1),
            (BEGINS, 1, 1),
            (GOES_ON, 0, 1),
            (GOES_ON, 5_000, 0),
            (ENDS, 1, 1),
            (TEXT, 126, 0),
            (0x8a, 3, 1),
            (0x88, 2, 1),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload, _)| frame(*first, *payload)).collect();
        let expected: u32 = frames.iter().map(|(.., small)| small).sum();
        for size in [1, 2, 3, 7, 13, 1000, bytes.len()] {
            let mut header = Header::default();
            let counts: Vec<_> = bytes.chunks(size).map(|chunk| header.count(chunk)).collect();
            assert_eq!(counts.iter().map(|(small, _)| small).sum::<u32>(), expected, "in pieces of {size}");
            assert_eq!(counts.iter().map(|(_, messages)| messages).sum::<usize>(), 5, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_spent_beyond_the_budget_is_waited_for() {
        let start = Instant::now();
        let mut budget = Budget::new(100, start);
        assert_eq!(budget.spend(1000, start), None, "ten seconds' worth at once");
        assert_eq!(budget.spend(50, start), Some(Duration::from_millis(500)));
        let later = start + Duration::from_secs(1);
        assert_eq!(budget.spend(50, later), None);
        assert_eq!(budget.spend(1, later), Some(Duration::from_millis(10)));
        assert_eq!(budget.spend(1001, later + Duration::from_secs(3600)), Some(Duration::from_millis(10)), "no more than that is saved");
    }

    #[tokio::test(start_paused = true)]
    async fn only_small_frames_of_a_websocket_make_the_reader_rest() {
        let mut frames = Frames::new(100);
        let pings: Vec<u8> = (0..1001).flat_map(|_| frame(PING, 0)).collect();
        frames.read(b"GET / HTTP/1.1\r\n\r", false).unwrap();
        frames.read(b"\n", false).unwrap();
        frames.read(&frame(TEXT, 40).repeat(5000), true).unwrap();
        assert!(frames.rest.is_none());
        frames.read(&pings, true).unwrap();
        std::future::poll_fn(|context| frames.poll_rest(context)).await;
        assert!(frames.rest.is_none());

        let mut early = Frames::new(100);
        early.read(b"GET / HTTP/1.1\r\n\r\n\x89", false).unwrap();
        assert_eq!(early.read(b"\x80", true).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut plain = Frames::new(100);
        plain.read(&pings, false).unwrap();
        assert!(plain.rest.is_none(), "HTTP has other limits");
    }
}
