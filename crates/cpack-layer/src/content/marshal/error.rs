//! Why marshalled code cannot be rewritten.

/// Why marshalled code cannot be rewritten. Offsets count from the first byte of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarshalError {
    #[error("the code is cut short: an object that ends after byte {at} is expected")]
    Truncated { at: usize },
    #[error("unexpected object of type {kind:#04x} at byte {at} of the code")]
    Type { kind: u8, at: usize },
    #[error("reference to an unknown object before byte {at} of the code")]
    Reference { at: usize },
    /// CPython would not read it either.
    #[error("objects are nested more than 2000 deep at byte {at} of the code")]
    Depth { at: usize },
    #[error("the module is too large: more than 4 billion objects, or sets that take more than 16 MiB to sort")]
    Size,
    #[error("the code ends at byte {at}, but more bytes follow")]
    Trailing { at: usize },
}
