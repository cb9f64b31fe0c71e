//! Reads a TOML table key by key and collects every problem on the way.

use std::cell::RefCell;
use std::collections::BTreeMap;

use toml::{Table, Value};

use super::problem::{Problem, nearest};

/// Where the values of a job come from: the text of a file with overrides on top.
pub(super) struct Source {
    file: String,
    table: Table,
    lines: BTreeMap<String, usize>,
    overridden: Vec<String>,
    broken: bool,
    problems: RefCell<Vec<Problem>>,
}

impl Source {
    /// Parses `text` and lays `overrides` (`a.b=c`) over it.
    pub(super) fn parse(file: &str, text: &str, overrides: &[String]) -> Self {
        let mut source = Self {
            file: file.to_owned(),
            table: Table::new(),
            lines: BTreeMap::new(),
            overridden: Vec::new(),
            broken: false,
            problems: RefCell::default(),
        };
        match text.parse::<Table>() {
            Ok(table) => {
                source.table = table;
                source.lines = lines_of_keys(text);
            }
            Err(e) => {
                source.broken = true;
                let line = e.span().map(|span| line_at(text, span.start));
                source.push(Problem {
                    file: file.to_owned(),
                    line,
                    key: String::new(),
                    message: e.message().to_owned(),
                });
            }
        }
        for set in overrides {
            source.set(set);
        }
        source
    }

    /// Whether the text is no TOML at all.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The merged table.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// The top level of the file.
    pub(super) fn root(&self) -> Section<'_> {
        Section { source: self, path: String::new(), table: Some(&self.table), known: Vec::new() }
    }

    /// Reports that the value of `key` will not do.
    pub(super) fn report(&self, key: &str, message: impl Into<String>) {
        let set = self.overridden.iter().any(|o| o == key);
        self.push(Problem {
            file: if set { "--set".to_owned() } else { self.file.clone() },
            line: if set { None } else { self.line(key) },
            key: key.to_owned(),
            message: message.into(),
        });
    }

    /// Whether anything has been reported.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// All problems in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|a, b| (a.line.unwrap_or(0), &a.key).cmp(&(b.line.unwrap_or(0), &b.key)));
        problems
    }

    fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// The line of a key, or of the section that it is missing from.
    fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.lines.get(key) {
                return Some(*line);
            }
            key = key.rsplit_once('.')?.0;
        }
    }

    fn set(&mut self, text: &str) {
        let Some((key, value)) = text.split_once('=') else {
            self.report("--set", format!("`{text}` is not of the form key=value, for example retriever.dropout=0.4"));
            return;
        };
        let (key, value) = (key.trim(), value.trim());
        // What is not a TOML value is a string, so that paths and names need no quotes.
        let value = format!("v = {value}")
            .parse::<Table>()
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| Value::String(value.to_owned()));
        let (mut rest, mut table) = (key, &mut self.table);
        // A key of `[sweep]` may be written as one, dots and all.
        while let Some((part, below)) = rest.split_once('.').filter(|_| !table.contains_key(rest)) {
            rest = below;
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            match entry {
                Value::Table(inner) => table = inner,
                _ => {
                    self.report(key, format!("`{part}` is a value, not a section"));
                    return;
                }
            }
        }
        table.insert(rest.to_owned(), value);
        self.overridden.push(key.to_owned());
    }
}

