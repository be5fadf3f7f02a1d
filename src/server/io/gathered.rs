//! Bytes that are written together.

/// Bytes that are gathered at most.
const MOST: usize = 64 << 10;
/// A buffer that grew beyond this is not kept.
const KEPT: usize = 4 << 10;

/// What is to be written with the next message.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    /// So many of them are written.
    written: usize,
    /// Its flush is left to the next message, or to the reader.
    left: bool,
}

/// The bytes, out of their place while they are written.
pub(super) struct Taken {
    bytes: Vec<u8>,
    written: usize,
}

impl Taken {
    /// Those that are not written.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether so many more may be gathered.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes.len() + bytes <= MOST
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A flush that is left to others; true for the first since they were empty.
    pub(super) fn leave(&mut self) -> bool {
        !std::mem::replace(&mut self.left, true)
    }

    /// All of it is flushed.
    pub(super) fn flushed(&mut self) {
        self.left = false;
    }

    /// Whether a flush was left.
    pub(super) fn is_left(&self) -> bool {
        self.left
    }

    pub(super) fn take(&mut self) -> Taken {
        Taken { bytes: std::mem::take(&mut self.bytes), written: self.written }
    }

    /// So many more of them are written.
    pub(super) fn put_back(&mut self, taken: Taken, written: usize) {
        let Taken { mut bytes, written: before } = taken;
        self.written = before + written;
        if self.written >= bytes.len() {
            bytes.clear();
            self.written = 0;
            if bytes.capacity() > KEPT {
                bytes = Vec::new();
            }
        }
        self.bytes = bytes;
    }
}
