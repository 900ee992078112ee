//! Names with stars, as operators write them for tools: `get_*`.
//!
//! Only `*` is special. Matching is linear in the name times the number of stars; no backtracking blow-up.

/// A pattern over a name; `*` stands for any run of characters, the empty one too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: String,
    /// Whether it is a plain name: most are, and are then compared with every request.
    is_plain: bool,
}

impl Glob {
    /// A pattern as written.
    pub fn new(pattern: impl Into<String>) -> Glob {
        let pattern = pattern.into();
        Glob { is_plain: !pattern.contains('*'), pattern }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether the whole of `name` fits the pattern.
    pub fn matches(&self, name: &str) -> bool {
        if self.is_plain {
            return self.pattern == name;
        }
        let Some((head, mut rest)) = self.pattern.split_once('*') else { return self.pattern == name };
        let Some(mut name) = name.strip_prefix(head) else { return false };
        // The leftmost fit of every inner piece leaves the most room for the rest, so greed is never wrong.
        while let Some((piece, after)) = rest.split_once('*') {
            let Some(at) = name.find(piece) else { return false };
            name = &name[at + piece.len()..];
            rest = after;
        }
        name.ends_with(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, name, fits) in [
            ("get_*", "get_product", true),
            ("get_*", "get_", true),
            ("get_*", "forget_product", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("echo", "echo", true),
            ("echo", "echoes", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), fits, "{pattern} against {name}");
        }
    }
}
