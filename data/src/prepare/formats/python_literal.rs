//! Reads a Python literal, as the Amazon metadata of 2014 writes one dict a line, into a JSON value.
//!
//! What `repr` prints of plain data is read: dicts, lists, tuples, sets, strings (both quotes, `u`, `b` and `r` prefixes, all
//! escapes, neighbours joined), numbers, `True`, `False`, `None`. Nothing is evaluated.

use serde_json::{Map, Number, Value};

/// Deeper nesting is refused instead of overflowing the stack; real metadata has three levels.
const MAX_DEPTH: u32 = 64;

/// Parses one literal; `None` if the text is anything else.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value(0)?;
    parser.skip_space();
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: u32) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        match self.rest.chars().next()? {
            '{' => self.dict_or_set(depth),
            '[' => self.sequence('[', ']', depth).map(Value::Array),
            '(' => self.parenthesised(depth),
            '-' | '+' | '.' | '0'..='9' => self.number(),
            '\'' | '"' => self.strings(),
            _ => self.word(),
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes `c` behind any space.
    fn take(&mut self, c: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn dict_or_set(&mut self, depth: u32) -> Option<Value> {
        self.take('{');
        let mut dict = Map::new();
        if self.take('}') {
            return Some(Value::Object(dict));
        }
        let first = self.value(depth + 1)?;
        if !self.take(':') {
            let mut set = vec![first];
            if self.take(',') {
                set.extend(self.until('}', depth)?);
            } else if !self.take('}') {
                return None;
            }
            return Some(Value::Array(set));
        }
        dict.insert(key(first)?, self.value(depth + 1)?);
        loop {
            let more = self.take(',');
            if self.take('}') {
                return Some(Value::Object(dict));
            }
            if !more {
                return None;
            }
            let name = key(self.value(depth + 1)?)?;
            if !self.take(':') {
                return None;
            }
            dict.insert(name, self.value(depth + 1)?);
        }
    }

    fn sequence(&mut self, open: char, close: char, depth: u32) -> Option<Vec<Value>> {
        self.take(open);
        self.until(close, depth)
    }

    /// Values with commas between them and perhaps one behind, up to `close`.
    fn until(&mut self, close: char, depth: u32) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        loop {
            if self.take(close) {
                return Some(values);
            }
            values.push(self.value(depth + 1)?);
            if !self.take(',') {
                return self.take(close).then_some(values);
            }
        }
    }

    /// A tuple, or one value in parentheses.
    fn parenthesised(&mut self, depth: u32) -> Option<Value> {
        self.take('(');
        if self.take(')') {
            return Some(Value::Array(Vec::new()));
        }
        let first = self.value(depth + 1)?;
        if self.take(')') {
            return Some(first);
        }
        if !self.take(',') {
            return None;
        }
        let mut tuple = vec![first];
        tuple.extend(self.until(')', depth)?);
        Some(Value::Array(tuple))
    }

    fn number(&mut self) -> Option<Value> {
        let part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        let digits = digits.replace('_', "");
        let digits = digits.strip_suffix('L').unwrap_or(&digits);
        if let Ok(whole) = digits.parse::<i64>() {
            return Some(Value::Number(whole.into()));
        }
        Number::from_f64(digits.parse().ok()?).map(Value::Number)
    }

    /// `True`, `False`, `None`, or a string with a prefix.
    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if rest.starts_with(['\'', '"']) && matches!(word, "u" | "U" | "b" | "B" | "r" | "R") {
            return self.strings();
        }
        self.rest = rest;
        match word {
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            "None" => Some(Value::Null),
            _ => None,
        }
    }

    /// One string, or several side by side, which Python joins.
    fn strings(&mut self) -> Option<Value> {
        let mut text = self.string()?;
        loop {
            self.skip_space();
            let body = self.rest.strip_prefix(['u', 'U', 'b', 'B', 'r', 'R']).unwrap_or(self.rest);
            if !body.starts_with(['\'', '"']) {
                return Some(Value::String(text));
            }
            text.push_str(&self.string()?);
        }
    }

    fn string(&mut self) -> Option<String> {
        let raw = self.rest.starts_with(['r', 'R']);
        self.rest = self.rest.strip_prefix(['u', 'U', 'b', 'B', 'r', 'R']).unwrap_or(self.rest);
        let quote = self.rest.chars().next()?;
        self.rest = &self.rest[1..];
        let mut text = String::new();
        loop {
            let plain = self.rest.find([quote, '\\'])?;
            text.push_str(&self.rest[..plain]);
            let special = self.rest[plain..].chars().next()?;
            self.rest = &self.rest[plain + 1..];
            if special == quote {
                return Some(text);
            }
            if raw {
                let next = self.rest.chars().next()?;
                text.extend(['\\', next]);
                self.rest = &self.rest[next.len_utf8()..];
            } else {
                self.escape(&mut text)?;
            }
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self, text: &mut String) -> Option<()> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        let plain = match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '\n' => return Some(()),
            '\\' | '\'' | '"' => c,
            'x' => char::from_u32(self.hex(2)?)?,
            'u' => self.utf16()?,
            'U' => char::from_u32(self.hex(8)?).unwrap_or(char::REPLACEMENT_CHARACTER),
            '0'..='7' => char::from_u32(self.octal(c)?)?,
            other => {
                text.push('\\');
                other
            }
        };
        text.push(plain);
        Some(())
    }

    /// A `\u` escape; two that form a surrogate pair are one character, a lone surrogate is none.
    fn utf16(&mut self) -> Option<char> {
        let high = self.hex(4)?;
        if (0xd800..0xdc00).contains(&high) && self.rest.starts_with("\\u") {
            let low = self.rest.get(2..6).and_then(|d| u32::from_str_radix(d, 16).ok()).unwrap_or(0);
            if (0xdc00..0xe000).contains(&low) {
                self.rest = &self.rest[6..];
                return char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            }
        }
        Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text = self.rest.get(..digits).filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()))?;
        self.rest = &self.rest[digits..];
        u32::from_str_radix(text, 16).ok()
    }

    fn octal(&mut self, first: char) -> Option<u32> {
        let mut value = first.to_digit(8)?;
        for _ in 0..2 {
            let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(8)) else { break };
            value = value * 8 + digit;
            self.rest = &self.rest[1..];
        }
        Some(value)
    }
}

/// The text of a dict's key.
fn key(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}
