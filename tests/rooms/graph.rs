//! Which module imports which, read from the sources: `use` declarations and paths that begin with `crate`,
//! `super` or `self`. Comments, strings and tests are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The name of a module: `["track", "mlflow"]` is `crate::track::mlflow`.
pub type Name = Vec<String>;

/// A crate's modules by name.
pub struct Sources {
    modules: BTreeMap<Name, Module>,
    /// Names under which the crate's root knows crates of the workspace and their modules: `fs` is in `base`.
    crates: BTreeMap<String, String>,
}

struct Module {
    file: PathBuf,
    /// Absolute paths of what it uses, without the leading `crate`.
    uses: Vec<Name>,
    /// Names that it passes on, and where they come from.
    exports: BTreeMap<String, Name>,
    /// Modules of which it passes everything on.
    globs: Vec<Name>,
    /// Names that it passes on from other crates.
    foreign: BTreeSet<String>,
    /// Names that it defines.
    defines: BTreeSet<String>,
}

impl Sources {
    /// Reads all modules under `src`; `change` may alter the text of a file, as a test of the test does.
    pub fn read(src: &Path, change: impl Fn(&Path, String) -> String) -> Self {
        let mut files = Vec::new();
        super::walk(src, "rs", &mut files);
        let (mut modules, mut crates) = (BTreeMap::new(), BTreeMap::new());
        for file in files {
            let inside = file.strip_prefix(src).expect("a file of the sources");
            let mut name: Name = inside
                .with_extension("")
                .iter()
                .map(|part| part.to_string_lossy().into_owned())
                .collect();
            if name.iter().any(|part| part == "tests") {
                continue;
            }
            if name.last().is_some_and(|last| last == "mod" || last == "lib") {
                name.pop();
            }
            let text = fs::read_to_string(&file).expect("a source file");
            let text = change(inside, text);
            if name.is_empty() {
                crates = crates_of(&text);
            }
            let module = Module::parse(&text, &name, inside);
            modules.insert(name, module);
        }
        Self { modules, crates }
    }

    /// The arrows between the modules directly under `src`, and to crates of the workspace: who imports whom.
    pub fn rooms(&self) -> BTreeMap<String, BTreeSet<String>> {
        let tops: BTreeSet<&String> = self.modules.keys().filter_map(|name| name.first()).collect();
        let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, module) in &self.modules {
            let Some(from) = name.first() else { continue };
            let to = arrows.entry(from.clone()).or_default();
            let used = module.uses.iter().filter_map(|path| path.first());
            let used = used.filter_map(|top| self.crates.get(top).or_else(|| tops.get(top).copied()));
            to.extend(used.filter(|top| *top != from).cloned());
        }
        arrows
    }

    /// The arrows between files, but those from a file to the module that it is a child of.
    pub fn files(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut arrows: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for (name, module) in &self.modules {
            let to = arrows.entry(&module.file).or_default();
            for path in &module.uses {
                let Some(found) = self.resolve(path, 0) else { continue };
                let is_parent = name.split_last().is_some_and(|(_, parent)| parent == found.as_slice());
                if found != *name && !is_parent {
                    to.insert(&self.modules[&found].file);
                }
            }
        }
        arrows
    }

    /// The module that defines what a path means.
    fn resolve(&self, path: &[String], depth: usize) -> Option<Name> {
        let length = (0..=path.len())
            .rev()
            .find(|&n| self.modules.contains_key(&path[..n]))?;
        let (name, rest) = path.split_at(length);
        let module = &self.modules[name];
        let own = || Some(name.to_vec());
        let Some(item) = rest.first() else { return own() };
        if module.foreign.contains(item) || (name.is_empty() && self.crates.contains_key(item)) {
            return None;
        }
        if depth > 8 || module.defines.contains(item) {
            return own();
        }
        if let Some(origin) = module.exports.get(item) {
            return self.resolve(origin, depth + 1).or_else(own);
        }
        let globbed = module.globs.iter().find(|glob| {
            let found = self.modules.get(*glob);
            found.is_some_and(|found| found.defines.contains(item))
        });
        match globbed {
            Some(glob) => Some(glob.clone()),
            None => own(),
        }
    }
}

