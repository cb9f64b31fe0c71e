//! The parameters of a file's kernels, read from its text.

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Address,
    U32,
    U64,
    F32,
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: String,
    /// The type as it is written, without `__restrict__`.
    pub(super) ty: String,
    pub(super) kind: Kind,
}

/// A kernel and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) kernel: String,
    pub(super) parameters: Vec<Parameter>,
}

impl Signature {
    /// A function of C by which the kernel is called with the addresses of its arguments.
    pub(super) fn wrapper(&self) -> String {
        let arguments: Vec<String> = (self.parameters.iter().enumerate())
            .map(|(i, p)| format!("*static_cast<{}*>(arguments[{i}])", p.ty))
            .collect();
        let (kernel, arguments) = (&self.kernel, arguments.join(", "));
        let visible = "__attribute__((visibility(\"default\")))";
        format!("extern \"C\" {visible} void mllm4rec_call_{kernel}(void** arguments) {{ {kernel}({arguments}); }}\n")
    }
}

/// The signatures of all kernels of a file, or what is wrong with one in words.
pub(super) fn signatures(text: &str) -> Result<Vec<Signature>, String> {
    let text = without_comments(text);
    let tokens = tokens(&text);
    (tokens.iter().enumerate().filter(|&(_, &token)| token == "__global__"))
        .map(|(i, _)| signature(&tokens, i))
        .collect()
}

/// The signature of the kernel whose `__global__` is token `global`.
fn signature(tokens: &[&str], global: usize) -> Result<Signature, String> {
    if global < 2 || tokens[global - 2..global] != ["extern", "\"C\""] {
        return Err("a kernel begins with `extern \"C\" __global__`".to_owned());
    }
    let mut rest = tokens[global + 1..].iter().copied();
    let mut kernel = "";
    while let Some(token) = rest.next() {
        match token {
            "__launch_bounds__" => drop(rest.by_ref().take_while(|&t| t != ")").count()),
            "(" => break,
            token => kernel = token,
        }
    }
    let list: Vec<&str> = rest.take_while(|&t| t != ")").collect();
    let parameters =
        list.split(|&t| t == ",").filter(|p| !p.is_empty()).map(|p| parameter(kernel, p)).collect::<Result<_, _>>()?;
    Ok(Signature { kernel: kernel.to_owned(), parameters })
}

fn parameter(kernel: &str, tokens: &[&str]) -> Result<Parameter, String> {
    let (name, ty) = tokens.split_last().expect("empty parts were left out");
    let ty: Vec<&str> = ty.iter().copied().filter(|&t| t != "__restrict__").collect();
    let unqualified: Vec<&str> = ty.iter().copied().filter(|&t| t != "const").collect();
    let kind = match unqualified.as_slice() {
        types if types.contains(&"*") => Kind::Address,
        ["u32" | "unsigned"] | ["unsigned", "int"] => Kind::U32,
        ["u64"] | ["unsigned", "long", "long"] => Kind::U64,
        ["float"] => Kind::F32,
        _ => {
            let ty = ty.join(" ");
            return Err(format!(
                "parameter `{name}` of kernel `{kernel}` is `{ty}`: kernels take pointers, u32, u64 and float"
            ));
        }
    };
    Ok(Parameter { name: (*name).to_owned(), ty: ty.join(" "), kind })
}

fn without_comments(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, comment) = rest.split_at(at);
        kept.push_str(before);
        rest = if comment.starts_with("//") {
            comment.find('\n').map_or("", |end| &comment[end..])
        } else if comment.starts_with("/*") {
            comment.find("*/").map_or("", |end| &comment[end + 2..])
        } else {
            kept.push('/');
            &comment[1..]
        };
    }
    kept + rest
}

/// Words, texts in quotes and single signs.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let end = if word(first) {
            rest.find(|c| !word(c))
        } else if first == '"' {
            rest[1..].find('"').map(|end| end + 2)
        } else {
            Some(first.len_utf8())
        };
        let (token, behind) = rest.split_at(end.unwrap_or(rest.len()));
        tokens.push(token);
        rest = behind.trim_start();
    }
    tokens
}
