//! Gzip by stored blocks: legal for every decoder, flushed at every block, and smaller nowhere.

/// Most bytes in one stored block.
const BLOCK_BYTES_MAX: usize = 65_535;

/// A gzip stream under way.
#[derive(Debug, Default)]
pub(crate) struct Gzip {
    started: bool,
    crc: crc32fast::Hasher,
    bytes: u32,
}

impl Gzip {
    /// `data` as blocks that a decoder can give out at once.
    pub(crate) fn add(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(data.len().saturating_add(32));
        if !self.started {
            self.started = true;
            out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        }
        for block in data.chunks(BLOCK_BYTES_MAX) {
            let size = u16::try_from(block.len()).unwrap_or(u16::MAX);
            out.push(0);
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&(!size).to_le_bytes());
            out.extend_from_slice(block);
            self.bytes = self.bytes.wrapping_add(u32::from(size));
        }
        self.crc.update(data);
        out
    }

    /// The end of the stream.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = self.add(b"");
        out.extend_from_slice(&[1, 0, 0, 255, 255]);
        out.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out
    }
}