impl Module {
    fn parse(text: &str, name: &Name, file: &Path) -> Self {
        let tokens = without_tests(&tokens(text));
        let mut module = Self {
            file: file.to_path_buf(),
            uses: Vec::new(),
            exports: BTreeMap::new(),
            globs: Vec::new(),
            foreign: BTreeSet::new(),
            defines: BTreeSet::new(),
        };
        let children: BTreeSet<&String> = tokens
            .windows(3)
            .filter(|three| three[0] == "mod" && three[2] == ";")
            .map(|three| &three[1])
            .collect();
        let mut at = 0;
        while at < tokens.len() {
            let token = tokens[at].as_str();
            let begins = tokens.get(at + 1).is_some_and(|next| next == "::") && (at == 0 || tokens[at - 1] != "::");
            match token {
                // `pub(in crate::x)` says who may use it.
                "in" if at > 0 && tokens[at - 1] == "(" => at += 2,
                // `use<'a>` lists what a type captures.
                "use" if tokens.get(at + 1).is_none_or(|next| next != "<") => {
                    let public = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
                    let mut paths = Vec::new();
                    at = use_tree(&tokens, at + 1, &mut Vec::new(), &mut paths);
                    for (path, known_as) in paths {
                        let Some(path) = absolute(&path, name, &children) else {
                            if public {
                                module.foreign.insert(known_as);
                            }
                            continue;
                        };
                        // What a module passes on from a child is no use of it, unless it uses it itself.
                        let passed_on = public && path.starts_with(name);
                        if !passed_on || tokens.iter().filter(|token| **token == known_as).count() > 1 {
                            module.uses.push(path.clone());
                        }
                        if public && known_as == "*" {
                            module.globs.push(path);
                        } else if public {
                            module.exports.insert(known_as, path);
                        }
                    }
                }
                word if begins && (["crate", "super", "self"].contains(&word) || children.contains(&tokens[at])) => {
                    let mut path = vec![token.to_owned()];
                    while tokens.get(at + 1).is_some_and(|next| next == "::")
                        && tokens.get(at + 2).is_some_and(|next| is_word(next))
                    {
                        path.push(tokens[at + 2].clone());
                        at += 2;
                    }
                    module.uses.extend(absolute(&path, name, &children));
                    at += 1;
                }
                "struct" | "enum" | "fn" | "const" | "trait" | "type" | "static" | "union" => {
                    if let Some(defined) = tokens.get(at + 1).filter(|next| is_word(next)) {
                        module.defines.insert(defined.clone());
                    }
                    at += 1;
                }
                _ => at += 1,
            }
        }
        module
    }
}

/// What a crate's root names of other crates of the workspace: `use wmtp_base::fs` gives `fs`, in `base`.
fn crates_of(text: &str) -> BTreeMap<String, String> {
    let tokens = tokens(text);
    let mut found = BTreeMap::new();
    for at in 0..tokens.len() {
        if tokens[at] == "use" {
            let mut paths = Vec::new();
            use_tree(&tokens, at + 1, &mut Vec::new(), &mut paths);
            found.extend(paths.into_iter().filter_map(|(path, known_as)| {
                let name = path.first()?.strip_prefix("wmtp_")?;
                Some((known_as, name.to_owned()))
            }));
        }
    }
    found
}

fn is_word(token: &str) -> bool {
    token.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// `super::x` in the module `a::b` is `a::x`. None for a path of another crate or of a name that was
/// imported: that import is seen where it stands.
fn absolute(path: &[String], module: &Name, children: &BTreeSet<&String>) -> Option<Name> {
    let mut base: Option<Name> = None;
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        match (first.as_str(), &mut base) {
            ("crate", None) => base = Some(Vec::new()),
            ("self", None) => base = Some(module.clone()),
            ("super", None) => base = Some(module[..module.len().saturating_sub(1)].to_vec()),
            ("super", Some(base)) => drop(base.pop()),
            _ => break,
        }
        rest = tail;
    }
    if base.is_none() && !path.first().is_some_and(|first| children.contains(first)) {
        return None;
    }
    let mut name = base.unwrap_or_else(|| module.clone());
    name.extend(rest.iter().filter(|part| *part != "*" && *part != "self").cloned());
    Some(name)
}

