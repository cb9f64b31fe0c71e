//! What can go wrong in a model.

/// The result of loading or running a model.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A checkpoint holds a tensor of another shape than the configuration asks for.
    #[error(
        "tensor `{name}` has shape {found:?}, expected {expected:?}: the checkpoint belongs to another configuration"
    )]
    TensorShape {
        /// The tensor.
        name: String,
        /// Its shape in the checkpoint.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A checkpoint lacks a tensor.
    #[error("tensor `{name}` is missing from the checkpoint")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A checkpoint holds a tensor that the model does not know.
    #[error(
        "tensor `{name}` of the checkpoint is unknown to the model: the checkpoint belongs to another architecture"
    )]
    UnknownTensor {
        /// The tensor.
        name: String,
    },
    /// A checkpoint holds a tensor of a type that is not read.
    #[error("tensor `{name}` has type {found}, which is not supported; supported are F32, BF16, F16 and U8")]
    TensorType {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A weight is packed in a way that is not read.
    #[error(
        "weight `{name}` is quantised in a way that is not read: {what}; NF4 of bitsandbytes in blocks of 64 and 256 is, \
         and so are weights that are not quantised"
    )]
    Quantized {
        /// The weight.
        name: String,
        /// What is different.
        what: String,
    },
    /// A checkpoint that consists of pickle files.
    #[error(
        "{path} is a pickle file, which can run any program when it is read: it is never read here. Take the safetensors \
         files of the checkpoint, or write them with `save_pretrained(…, safe_serialization=True)` of transformers"
    )]
    Pickle {
        /// The file.
        path: String,
    },
    /// Bytes that should be a safetensors file are none.
    #[error("cannot read {what} as safetensors: {source}")]
    Safetensors {
        /// The file or part.
        what: String,
        /// What the reader says.
        source: safetensors::SafeTensorError,
    },
    /// A configuration cannot be read, or asks for something impossible.
    #[error("model configuration: {0}")]
    Config(String),
    /// The input does not fit the model, for example an item beyond the catalogue.
    #[error("model input: {0}")]
    Input(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A tokenizer cannot be read or cannot take a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A prompt template does not parse or does not render.
    #[error("prompt template: {0:#}")]
    Template(Box<minijinja::Error>),
    /// The labels of the candidates cannot be told apart behind the prompt.
    #[error("candidate labels: {0}")]
    Labels(String),
    /// A prompt does not fit even without any history.
    #[error(
        "the prompt of {who} has {tokens} tokens with {candidates} candidates and no history, the limit is {limit}: \
         raise ranker.max_prompt_tokens, or lower ranker.title_tokens, ranker.caption_tokens or retriever.candidates"
    )]
    PromptTooLong {
        /// Whose prompt.
        who: String,
        /// Its length without history.
        tokens: usize,
        /// The candidates in it.
        candidates: usize,
        /// The limit.
        limit: usize,
    },
    /// An adapter is broken, or belongs to another base.
    #[error("the adapter does not fit: {0}")]
    Adapter(String),
    /// An operation refused its operands.
    #[error(transparent)]
    Kernel(#[from] kernels::Error),
}
