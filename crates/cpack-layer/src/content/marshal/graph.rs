//! Reads marshalled code into its objects.

use std::collections::hash_map::Entry;
use std::ops::Range;

use foldhash::{HashMap, HashMapExt as _};

use super::error::MarshalError;
use super::layout::Layout;

/// Bit of the type byte: the object takes a reference number.
pub(super) const FLAG_REF: u8 = 0x80;

/// Deepest nesting, CPython's own limit (`MAX_MARSHAL_STACK_DEPTH`): CPython cannot load deeper code.
const MAX_DEPTH: usize = 2000;

/// Most bytes that sorting the sets of one module may take. Nested references could otherwise ask for any amount.
const MAX_SORT_BYTES: usize = 16 << 20;

/// Index of a node.
pub(super) type Id = u32;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `None`, `True`, `False`, `Ellipsis`, `StopIteration`: one byte, never referred to.
    Singleton,
    /// A number or bytes.
    Leaf,
    /// A string. The payload is its text in UTF-8, surrogates included.
    Text {
        /// Whether it is interned.
        interned: bool,
    },
    /// A tuple or a slice.
    Sequence,
    /// A frozen set; its parts are in canonical order.
    Set,
    /// A code object.
    Code,
}

/// An object.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) shape: Shape,
    /// The type byte without flag; of no meaning for text.
    pub(super) kind: u8,
    /// What follows the type byte, up to the parts.
    pub(super) payload: &'a [u8],
    /// Only of code: the number of the first line, which stands between the parts.
    pub(super) line: &'a [u8],
    /// In [`Graph::parts`].
    parts: Range<Id>,
    /// Once it was read to its end: the node that stands for it and all its equals.
    whole: Option<Id>,
}

/// The objects of a module; node 0 is its code. Equal constants are one node, code objects are not compared.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    pub(super) layout: Layout,
    pub(super) nodes: Vec<Node<'a>>,
    parts: Vec<Id>,
}

impl<'a> Graph<'a> {
    pub(super) fn read(data: &'a [u8], layout: Layout) -> Result<Self, MarshalError> {
        let graph = Self { layout, nodes: Vec::with_capacity(data.len() / 16), parts: Vec::new() };
        let mut builder = Builder {
            input: Input { data, at: 0 },
            graph,
            atoms: HashMap::new(),
            compounds: HashMap::new(),
            references: Vec::new(),
            open: Vec::new(),
            finished: Vec::new(),
            budget: MAX_SORT_BYTES,
        };
        builder.module()?;
        Ok(builder.graph)
    }

    pub(super) fn parts(&self, node: &Node<'_>) -> &[Id] {
        self.parts.get(node.parts.start as usize..node.parts.end as usize).unwrap_or_default()
    }

    /// The bytes of an object with everything written out, to sort by.
    fn expanded(&self, id: Id, budget: &mut usize) -> Result<Vec<u8>, MarshalError> {
        let mut out = Vec::new();
        let mut todo = vec![id];
        while let Some(node) = todo.pop().and_then(|id| self.nodes.get(id as usize)) {
            *budget = budget.checked_sub(1 + node.payload.len()).ok_or(MarshalError::Size)?;
            out.push(node.kind);
            out.extend_from_slice(node.payload);
            todo.extend(self.parts(node).iter().rev());
        }
        Ok(out)
    }
}

/// The bytes, and how far they are read.
struct Input<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MarshalError> {
        let end = self.at.checked_add(count);
        let bytes = end.and_then(|end| self.data.get(self.at..end)).ok_or(MarshalError::Truncated { at: self.at })?;
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MarshalError> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| MarshalError::Truncated { at })
    }

    fn byte(&mut self) -> Result<usize, MarshalError> {
        Ok(usize::from(u8::from_le_bytes(self.array()?)))
    }

    fn count(&mut self) -> Result<usize, MarshalError> {
        let at = self.at;
        usize::try_from(i32::from_le_bytes(self.array()?)).map_err(|_| MarshalError::Truncated { at })
    }

    fn since(&self, start: usize) -> &'a [u8] {
        self.data.get(start..self.at).unwrap_or_default()
    }
}

/// An object whose parts are being read.
struct Open {
    id: Id,
    /// How many parts it has in all.
    wanted: usize,
    /// Where its parts begin in [`Builder::finished`].
    first: usize,
}