/// Reads a use tree from `at` on; every leaf is a path and the name that it gets.
fn use_tree(tokens: &[String], mut at: usize, prefix: &mut Vec<String>, out: &mut Vec<(Vec<String>, String)>) -> usize {
    let depth = prefix.len();
    let mut known_as = None;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    let inner = prefix.len();
                    at = use_tree(tokens, at, prefix, out);
                    prefix.truncate(inner);
                    if tokens.get(at).is_some_and(|token| token == ",") {
                        at += 1;
                    }
                }
                prefix.truncate(depth);
                return at + 1;
            }
            "::" => at += 1,
            "as" => {
                known_as = tokens.get(at + 1).cloned();
                at += 2;
            }
            "," | "}" | ";" => break,
            word => {
                prefix.push(word.to_owned());
                at += 1;
            }
        }
    }
    if prefix.len() > depth || depth > 0 {
        let last = prefix.last().cloned().unwrap_or_default();
        let last = if last == "self" {
            prefix.get(prefix.len().saturating_sub(2)).cloned().unwrap_or_default()
        } else {
            last
        };
        out.push((prefix.clone(), known_as.unwrap_or(last)));
    }
    prefix.truncate(depth);
    at
}

/// Words, `::` and single characters, without comments, strings and character literals.
pub fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut out: Vec<String> = Vec::new();
    let mut i = 0;
    let is = |i: usize, c: char| chars.get(i) == Some(&c);
    while let Some(&c) = chars.get(i) {
        if c == '/' && is(i + 1, '/') {
            while i < chars.len() && !is(i, '\n') {
                i += 1;
            }
        } else if c == '/' && is(i + 1, '*') {
            while i < chars.len() && !(is(i, '*') && is(i + 1, '/')) {
                i += 1;
            }
            i += 2;
        } else if c == '"' {
            i += 1;
            while i < chars.len() && !is(i, '"') {
                i += if is(i, '\\') { 2 } else { 1 };
            }
            i += 1;
            out.push("\"\"".into());
        } else if c == 'r' && (is(i + 1, '"') || (is(i + 1, '#') && (is(i + 2, '"') || is(i + 2, '#')))) {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            i += hashes + 2;
            while i < chars.len() && !(is(i, '"') && (1..=hashes).all(|n| is(i + n, '#'))) {
                i += 1;
            }
            i += hashes + 1;
            out.push("\"\"".into());
        } else if c == '\'' && (is(i + 1, '\\') || is(i + 2, '\'')) {
            i += if is(i + 1, '\\') { 3 } else { 2 };
            while i < chars.len() && !is(i, '\'') {
                i += 1;
            }
            i += 1;
        } else if c.is_alphanumeric() || c == '_' {
            let end = (i..chars.len()).find(|&j| !(chars[j].is_alphanumeric() || chars[j] == '_'));
            let end = end.unwrap_or(chars.len());
            out.push(chars[i..end].iter().collect());
            i = end;
        } else if c == ':' && is(i + 1, ':') {
            out.push("::".into());
            i += 2;
        } else {
            if !c.is_whitespace() {
                out.push(c.into());
            }
            i += 1;
        }
    }
    out
}

/// Leaves out every item under `#[cfg(test)]`.
pub fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut at = 0;
    let starts = |at: usize| {
        let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
        mark.iter()
            .enumerate()
            .all(|(n, word)| tokens.get(at + n).is_some_and(|token| token == word))
    };
    while at < tokens.len() {
        if !starts(at) {
            out.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += 7;
        let mut depth = 0usize;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.as_str() {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    out
}

/// Groups of nodes each of which can be reached from every other one of its group, larger than one.
pub fn circles<T: Ord + Copy>(arrows: &BTreeMap<T, BTreeSet<T>>) -> Vec<Vec<T>> {
    let reach = |from: T| {
        let mut seen = BTreeSet::new();
        let mut left: Vec<T> = arrows.get(&from).into_iter().flatten().copied().collect();
        while let Some(node) = left.pop() {
            if seen.insert(node) {
                left.extend(arrows.get(&node).into_iter().flatten().copied());
            }
        }
        seen
    };
    let reached: BTreeMap<T, BTreeSet<T>> = arrows.keys().map(|&node| (node, reach(node))).collect();
    let mut groups: Vec<Vec<T>> = Vec::new();
    for (&node, seen) in &reached {
        let group: Vec<T> = seen
            .iter()
            .copied()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(&node)))
            .collect();
        if group.len() > 1 && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}
