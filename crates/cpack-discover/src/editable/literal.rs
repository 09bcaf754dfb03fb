//! Parses Python literals in modules that build backends generate. No code is run.

/// The deepest nesting that is parsed. Generated modules stay far below.
const MAX_DEPTH: usize = 16;

/// A literal value. Numbers are not needed, so their values are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Literal {
    Text(String),
    /// A list, tuple or set.
    List(Vec<Literal>),
    /// A dictionary, in its order.
    Dictionary(Vec<(Literal, Literal)>),
    /// A number, `None`, `True` or `False`.
    Other,
}

impl Literal {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items whose key and value are strings.
    pub(super) fn texts(&self) -> Vec<(&str, &str)> {
        let Self::Dictionary(items) = self else { return Vec::new() };
        items.iter().filter_map(|(key, value)| Some((key.text()?, value.text()?))).collect()
    }
}

/// The value assigned to `name` at the start of a line: `NAME = …` or `NAME: annotation = …`.
pub(super) fn assigned(source: &str, name: &str) -> Option<Literal> {
    let line = source.match_indices(name).find(|(at, _)| {
        let before = source.get(..*at).unwrap_or_default();
        let after = source.get(at + name.len()..).unwrap_or_default();
        (before.is_empty() || before.ends_with('\n')) && after.trim_start().starts_with(['=', ':'])
    });
    let rest = source.get(line?.0 + name.len()..)?;
    let value = rest.get(rest.find('=')? + 1..)?;
    Parser::new(value).value(0)
}

/// The arguments of each call of `function`, up to the first that is not a literal.
pub(super) fn calls(source: &str, function: &str) -> Vec<Vec<Literal>> {
    let opening = format!("{function}(");
    let starts = source.match_indices(&opening).filter_map(|(at, text)| source.get(at + text.len()..));
    starts.map(|arguments| Parser::new(arguments).items(b')', 0).1).collect()
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn new(source: &'a str) -> Self {
        Self { rest: source }
    }

    /// Skips blanks, line breaks and comments, and returns the next byte without consuming it.
    fn peek(&mut self) -> Option<u8> {
        loop {
            self.rest = self.rest.trim_start();
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest),
                None => return self.rest.as_bytes().first().copied(),
            }
        }
    }

    fn skip(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.skip(1);
        }
        found
    }

    fn value(&mut self, depth: usize) -> Option<Literal> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => self.braces(depth),
            b'[' => self.list(b']', depth),
            b'(' => self.list(b')', depth),
            b'\'' | b'"' => self.strings().map(Literal::Text),
            c if c.is_ascii_alphanumeric() || c == b'-' => self.word(),
            _ => None,
        }
    }

    fn list(&mut self, end: u8, depth: usize) -> Option<Literal> {
        self.skip(1);
        let (closed, items) = self.items(end, depth + 1);
        closed.then_some(Literal::List(items))
    }

    /// The values up to `end`, and whether `end` was reached.
    fn items(&mut self, end: u8, depth: usize) -> (bool, Vec<Literal>) {
        let mut items = Vec::new();
        loop {
            if self.eat(end) {
                return (true, items);
            }
            let Some(item) = self.value(depth) else { return (false, items) };
            items.push(item);
            if !self.eat(b',') {
                return (self.eat(end), items);
            }
        }
    }

    fn braces(&mut self, depth: usize) -> Option<Literal> {
        self.skip(1);
        let (mut pairs, mut items) = (Vec::new(), Vec::new());
        while !self.eat(b'}') {
            let key = self.value(depth + 1)?;
            if self.eat(b':') {
                pairs.push((key, self.value(depth + 1)?));
            } else {
                items.push(key);
            }
            if !self.eat(b',') && self.peek() != Some(b'}') {
                return None;
            }
        }
        Some(if items.is_empty() { Literal::Dictionary(pairs) } else { Literal::List(items) })
    }

    /// Joins adjacent strings.
    fn strings(&mut self) -> Option<String> {
        let mut text = String::new();
        while matches!(self.peek(), Some(b'\'' | b'"')) {
            self.string(&mut text)?;
        }
        Some(text)
    }

    fn string(&mut self, text: &mut String) -> Option<()> {
        let quote = self.rest.chars().next()?;
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, c)) = characters.next() {
            match c {
                _ if c == quote => {
                    self.skip(at + 1);
                    return Some(());
                }
                '\n' => return None,
                '\\' => {
                    let (_, escape) = characters.next()?;
                    let mut hexadecimal = |digits| {
                        let code: String = characters.by_ref().take(digits).map(|(_, c)| c).collect();
                        char::from_u32(u32::from_str_radix(&code, 16).ok()?)
                    };
                    text.push(match escape {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'x' => hexadecimal(2)?,
                        'u' => hexadecimal(4)?,
                        'U' => hexadecimal(8)?,
                        '\\' | '\'' | '"' => escape,
                        _ => return None,
                    });
                }
                c => text.push(c),
            }
        }
        None
    }

    fn word(&mut self) -> Option<Literal> {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '.' | '_'));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let is_value =
            matches!(word, "None" | "True" | "False") || word.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        self.rest = rest;
        is_value.then_some(Literal::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literal_assignments_of_every_style() {
        let expected = [("a", "/x/a"), ("b.c", "/it's")];
        for source in [
            "MAPPING = {'a': '/x/a', 'b.c': \"/it's\"}\n",
            "import x\n\nMAPPING: dict[str, str] = {'a': '/x/a', 'b.c': '/it\\'s'}\nNAMESPACES = {}\n",
            "# MAPPING\nMAPPING: Dict[str, str] = {\n  'a': '/x/' 'a',  # first\n  'b.c': '/it\\x27s',\n}\n",
        ] {
            let value = assigned(source, "MAPPING").expect(source);
            assert_eq!(value.texts(), expected, "{source}");
        }
        for source in ["", "X = MAPPING\n", "MAPPING = f()", "MAPPING = {'a': open('x')}", "MAPPING = {'a"] {
            assert_eq!(assigned(source, "MAPPING"), None, "{source}");
        }
    }

    #[test]
    fn literal_arguments_end_at_other_expressions() {
        let source =
            "def f(self): pass\n\nf({'a': '/a'}, {}, {'s': ['x', 's']}, None, -1.5, [], ('t',), {'me'}, g(), 'z')\n";
        let calls = calls(source, "\nf");
        let text = |s: &str| Literal::Text(s.to_owned());
        let expected = vec![
            Literal::Dictionary(vec![(text("a"), text("/a"))]),
            Literal::Dictionary(vec![]),
            Literal::Dictionary(vec![(text("s"), Literal::List(vec![text("x"), text("s")]))]),
            Literal::Other,
            Literal::Other,
            Literal::List(vec![]),
            Literal::List(vec![text("t")]),
            Literal::List(vec![text("me")]),
        ];
        assert_eq!(calls, [expected]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[\\[\\]{}()'\"\\\\a-c:,#\n =é]{0,60}") {
            let _ = assigned(&format!("M = {text}"), "M");
            let _ = calls(&format!("f({text}"), "f");
        }

        #[test]
        fn strings_survive_pythons_repr(text in "[ -~é\n\t]{0,30}") {
            let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\t', "\\t");
            let value = assigned(&format!("M = '{escaped}'"), "M");
            prop_assert_eq!(value, Some(Literal::Text(text)));
        }
    }

    #[test]
    fn literal_refuses_deep_nesting() {
        assert_eq!(assigned(&format!("M = {}", "[".repeat(100_000)), "M"), None);
    }
}
