//! Attention over packed sequences: causal, full and across, each alone and behind a shared prefix.

mod by_heads;

use mllm4rec_kernels::Segments;
use mllm4rec_kernels::attention::{self, Mask, Operands, PrefixGradient, Shape};

use crate::oracle::{Operand, Oracle, Outcome};
use by_heads::{Seen, by_heads};

/// Lengths of sequences. 65 and 130 are longer than one and two blocks of query rows.
const LENGTHS: [&[usize]; 4] = [&[1], &[3, 0, 5], &[65, 1, 2], &[130]];

/// More sequences than the parts in which the gradient of a prefix is summed.
const MANY: &[usize] = &[2, 1, 0, 3, 1, 1, 4, 1, 2, 1, 1, 5, 1, 0, 2, 1, 1, 3];

/// Lengths of queries and of the keys that they look at. Every case has more keys than queries somewhere and fewer
/// elsewhere; in all but the first, some queries have no keys and some keys no queries.
const ACROSS: [(&[usize], &[usize]); 3] =
    [(&[1, 4], &[6, 3]), (&[3, 2, 0, 5], &[4, 0, 3, 1]), (&[65, 2, 0, 130], &[2, 0, 5, 67])];

/// Rows of a prefix that leave the first block unfinished, and that are more than one block.
const PREFIXES: [usize; 3] = [1, 7, 67];

#[test]
fn sequences_with_themselves() -> Outcome {
    LENGTHS.into_iter().try_for_each(|lengths| compare_own(lengths, 0))
}

#[test]
fn sequences_with_others() -> Outcome {
    ACROSS.into_iter().try_for_each(|(queries, keys)| compare_across(queries, keys, 0))
}

#[test]
fn sequences_with_themselves_behind_a_prefix() -> Outcome {
    for prefix in PREFIXES {
        LENGTHS.into_iter().chain([MANY]).try_for_each(|lengths| compare_own(lengths, prefix))?;
    }
    Ok(())
}

/// Queries without keys of their own see the prefix alone.
#[test]
fn sequences_with_others_behind_a_prefix() -> Outcome {
    for prefix in PREFIXES {
        ACROSS.into_iter().try_for_each(|(queries, keys)| compare_across(queries, keys, prefix))?;
    }
    Ok(())
}

/// One head, grouped heads, and heads of which no lane is full.
fn shapes() -> impl Iterator<Item = Shape> {
    let shapes = [(1, 1, 1), (4, 2, 6), (3, 1, 17)];
    shapes.into_iter().map(|(heads, kv_heads, head_dim)| Shape { heads, kv_heads, head_dim })
}

/// Causal and full.
fn compare_own(lengths: &[usize], prefix: usize) -> Outcome {
    let segments = Segments::from_lengths(lengths.iter().copied());
    for mask in [Mask::Causal(&segments), Mask::Full(&segments)] {
        shapes().try_for_each(|shape| compare(mask, prefix, &shape))?;
    }
    Ok(())
}

fn compare_across(queries: &[usize], keys: &[usize], prefix: usize) -> Outcome {
    let (queries, keys) = (queries.iter().copied(), keys.iter().copied());
    let (queries, keys) = (Segments::from_lengths(queries), Segments::from_lengths(keys));
    shapes().try_for_each(|shape| compare(Mask::Cross { queries: &queries, keys: &keys }, prefix, &shape))
}

/// Compares the results and all gradients behind a prefix of some rows; 0 is none.
fn compare(mask: Mask<'_>, prefix: usize, shape: &Shape) -> Outcome {
    let (queries, keys) = by_heads::segments(mask);
    let operand = |seed: u64, rows: usize, heads: usize| Operand::noise(seed, &[rows, heads * shape.head_dim]);
    let key_operand = |seed, rows| operand(seed, rows, shape.kv_heads);
    let (q, k, v) =
        (operand(1, queries.rows(), shape.heads)?, key_operand(2, keys.rows())?, key_operand(3, keys.rows())?);
    let (prefix_k, prefix_v) = (key_operand(4, prefix)?, key_operand(5, prefix)?);

    let plain = Operands::new(&q.ours, &k.ours, &v.ours, mask);
    let operands = if prefix > 0 { plain.with_prefix(&prefix_k.ours, &prefix_v.ours) } else { plain };
    let seen =
        Seen { k: &k.theirs, v: &v.theirs, prefix: (prefix > 0).then_some((&prefix_k.theirs, &prefix_v.theirs)) };
    let y = by_heads(&q.theirs, &seen, mask, shape)?;
    // Every key of the prefix sums over all queries that read its head.
    let terms = (prefix + keys.rows()).max(queries.rows() * shape.heads / shape.kv_heads).max(shape.head_dim);
    let oracle = Oracle::new((mask, prefix, shape), y, terms)?;

    let (out, saved) = attention::forward(&operands, shape)?;
    oracle.result(&out)?;
    let (mut prefix_dk, mut prefix_dv) = (prefix_k.ones()?, prefix_v.ones()?);
    let asked = (prefix > 0).then_some(PrefixGradient { dk: &mut prefix_dk, dv: &mut prefix_dv });
    let (dq, dk, dv) = attention::backward(&oracle.dy, &operands, &out, &saved, shape, asked)?;
    oracle.gradient("dq", &dq, &q)?;
    oracle.gradient("dk", &dk, &k)?;
    oracle.gradient("dv", &dv, &v)?;
    if prefix > 0 {
        oracle.added("prefix dk", &prefix_dk, &prefix_k)?;
        oracle.added("prefix dv", &prefix_dv, &prefix_v)?;
    }
    Ok(())
}
