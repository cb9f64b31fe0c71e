//! Splits one line of CSV into its fields.
//!
//! The logs of MovieLens and Amazon keep a record on one line. Splitting line by line means that a stray quotation mark costs
//! that line only, where a reader of whole files would swallow everything up to the next one.

use std::borrow::Cow;

use crate::input::Reason;

/// The fields of a line; `"` quotes a field and `""` stands for one inside it.
pub(super) fn split(line: &str) -> Result<Vec<Cow<'_, str>>, Reason> {
    let mut fields = Vec::with_capacity(4);
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (Cow::Borrowed(&rest[..end]), &rest[end..])
            }
        };
        fields.push(field);
        if after.is_empty() {
            return Ok(fields);
        }
        rest = after.strip_prefix(',').ok_or("text after a closing quotation mark")?;
    }
}

/// The field behind an opening quotation mark, and what follows its closing one.
fn quoted_field(text: &str) -> Result<(Cow<'_, str>, &str), Reason> {
    let mut from = 0;
    let mut doubled = false;
    loop {
        let at = from + text[from..].find('"').ok_or("quotation mark without an end")?;
        if !text[at + 1..].starts_with('"') {
            let field = &text[..at];
            let field = if doubled { Cow::Owned(field.replace("\"\"", "\"")) } else { Cow::Borrowed(field) };
            return Ok((field, &text[at + 1..]));
        }
        doubled = true;
        from = at + 2;
    }
}
