//! Which instructions the vector code uses: the widest that the processor has, or fewer if `MLLM4REC_SIMD` says so.

use std::sync::LazyLock;

/// The variable of the environment that asks for fewer instructions, for tests of what other processors do.
const VARIABLE: &str = "MLLM4REC_SIMD";

/// Sets of instructions, each of which has those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Instructions {
    /// The baseline of the target.
    Portable,
    /// AVX2 and fused multiply-add.
    Avx2,
    /// The AVX-512 subset that [`super::vectorised`] uses.
    Avx512,
}

/// The set for the life of the process; the environment is read once.
pub(super) fn chosen() -> Instructions {
    static CHOSEN: LazyLock<Instructions> = LazyLock::new(|| {
        let (widest, asked) = (widest(), std::env::var_os(VARIABLE));
        choose(asked.as_ref().map(|a| a.to_string_lossy()).as_deref(), widest).unwrap_or_else(|warning| {
            eprintln!("{warning}");
            widest
        })
    });
    *CHOSEN
}

/// What is asked for, or a warning if it is not known or not there; nothing asks for the widest.
pub(super) fn choose(asked: Option<&str>, widest: Instructions) -> Result<Instructions, String> {
    let wanted = match asked {
        None | Some("") => widest,
        Some("avx512") => Instructions::Avx512,
        Some("avx2") => Instructions::Avx2,
        Some("portable") => Instructions::Portable,
        Some(other) => {
            return Err(format!("{VARIABLE} is {other:?} and none of avx512, avx2, portable: using {widest:?}"));
        }
    };
    if wanted > widest {
        return Err(format!("{VARIABLE} asks for {wanted:?}, which this processor has not: using {widest:?}"));
    }
    Ok(wanted)
}

fn widest() -> Instructions {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Instructions::Avx512,
        (true, false) => Instructions::Avx2,
        _ => Instructions::Portable,
    }
}