/// One section of the file, from which known keys are taken one by one.
pub(super) struct Section<'a> {
    source: &'a Source,
    path: String,
    table: Option<&'a Table>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// A section below this one; an absent section reads as an empty one.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let path = self.path_of(key);
        let table = match self.value(key) {
            None => None,
            Some(Value::Table(table)) => Some(table),
            Some(other) => {
                self.source.report(&path, format!("is {}, expected a section", kind(other)));
                None
            }
        };
        Section { source: self.source, path, table, known: Vec::new() }
    }

    /// The value of a key, or `default` where it is absent or wrong.
    pub(super) fn get<T: FromToml>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value of a key that has no default; a placeholder stands in for a wrong one.
    pub(super) fn required<T: FromToml + Default>(&mut self, key: &'static str, why: &str) -> T {
        let present = self.value(key).is_some();
        let value = self.optional(key);
        if !present {
            self.report(key, format!("is missing: {why}"));
        }
        value.unwrap_or_default()
    }

    /// The value of a key that may be absent.
    pub(super) fn optional<T: FromToml>(&mut self, key: &'static str) -> Option<T> {
        match T::from_toml(self.value(key)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.report(key, message);
                None
            }
        }
    }

    /// The value of a key if it is a string; nothing is reported if it is something else.
    pub(super) fn optional_string(&mut self, key: &'static str) -> Option<String> {
        self.value(key)?.as_str().map(str::to_owned)
    }

    /// Whether a key is there with an empty text.
    pub(super) fn is_empty_string(&mut self, key: &'static str) -> bool {
        self.optional_string(key).is_some_and(|text| text.is_empty())
    }

    /// The keys that the file holds.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.table.into_iter().flat_map(Table::keys).map(String::as_str)
    }

    /// Whether a key is not in the file.
    pub(super) fn is_absent(&mut self, key: &'static str) -> bool {
        self.value(key).is_none()
    }

    /// A number within `range`, which is named when it is not.
    pub(super) fn number<T>(&mut self, key: &'static str, default: T, range: std::ops::RangeInclusive<T>) -> T
    where
        T: FromToml + PartialOrd + Copy + std::fmt::Display,
    {
        let value = self.get(key, default);
        if range.contains(&value) {
            return value;
        }
        self.report(key, format!("is {value}, allowed are {} to {}", range.start(), range.end()));
        default
    }

    /// One of a list of names.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &[(&'static str, T)]) -> T {
        let Some(name) = self.optional::<String>(key) else { return default };
        match choices.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => *value,
            None => {
                let names: Vec<&str> = choices.iter().map(|(n, _)| *n).collect();
                self.report(key, unknown_name(&name, &names));
                default
            }
        }
    }

    /// A list of names, each with its value.
    pub(super) fn choices<T: Copy>(
        &mut self,
        key: &'static str,
        default: &[T],
        choices: &[(&'static str, T)],
    ) -> Vec<T> {
        let Some(given) = self.optional::<Vec<String>>(key) else { return default.to_vec() };
        let names: Vec<&str> = choices.iter().map(|(n, _)| *n).collect();
        let mut values = Vec::new();
        for name in &given {
            match choices.iter().find(|(known, _)| known == name) {
                Some((_, value)) => values.push(*value),
                None => self.report(key, unknown_name(name, &names)),
            }
        }
        values
    }

    /// Reports that the value of a key of this section will not do.
    pub(super) fn report(&self, key: &str, message: impl Into<String>) {
        self.source.report(&self.path_of(key), message);
    }

    /// Reports every key that was never asked for.
    pub(super) fn finish(self) {
        for key in self.table.into_iter().flat_map(Table::keys) {
            if !self.known.iter().any(|known| known == key) {
                let hint = nearest(key, self.known.iter().copied()).map_or_else(
                    || format!("known keys are {}", self.known.join(", ")),
                    |n| format!("did you mean `{n}`?"),
                );
                self.report(key, format!("unknown key; {hint}"));
            }
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table?.get(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn unknown_name(given: &str, names: &[&str]) -> String {
    let hint = nearest(given, names.iter().copied()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
    format!("`{given}` is not one of {}{hint}", names.join(", "))
}

/// A type that a TOML value can be read as; the error says what was found and what is allowed.
pub(super) trait FromToml: Sized {
    fn from_toml(value: &Value) -> Result<Self, String>;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl FromToml for $t {
            fn from_toml(value: &Value) -> Result<Self, String> {
                match value {
                    Value::Integer(i) if *i < 0 => Err(format!("is {i}, but cannot be negative")),
                    Value::Integer(i) => <$t>::try_from(*i).map_err(|_| format!("is {i}, which is too large")),
                    other => Err(format!("is {}, expected a whole number", kind(other))),
                }
            }
        }
    )*};
}
integers!(u32, u64, usize);

impl FromToml for f64 {
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value {
            Value::Float(x) => Ok(*x),
            Value::Integer(i) => Ok(*i as f64),
            other => Err(format!("is {}, expected a number", kind(other))),
        }
    }
}

impl FromToml for bool {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("is {}, expected true or false", kind(value)))
    }
}

impl FromToml for String {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| format!("is {}, expected a string", kind(value)))
    }
}

impl FromToml for Vec<String> {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(|| format!("is {}, expected a list of strings", kind(value)))?;
        list.iter().map(String::from_toml).collect()
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::String(s) => format!("the string {s:?}"),
        Value::Integer(i) => format!("the number {i}"),
        Value::Float(x) => format!("the number {x}"),
        Value::Boolean(b) => format!("`{b}`"),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a section".to_owned(),
    }
}

/// The line of every key of a TOML text.
fn lines_of_keys(text: &str) -> BTreeMap<String, usize> {
    fn walk(text: &str, path: &str, table: &toml::de::DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            let full = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            lines.insert(full.clone(), line_at(text, key.span().start));
            if let toml::de::DeValue::Table(inner) = value.get_ref() {
                walk(text, &full, inner, lines);
            }
        }
    }
    let mut lines = BTreeMap::new();
    if let Ok(table) = toml::de::DeTable::parse(text) {
        walk(text, "", table.get_ref(), &mut lines);
    }
    lines
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}