struct Builder<'a> {
    input: Input<'a>,
    graph: Graph<'a>,
    /// The one node of each number, string and bytes, by kind (`u` for all strings) and payload.
    atoms: HashMap<(u8, &'a [u8]), Id>,
    /// The one node of each tuple, slice and set, by kind and parts.
    compounds: HashMap<(u8, Vec<Id>), Id>,
    /// The node of each reference number.
    references: Vec<Id>,
    /// From the module inwards.
    open: Vec<Open>,
    /// Objects that wait for the one they are part of.
    finished: Vec<Id>,
    /// Bytes that sorting may still take.
    budget: usize,
}

impl<'a> Builder<'a> {
    fn module(&mut self) -> Result<(), MarshalError> {
        loop {
            let (id, wanted) = self.object()?;
            if self.open.is_empty() && self.graph.nodes.first().is_none_or(|node| node.shape != Shape::Code) {
                return Err(MarshalError::Type { kind: self.input.data.first().copied().unwrap_or_default(), at: 0 });
            }
            if wanted > 0 {
                if self.open.len() >= MAX_DEPTH {
                    return Err(MarshalError::Depth { at: self.input.at });
                }
                self.open.push(Open { id, wanted, first: self.finished.len() });
                continue;
            }
            self.finish(id)?;
            if self.open.is_empty() {
                let at = self.input.at;
                return if at == self.input.data.len() { Ok(()) } else { Err(MarshalError::Trailing { at }) };
            }
        }
    }

    /// Gives a whole object to the one it is part of. That one may then be whole too, and so on.
    fn finish(&mut self, mut id: Id) -> Result<(), MarshalError> {
        while let Some(&Open { id: parent, wanted, first }) = self.open.last() {
            self.finished.push(id);
            let have = self.finished.len() - first;
            if have < wanted {
                return self.line(parent, have);
            }
            id = self.complete(parent, first)?;
            self.open.pop();
        }
        Ok(())
    }

    /// Reads the number of the first line of a code object if it follows after `have` parts.
    fn line(&mut self, id: Id, have: usize) -> Result<(), MarshalError> {
        let before = self.graph.layout.parts().0;
        if let Some(node) = self.graph.nodes.get_mut(id as usize)
            && node.shape == Shape::Code
            && have == before
        {
            node.line = self.input.take(4)?;
        }
        Ok(())
    }

    /// Gives a node its parts, which are finished from `first` on. Returns the node that stands for it.
    fn complete(&mut self, id: Id, first: usize) -> Result<Id, MarshalError> {
        let mut parts = self.finished.split_off(first);
        let (shape, kind) = self.graph.nodes.get(id as usize).map_or((Shape::Leaf, 0), |node| (node.shape, node.kind));
        if shape == Shape::Set {
            self.sort(&mut parts)?;
        }
        let start = Id::try_from(self.graph.parts.len()).map_err(|_| MarshalError::Size)?;
        let end = start.checked_add(Id::try_from(parts.len()).unwrap_or(Id::MAX)).ok_or(MarshalError::Size)?;
        let mut whole = id;
        if shape == Shape::Code {
            self.graph.parts.extend(parts);
        } else {
            let entry = self.compounds.entry((kind, parts));
            if let Entry::Vacant(new) = &entry {
                self.graph.parts.extend(&new.key().1);
            }
            whole = *entry.or_insert(id);
        }
        if let Some(node) = self.graph.nodes.get_mut(id as usize) {
            node.parts = if whole == id { start..end } else { 0..0 };
            node.whole = Some(whole);
        }
        Ok(whole)
    }

    /// Puts the elements of a set in canonical order.
    fn sort(&mut self, elements: &mut Vec<Id>) -> Result<(), MarshalError> {
        let mut keyed = Vec::with_capacity(elements.len());
        for element in elements.drain(..) {
            keyed.push((self.graph.expanded(element, &mut self.budget)?, element));
        }
        keyed.sort_unstable();
        elements.extend(keyed.into_iter().map(|(_, element)| element));
        Ok(())
    }

