//! Writes the objects of a module in canonical form.

use super::graph::{FLAG_REF, Graph, Id, Node, Shape};
use super::layout::Layout;

/// What the writer writes next.
enum Step<'a> {
    Object(Id),
    FileName,
    Raw(&'a [u8]),
}

/// The bytes of the module, with `file_name` (text in UTF-8) in all its code objects. `hint` is about how many there will be.
pub(super) fn module(graph: &Graph<'_>, file_name: &[u8], hint: usize) -> Vec<u8> {
    let mut writer = Writer {
        out: Vec::with_capacity(hint + file_name.len()),
        uses: uses(graph),
        numbers: vec![None; graph.nodes.len()],
        next_number: 0,
        file_name,
        file_name_number: None,
        several_codes: graph.nodes.iter().filter(|node| node.shape == Shape::Code).nth(1).is_some(),
    };
    let mut todo = vec![Step::Object(0)];
    while let Some(step) = todo.pop() {
        match step {
            Step::FileName => writer.file_name(),
            Step::Raw(bytes) => writer.out.extend_from_slice(bytes),
            Step::Object(id) => {
                if let Some(node) = graph.nodes.get(id as usize)
                    && writer.object(id, node)
                {
                    push_parts(&mut todo, graph.layout, node, graph.parts(node));
                }
            }
        }
    }
    writer.out
}

/// How often each node is part of another; file names do not count.
fn uses(graph: &Graph<'_>) -> Vec<u32> {
    let mut uses = vec![0_u32; graph.nodes.len()];
    let mut todo = vec![Step::Object(0)];
    while let Some(step) = todo.pop() {
        let Step::Object(id) = step else { continue };
        let (Some(count), Some(node)) = (uses.get_mut(id as usize), graph.nodes.get(id as usize)) else { continue };
        *count = count.saturating_add(1);
        if *count == 1 {
            push_parts(&mut todo, graph.layout, node, graph.parts(node));
        }
    }
    uses
}

/// Puts the parts of `node` on a stack so that the first one is on top.
fn push_parts<'a>(todo: &mut Vec<Step<'a>>, layout: Layout, node: &Node<'a>, parts: &[Id]) {
    if node.shape != Shape::Code {
        return todo.extend(parts.iter().rev().map(|part| Step::Object(*part)));
    }
    let (before, after) = parts.split_at_checked(layout.parts().0).unwrap_or_default();
    todo.extend(after.iter().rev().map(|part| Step::Object(*part)));
    todo.push(Step::Raw(node.line));
    let file_name = |at| at == layout.file_name();
    let step = |(at, part): (usize, &Id)| if file_name(at) { Step::FileName } else { Step::Object(*part) };
    todo.extend(before.iter().enumerate().map(step).rev());
}

struct Writer<'a> {
    out: Vec<u8>,
    uses: Vec<u32>,
    /// Reference numbers of the nodes that were written with a flag.
    numbers: Vec<Option<u32>>,
    next_number: u32,
    file_name: &'a [u8],
    file_name_number: Option<u32>,
    several_codes: bool,
}

impl Writer<'_> {
    /// Writes an object up to its parts, or a reference to it. Returns whether the caller must write its parts.
    fn object(&mut self, id: Id, node: &Node<'_>) -> bool {
        if let Some(number) = self.numbers.get(id as usize).copied().flatten() {
            self.reference(number);
            return false;
        }
        let shared = node.shape != Shape::Singleton && self.uses.get(id as usize).is_some_and(|uses| *uses > 1);
        let mut flag = 0;
        if shared && let Some(slot) = self.numbers.get_mut(id as usize) {
            *slot = Some(self.next_number);
            self.next_number += 1;
            flag = FLAG_REF;
        }
        if let Shape::Text { interned } = node.shape {
            self.text(node.payload, interned, flag);
        } else {
            self.out.push(node.kind | flag);
            self.out.extend_from_slice(node.payload);
        }
        true
    }

    /// Writes the path of the source: a string of its own, shared by all code objects and by nothing else.
    fn file_name(&mut self) {
        match self.file_name_number {
            Some(number) => self.reference(number),
            None if self.several_codes => {
                self.file_name_number = Some(self.next_number);
                self.next_number += 1;
                self.text(self.file_name, false, FLAG_REF);
            }
            None => self.text(self.file_name, false, 0),
        }
    }

    /// Writes a string in the form that CPython chooses for it.
    fn text(&mut self, text: &[u8], interned: bool, flag: u8) {
        let short = u8::try_from(text.len()).ok().filter(|_| text.is_ascii());
        let kind = match (short, text.is_ascii()) {
            (Some(_), _) => [b'z', b'Z'],
            (None, true) => [b'a', b'A'],
            (None, false) => [b'u', b't'],
        };
        self.out.push(kind[usize::from(interned)] | flag);
        match short {
            Some(length) => self.out.push(length),
            None => self.out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes()),
        }
        self.out.extend_from_slice(text);
    }

    fn reference(&mut self, number: u32) {
        self.out.push(b'r');
        self.out.extend_from_slice(&number.to_le_bytes());
    }
}
