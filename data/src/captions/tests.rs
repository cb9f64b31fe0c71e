#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use parquet::arrow::ArrowWriter;

use super::*;
use crate::job::MaxRejected;
use crate::tables::ItemRow;

fn catalogue() -> Catalogue {
    let item =
        |id: &str| ItemRow { item_id: id.to_owned(), title: String::new(), image: None, attributes: "{}".to_owned() };
    Catalogue::new(vec![item("1"), item("2"), item("3")]).unwrap()
}

fn read(path: &Path) -> Result<Captions> {
    let limits = Limits { max_rejected: MaxRejected::Rows(1), memory_bytes: 0 };
    read_captions(path.to_str().unwrap(), &catalogue(), &limits)
}

fn captions(result: &Captions) -> Vec<(&str, &str, CaptionStatus)> {
    result.rows.iter().map(|r| (r.item_id.as_str(), r.caption.as_str(), r.status)).collect()
}

#[test]
fn every_item_gets_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("captions.csv");
    std::fs::write(&path, "caption,item_id\n a red boat ,3\n\"two, or\nthree\",1\nunknown,77\n,\n,2\n").unwrap();
    let result = read(&path).unwrap();
    assert_eq!(
        captions(&result),
        [
            ("1", "two, or three", CaptionStatus::Ok),
            ("2", "", CaptionStatus::Missing),
            ("3", "a red boat", CaptionStatus::Ok)
        ]
    );
    assert_eq!(result.unknown, 1);
    assert_eq!((result.rejected[0].line, result.rejected[0].reason.as_str()), (Some(6), "empty item id"));
    assert!(no_captions(&catalogue()).iter().all(|r| r.status == CaptionStatus::Missing));
}

#[test]
fn parquet_ids_may_be_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("captions.parquet");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("item_id", Arc::new(UInt64Array::from(vec![2, 1]))),
        ("caption", Arc::new(StringArray::from(vec![Some("a cat"), None]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let result = read(&path).unwrap();
    assert_eq!(captions(&result)[1], ("2", "a cat", CaptionStatus::Ok));
    assert_eq!(captions(&result)[0].2, CaptionStatus::Missing);
}

#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("captions.csv");
    let error = |text: &str| {
        std::fs::write(&path, text).unwrap();
        read(&path).unwrap_err().to_string()
    };
    let twice = error("item_id,caption\n1,a\n1,b\n");
    assert!(twice.contains("item `1`") && twice.contains("row 3"), "{twice}");
    let column = error("id,caption\n1,a\n");
    assert!(column.contains("no column `item_id` (`captions.table`)") && column.contains("id, caption"), "{column}");
    assert!(error("item_id,caption\n1\n2\n").contains("wrong number of fields"));
    let missing = read(&folder.path().join("none.csv")).unwrap_err().to_string();
    assert!(missing.contains("none.csv"), "{missing}");
}

#[test]
fn captions_of_an_earlier_job_are_carried_over_by_item() {
    let earlier = |id: &str, caption: &str| CaptionRow {
        model: Some("blip2@0".to_owned()),
        status: CaptionStatus::Ok,
        ..row(id, Some(caption.to_owned()))
    };
    let carried = carry_over(vec![earlier("3", "a hat"), earlier("1", "a coat"), earlier("9", "gone")], &catalogue());
    let expected =
        [("1", "a coat", CaptionStatus::Ok), ("2", "", CaptionStatus::Missing), ("3", "a hat", CaptionStatus::Ok)];
    assert_eq!(captions(&carried), expected);
    assert_eq!(carried.unknown, 1);
    assert_eq!(carried.rows[0].model.as_deref(), Some("blip2@0"));
    assert!(carried.rows[1].reason.as_deref().unwrap().starts_with("new_item: "));
}