    /// Reads an object up to its parts, or a reference. Returns the node and how many parts follow.
    fn object(&mut self) -> Result<(Id, usize), MarshalError> {
        let at = self.input.at;
        let [tagged] = self.input.array()?;
        let kind = tagged & !FLAG_REF;
        if kind == b'r' {
            return Ok((self.reference()?, 0));
        }
        let start = self.input.at;
        let (shape, wanted) = match kind {
            b'N' | b'T' | b'F' | b'S' | b'.' => (Shape::Singleton, 0),
            b'i' | b'g' | b'y' | b'l' | b's' => (Shape::Leaf, 0),
            b'z' | b'Z' | b'a' | b'A' | b'u' | b't' => (Shape::Text { interned: false }, 0),
            b')' => (Shape::Sequence, self.input.byte()?),
            b'(' => (Shape::Sequence, self.input.count()?),
            b'>' => (Shape::Set, self.input.count()?),
            b':' => (Shape::Sequence, 3),
            b'c' => {
                self.input.take(self.graph.layout.head())?;
                let (before, after) = self.graph.layout.parts();
                (Shape::Code, before + after)
            }
            _ => return Err(MarshalError::Type { kind: tagged, at }),
        };
        let id = match shape {
            Shape::Text { .. } => self.text(kind, at)?,
            Shape::Leaf => self.leaf(kind)?,
            Shape::Singleton => self.atom(shape, kind, &[])?,
            // One without parts is whole already.
            Shape::Sequence | Shape::Set if wanted == 0 => self.atom(shape, kind, self.input.since(start))?,
            Shape::Sequence | Shape::Set | Shape::Code => self.push(shape, kind, self.input.since(start), false)?,
        };
        // CPython keeps no references to its singletons, whatever their flag says.
        if tagged & FLAG_REF != 0 && shape != Shape::Singleton {
            self.references.push(id);
        }
        Ok((id, wanted))
    }

    /// Reads a number or bytes.
    fn leaf(&mut self, kind: u8) -> Result<Id, MarshalError> {
        let start = self.input.at;
        let length = match kind {
            b'i' => 4,
            b'g' => 8,
            b'y' => 16,
            // The sign of the count is that of the number; its digits have 15 bits.
            b'l' => (i32::from_le_bytes(self.input.array()?).unsigned_abs() as usize).saturating_mul(2),
            _ => self.input.count()?,
        };
        self.input.take(length)?;
        self.atom(Shape::Leaf, kind, self.input.since(start))
    }

    /// Reads a string.
    fn text(&mut self, kind: u8, at: usize) -> Result<Id, MarshalError> {
        let length = if matches!(kind, b'z' | b'Z') { self.input.byte()? } else { self.input.count()? };
        let text = self.input.take(length)?;
        // The short forms hold ASCII; what else CPython would make of them, no compiler has written.
        if !matches!(kind, b'u' | b't') && !text.is_ascii() {
            return Err(MarshalError::Type { kind, at });
        }
        let id = self.atom(Shape::Text { interned: false }, b'u', text)?;
        if let Some(Node { shape: Shape::Text { interned }, .. }) = self.graph.nodes.get_mut(id as usize) {
            *interned |= matches!(kind, b'Z' | b'A' | b't') || matches!(text, [] | [_] | [0xc2 | 0xc3, _]);
        }
        Ok(id)
    }

    /// The node of an object without parts.
    fn atom(&mut self, shape: Shape, kind: u8, payload: &'a [u8]) -> Result<Id, MarshalError> {
        if let Some(known) = self.atoms.get(&(kind, payload)) {
            return Ok(*known);
        }
        let id = self.push(shape, kind, payload, true)?;
        self.atoms.insert((kind, payload), id);
        Ok(id)
    }

    fn push(&mut self, shape: Shape, kind: u8, payload: &'a [u8], whole: bool) -> Result<Id, MarshalError> {
        let id = Id::try_from(self.graph.nodes.len()).map_err(|_| MarshalError::Size)?;
        self.graph.nodes.push(Node { shape, kind, payload, line: &[], parts: 0..0, whole: whole.then_some(id) });
        Ok(id)
    }

    fn reference(&mut self) -> Result<Id, MarshalError> {
        let number = u32::from_le_bytes(self.input.array()?);
        let node = self.references.get(number as usize).and_then(|id| self.graph.nodes.get(*id as usize));
        // CPython allows a tuple to contain itself; code never does.
        node.and_then(|node| node.whole).ok_or(MarshalError::Reference { at: self.input.at })
    }
}
