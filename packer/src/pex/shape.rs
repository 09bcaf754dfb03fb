//! Form and compression of a PEX.

use cpack_layer::archive::Codec;

/// Deflate level by default. libdeflate's 6 for all contents packs scientific packages to 3.25×, zlib's 6, which upstream uses, to 3.22×.
const DEFAULT_LEVEL: u32 = 6;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    #[default]
    Zipapp,
    Packed,
    Loose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub layout: Layout,
    /// Whether a directory is zipped as a whole: `.pex.zip`.
    pub zipped: bool,
    /// How zips are compressed: deflate or not at all.
    pub codec: Codec,
}

impl Default for Shape {
    fn default() -> Self {
        Self { layout: Layout::Zipapp, zipped: false, codec: Codec::Deflate(DEFAULT_LEVEL) }
    }
}

impl Shape {
    /// The shape for a value of `C_PACK_LAYOUT_OPTIMIZATION`, in any case of letters.
    ///
    /// The names tell the speed of creation, the speed of the first start, and the size.
    pub(crate) fn of_optimization(name: &str) -> Option<Self> {
        let (layout, zipped, codec) = match name.to_ascii_uppercase().as_str() {
            "SLOW_FAST_SMALL" => (Layout::Packed, true, Codec::Deflate(DEFAULT_LEVEL)),
            "FAST_MID_BIG" => (Layout::Loose, true, Codec::Store),
            "MID_SLOW_SMALL" => (Layout::Loose, true, Codec::Deflate(1)),
            "DISABLED" => (Layout::Zipapp, false, Codec::Deflate(DEFAULT_LEVEL)),
            _ => return None,
        };
        Some(Self { layout, zipped, codec })
    }
}
