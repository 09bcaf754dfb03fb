//! How code objects are laid out.

/// Order of the fields in a code object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// CPython 3.9 and 3.10: variables, free variables and cell variables are three tuples.
    ThreeTuples,
    /// CPython 3.11 and later: one tuple of all local variables, a qualified name, an exception table.
    LocalsPlus,
}

impl Layout {
    /// Bytes of the integers that a code object starts with.
    pub(super) const fn head(self) -> usize {
        match self {
            Self::ThreeTuples => 6 * 4,
            Self::LocalsPlus => 5 * 4,
        }
    }

    /// How many parts come before, and after, the number of the first line.
    pub(super) const fn parts(self) -> (usize, usize) {
        match self {
            Self::ThreeTuples => (8, 1),
            Self::LocalsPlus => (8, 2),
        }
    }

    /// Which part is `co_filename`.
    pub(super) const fn file_name(self) -> usize {
        match self {
            Self::ThreeTuples => 6,
            Self::LocalsPlus => 5,
        }
    }
}
