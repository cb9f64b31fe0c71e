#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::Error;
use crate::job::Split;
use crate::store::Store;

fn footer() -> Footer {
    Footer {
        job: "demo-0123".into(),
        spec_digest: "ab".repeat(32),
        model_digest: Some("cd".into()),
        attempt: "a1".into(),
    }
}

fn round_trip<R: Row + PartialEq + std::fmt::Debug>(rows: &[R]) {
    let bytes = encode_part(rows, &footer()).unwrap();
    assert_eq!(bytes, encode_part(rows, &footer()).unwrap(), "the same rows give the same bytes");
    assert_eq!(decode_part::<R>(bytes.clone()).unwrap(), rows);
    let summary = read_summary("p", R::TABLE, bytes).unwrap();
    assert_eq!(summary, Summary { footer: footer(), rows: rows.len() as u64 });
}

fn ids() -> impl Strategy<Value = Vec<String>> {
    vec("[a-zé0-9 ,\"]{0,8}", 0..6)
}

fn splits() -> impl Strategy<Value = Split> {
    select(Split::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn histories_come_back(rows in vec((".{0,6}", ids(), vec(any::<i64>(), 0..5)), 0..20)) {
        let row = |(user_id, items, times)| HistoryRow { user_id, items, times };
        round_trip(&rows.into_iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn items_come_back(rows in vec((".{0,6}", ".{0,6}", option::of(".{0,6}"), ".{0,6}"), 0..20)) {
        let row = |(item_id, title, image, attributes)| ItemRow { item_id, title, image, attributes };
        round_trip(&rows.into_iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn captions_come_back(
        rows in vec((".{0,6}", ".{0,6}", select(CaptionStatus::ALL.to_vec()), option::of(".{0,6}")), 0..20),
    ) {
        let row = |(item_id, caption, status, model): (_, _, _, Option<String>)| {
            CaptionRow { item_id, caption, status, reason: model.clone(), image_sha256: model.clone(), model }
        };
        round_trip(&rows.into_iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn pictures_come_back(
        rows in vec((".{0,6}", option::of(".{0,6}"), option::of(0u64..99), select(CaptionStatus::ALL.to_vec())), 0..20),
    ) {
        let row = |(item_id, location, bytes, status): (_, Option<String>, _, _)| {
            PictureRow { item_id, image_sha256: location.clone(), reason: location.clone(), location, bytes, status }
        };
        round_trip(&rows.into_iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn candidates_come_back(
        rows in vec((".{0,6}", splits(), option::of(0u32..9), ids(), vec(-9f32..9.0, 0..5)), 0..20),
    ) {
        let row = |(user_id, split, position, items, scores)| CandidateRow { user_id, split, position, items, scores };
        round_trip(&rows.into_iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn rankings_come_back(rows in vec((".{0,6}", splits(), ids(), vec((-9f32..9.0, 0u32..99), 0..5)), 0..20)) {
        let row = |(user_id, split, items, numbers): (_, _, _, Vec<(f32, u32)>)| RankingRow {
            user_id,
            split,
            items,
            scores: numbers.iter().map(|n| n.0).collect(),
            probabilities: numbers.iter().map(|n| n.0 / 9.0).collect(),
            retriever_ranks: numbers.iter().map(|n| n.1).collect(),
        };
        round_trip(&rows.into_iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn small_tables_come_back(rows in vec((".{0,6}", splits(), 0u32..1 << 31, option::of(0u64..1 << 40)), 0..20)) {
        let rank = |(user_id, split, rank, _): &(String, Split, u32, _)| {
            TargetRankRow { user_id: user_id.clone(), split: *split, rank: *rank }
        };
        round_trip(&rows.iter().map(rank).collect::<Vec<_>>());
        let rejected = |(file, _, _, line): &(String, _, _, Option<u64>)| {
            RejectedRow {
                file: file.clone(),
                line: *line,
                reason: "no number".into(),
                item_id: line.map(|_| file.clone()),
                users: *line,
                user_id: line.map(|_| file.clone()),
            }
        };
        round_trip(&rows.iter().map(rejected).collect::<Vec<_>>());
        let metric = |(name, split, k, users): &(String, Split, u32, Option<u64>)| MetricRow {
            split: *split,
            population: "overall".into(),
            system: "ranker".into(),
            metric: name.clone(),
            k: *k,
            value: f64::from(*k) / 7.0,
            low: 0.0,
            high: 1.0,
            users: users.unwrap_or(0),
        };
        round_trip(&rows.iter().map(metric).collect::<Vec<_>>());
    }
}

#[test]
fn more_rows_than_one_batch_come_back() {
    let row =
        |u: u32| HistoryRow { user_id: format!("u{u:05}"), items: vec!["i".into(); u as usize % 4], times: vec![] };
    round_trip(&(0..10_000).map(row).collect::<Vec<_>>());
}

#[test]
fn a_part_of_another_table_names_file_table_and_column() {
    let rank = TargetRankRow { user_id: "u".into(), split: Split::Test, rank: 3 };
    for rows in [vec![rank], vec![]] {
        let bytes = encode_part(&rows, &footer()).unwrap();
        let error = decode_part_of::<HistoryRow>("s3://b/tables/histories/x/p.parquet", bytes).unwrap_err();
        assert!(matches!(&error, Error::Column { column, .. } if column == "items"), "{error}");
        let text = error.to_string();
        assert!(text.contains("s3://b/tables/histories/x/p.parquet") && text.contains("`histories`"), "{text}");
        assert!(text.contains("missing"), "{text}");
    }
}

/// A Parquet file as somebody else's program might write it.
fn foreign(columns: Vec<(&str, ArrayRef)>) -> Bytes {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

#[test]
fn wrong_types_values_and_nulls_are_named() {
    let users: ArrayRef = Arc::new(StringArray::from(vec!["u"]));
    let text = |s: &str| -> ArrayRef { Arc::new(StringArray::from(vec![s])) };
    let cases: [(ArrayRef, ArrayRef, &str); 3] = [
        (text("test"), Arc::new(Int64Array::from(vec![1])), "`rank` of table `target_ranks` is Int64 instead of"),
        (
            text("tset"),
            Arc::new(arrow::array::Int32Array::from(vec![1])),
            "`split` of table `target_ranks` holds the unknown value `tset` in row 0",
        ),
        (text("test"), Arc::new(arrow::array::Int32Array::from(vec![-1])), "holds -1, which must not be negative"),
    ];
    for (split, rank, expected) in cases {
        let bytes = foreign(vec![("user_id", users.clone()), ("split", split), ("rank", rank)]);
        let error = decode_part::<TargetRankRow>(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let null: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
    let rank: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1]));
    let bytes = foreign(vec![("user_id", null), ("split", text("test")), ("rank", rank)]);
    assert!(decode_part::<TargetRankRow>(bytes).unwrap_err().to_string().contains("holds a null"));
}

#[test]
fn broken_bytes_are_an_error_and_not_a_panic() {
    let row = |u: u32| HistoryRow { user_id: format!("u{u}"), items: vec![format!("i{u}")], times: vec![i64::from(u)] };
    let good = encode_part(&(0..300).map(row).collect::<Vec<_>>(), &footer()).unwrap();
    for bytes in [Bytes::new(), Bytes::from_static(b"PAR1"), good.slice(..good.len() / 2), good.slice(10..)] {
        let error = decode_part_of::<HistoryRow>("x.parquet", bytes).unwrap_err();
        assert!(matches!(&error, Error::Part { file, .. } if file == "x.parquet"), "{error}");
    }
}

#[test]
fn a_number_too_large_for_its_column_is_an_error() {
    let row = TargetRankRow { user_id: "u".into(), split: Split::Test, rank: u32::MAX };
    assert!(matches!(encode_part(&[row], &footer()), Err(Error::Column { .. })));
}

#[test]
fn part_names_are_read_back_and_nothing_else_is() {
    assert_eq!(part_name(7, 128), "part-00007-of-00128.parquet");
    assert_eq!(part_name_index("part-00007-of-00128.parquet"), Some((7, 128)));
    assert_eq!(part_name_index(&part_name(123_456, 200_000)), Some((123_456, 200_000)));
    for other in ["part-7-of-128.parquet", "part-00007-of-00128.parquet#1", "_SUCCESS", "part-00007.parquet"] {
        assert_eq!(part_name_index(other), None, "{other}");
    }
}

#[tokio::test]
async fn a_table_is_read_only_when_it_is_finished_and_whole() {
    let store = Store::over(Arc::new(object_store::memory::InMemory::new()), "memory://m");
    let rows: Vec<TargetRankRow> =
        (1..4).map(|rank| TargetRankRow { user_id: format!("u{rank}"), split: Split::Test, rank }).collect();
    for (i, row) in rows.iter().enumerate() {
        let bytes = encode_part(std::slice::from_ref(row), &footer()).unwrap();
        store.create(&format!("t/x/{}", part_name(u32::try_from(i).unwrap(), 3)), bytes).await.unwrap();
    }
    let unfinished = read_all::<TargetRankRow>(&store, "t/x").await.unwrap_err();
    assert!(matches!(unfinished, Error::Unfinished { .. }), "{unfinished}");
    store.create("t/x/_SUCCESS", Bytes::new()).await.unwrap();
    assert_eq!(read_all::<TargetRankRow>(&store, "t/x").await.unwrap(), rows);
    let reader = Reader::<TargetRankRow>::open(&store, "t/x").await.unwrap();
    assert_eq!((reader.len(), reader.part(1).await.unwrap()), (3, vec![rows[1].clone()]));
    let other = Reader::<RankingRow>::open(&store, "t/x").await.unwrap().part(0).await.unwrap_err();
    assert!(other.to_string().contains("memory://m/t/x/part-00000-of-00003.parquet"), "{other}");
    store.delete(&format!("t/x/{}", part_name(1, 3))).await.unwrap();
    let missing = read_all::<TargetRankRow>(&store, "t/x").await.unwrap_err();
    assert!(missing.to_string().contains("lacks part-00001-of-00003.parquet"), "{missing}");
}
