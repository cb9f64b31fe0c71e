//! Every layout, read from small invented files.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};
use parquet::arrow::ArrowWriter;

use super::*;

#[test]
fn movielens_reads_ratings_and_titles() {
    let folder = Folder::new();
    folder.write(
        "ratings.csv",
        "userId,movieId,rating,timestamp\n7,10,4.0,30\n7,20,3.5,10\n7,30,1.0,20\n7,40,5.0,40\n7,9,5.0,40\n7,10,4.0,5\n",
    );
    folder.write(
        "movies.csv",
        "\u{feff}movieId,title,genres\r\n10,\"Lantern, The (Laterne, Die) (1931)\",Drama|War\r\n20,Crème (1999),Comedy\r\n\
         30,\"A \"\"Quoted\"\" Day (2001)\",(no genres listed)\r\n9,Nine,Drama\r\n10,Twice (2000),Drama\r\n",
    );
    let outcome = run(&Dataset { min_rating: 2.0, ..folder.dataset(Format::Movielens) }).unwrap();
    // 30 is rated too low, 40 has no title, 10 was used at 5 for the first time.
    assert_eq!(outcome.lines(), ["7: 10 20 9"]);
    assert_eq!(outcome.shards[0][0].times, [5_000_000, 10_000_000, 40_000_000]);
    let items: Vec<_> =
        outcome.items.iter().map(|i| (i.item_id.as_str(), i.title.as_str(), i.attributes.as_str())).collect();
    assert_eq!(
        items,
        [
            ("10", "The Lantern (1931)", r#"{"genres":["Drama","War"]}"#),
            ("20", "Crème (1999)", r#"{"genres":["Comedy"]}"#),
            ("9", "Nine", r#"{"genres":["Drama"]}"#),
        ]
    );
    assert_eq!(outcome.rejected(), [("movies.csv", Some(6), "duplicate item id")]);
    let counts = outcome.counts;
    assert_eq!((counts.below_min_rating, counts.without_title, counts.duplicates), (1, 1, 1));
}

#[test]
fn equal_times_are_ordered_by_item_in_byte_order() {
    let folder = Folder::new();
    folder.write("x.csv", "user,item,time\nu,b,1\nu,é,1\nu,B,1\nu,10,1\nu,9,1\n");
    assert_eq!(run(&folder.dataset(Format::Table)).unwrap().lines(), ["u: 10 9 B b é"]);
}

#[test]
fn amazon_2014_reads_python_literals() {
    let folder = Folder::new();
    folder.write("ratings_Soap.csv", "U1,A1,5.0,3\nU1,A2,4.0,2\nU1,A3,1.0,1\nU1,A4,1.0,9\n");
    folder.write_gz(
        "meta_Soap.json.gz",
        "{'asin': 'A1', 'title': \"Bar's\\tsoap\", 'imUrl': 'http://x/1.jpg', 'price': 2.5, 'related': {'also_bought': ['A2']}}\n\
         {'asin': 'A2', 'title': 'Caf\\xe9 soap', 'categories': [['Bath', 'Soap']], 'brand': ''}\n\
         {'asin': 'A3', 'title': u'Third', 'brand': 'B'}\n\
         {'asin': 'A4', 'brand': 'untitled'}\n\
         {'asin': 'A5', 'title': open('x')}\n",
    );
    let outcome = run(&folder.dataset(Format::Amazon2014)).unwrap();
    assert_eq!(outcome.lines(), ["U1: A3 A2 A1"]);
    assert_eq!(outcome.items[0].title, "Bar's soap");
    assert_eq!(outcome.items[0].image.as_deref(), Some("http://x/1.jpg"));
    assert_eq!(outcome.items[0].attributes, r#"{"price":2.5}"#);
    assert_eq!(outcome.items[1].title, "Café soap");
    assert_eq!(outcome.items[1].attributes, r#"{"categories":[["Bath","Soap"]]}"#);
    assert_eq!(outcome.counts.without_title, 1);
    assert_eq!(outcome.rejected(), [("meta_Soap.json.gz", Some(5), "not a Python literal")]);
}

#[test]
fn amazon_2018_reads_json_lines() {
    let folder = Folder::new();
    let review = |item: &str, time: u32| {
        format!(
            "{{\"reviewerID\":\"U\",\"asin\":\"{item}\",\"overall\":4.0,\"unixReviewTime\":{time},\"reviewText\":\"so\"}}\n"
        )
    };
    let reviews =
        [review("g3", 30), review("g1", 10), review("g2", 20), "{\"overall\":1}\n".to_owned(), "oops\n".to_owned()];
    folder.write_gz("Games.json.gz", &reviews.concat());
    folder.write(
        "meta_Games.json",
        "{\"asin\":\"g1\",\"title\":\"One\",\"imageURL\":[\"s.jpg\"],\"imageURLHighRes\":[\"l.jpg\"],\"brand\":\"X\"}\n\
         {\"asin\":\"g2\",\"title\":\"Two\",\"imageURL\":[\"only.jpg\"],\"imageURLHighRes\":[]}\n\
         {\"asin\":\"g3\",\"title\":\"Three\"}\n",
    );
    let outcome = run(&folder.dataset(Format::Amazon2018)).unwrap();
    assert_eq!(outcome.lines(), ["U: g1 g2 g3"]);
    assert_eq!(outcome.shards[0][0].times[0], 10_000_000);
    let images: Vec<_> = outcome.items.iter().map(|i| i.image.as_deref()).collect();
    assert_eq!(images, [Some("l.jpg"), Some("only.jpg"), None]);
    assert_eq!(
        outcome.rejected(),
        [("Games.json.gz", Some(4), "no user id"), ("Games.json.gz", Some(5), "not a JSON object")]
    );
}

#[test]
fn amazon_2023_reads_parents_milliseconds_and_main_images() {
    let folder = Folder::new();
    let review = |item: &str, time: u64| {
        format!(
            "{{\"user_id\":\"U\",\"asin\":\"variant\",\"parent_asin\":\"{item}\",\"rating\":5,\"timestamp\":{time}}}\n"
        )
    };
    folder.write(
        "Toys.jsonl",
        [review("t2", 1_600_000_000_123), review("t1", 1_600_000_000_122), review("t3", 1_700_000_000_000)].concat(),
    );
    let images = r#"[{"variant":"PT01","large":"side.jpg"},{"variant":"MAIN","hi_res":null,"large":"front.jpg","thumb":"t.jpg"}]"#;
    folder.write(
        "meta_Toys.jsonl",
        format!(
            "{{\"parent_asin\":\"t1\",\"title\":\"T  1\",\"images\":{images},\"store\":\"S\"}}\n\
             {{\"parent_asin\":\"t2\",\"title\":\"T2\",\"images\":[]}}\n{{\"parent_asin\":\"t3\",\"title\":\"T3\"}}\n"
        ),
    );
    let outcome = run(&folder.dataset(Format::Amazon2023)).unwrap();
    assert_eq!(outcome.lines(), ["U: t1 t2 t3"]);
    assert_eq!(outcome.shards[0][0].times[1], 1_600_000_000_123_000);
    assert_eq!((outcome.items[0].title.as_str(), outcome.items[0].image.as_deref()), ("T 1", Some("front.jpg")));
    assert_eq!(outcome.items[0].attributes, r#"{"store":"S"}"#);
}

#[test]
fn sequences_keep_untitled_items_under_their_id() {
    let folder = Folder::new();
    folder.write("user_sequence.txt", "u2 c a b\nu1\ta b  c d\nu2 a b c\nlonely\n\nu3 a b a c\n");
    folder.write("titles.tsv", "a\tApple\nb\t\nno tab\na\tAgain\n");
    folder.write("README.txt", "not a sequence");
    let outcome = run(&folder.dataset(Format::Sequences)).unwrap();
    assert_eq!(outcome.lines(), ["u1: a b c d", "u2: c a b", "u3: a b c"]);
    assert_eq!(outcome.shards[0][2].times, [0, 1, 3]);
    let titles: Vec<_> = outcome.items.iter().map(|i| i.title.as_str()).collect();
    assert_eq!(titles, ["Apple", "b", "c", "d"]);
    assert_eq!((outcome.counts.untitled_items, outcome.counts.duplicates), (3, 1));
    assert_eq!(
        outcome.rejected(),
        [
            ("titles.tsv", Some(3), "wrong number of fields"),
            ("titles.tsv", Some(4), "duplicate item id"),
            ("user_sequence.txt", Some(3), "user is listed twice"),
            ("user_sequence.txt", Some(4), "a user without items"),
        ]
    );
}

#[test]
fn table_reads_named_columns_of_a_csv() {
    let folder = Folder::new();
    folder.write(
        "log.csv",
        "when,who,what,stars,name\n2024-03-01T00:00:00Z,ann,x,5,Ex\n2024-01-01,ann,y,5,\"Why\nnot\"\n2024-02-01 10:00:00,ann,z,2,Zed\n\
         2024-02-02,ann,w,5,\nnever,ann,v,5,Vee\n2024-02-03,ann,v\n,ann,x,5,Ex\n",
    );
    let mut dataset = dataset(Format::Table, &folder.path().join("log.csv"));
    dataset.columns = Columns {
        user: "who".to_owned(),
        item: "what".to_owned(),
        time: Some("when".to_owned()),
        title: Some("name".to_owned()),
        image: None,
        rating: Some("stars".to_owned()),
    };
    let outcome = run(&dataset).unwrap();
    assert_eq!(outcome.lines(), ["ann: y z x"]);
    assert_eq!(outcome.shards[0][0].times[0], 1_704_067_200_000_000);
    assert_eq!(outcome.items[1].title, "Why not");
    assert_eq!(outcome.counts.without_title, 1);
    assert_eq!(
        outcome.rejected(),
        [
            ("log.csv", Some(7), "time is neither a number nor a date"),
            ("log.csv", Some(8), "wrong number of fields"),
            ("log.csv", Some(9), "time is neither a number nor a date"),
        ]
    );
}

#[test]
fn table_tells_the_unit_of_numbers_from_the_column() {
    for (unit, factor) in [(1, 1_000_000), (1_000, 1_000), (1_000_000, 1)] {
        let folder = Folder::new();
        let times = [1_700_000_000_i64 * unit, 3 * unit, 1_600_000_000 * unit];
        folder
            .write("x.tsv", format!("user\titem\ttime\nu\ta\t{}\nu\tb\t{}\nu\tc\t{}\n", times[0], times[1], times[2]));
        let outcome = run(&folder.dataset(Format::Table)).unwrap();
        assert_eq!(outcome.shards[0][0].items, ["b", "c", "a"]);
        assert_eq!(outcome.shards[0][0].times, [3 * unit * factor, 1_600_000_000_000_000, 1_700_000_000_000_000]);
    }
}

#[test]
fn table_reads_parquet_of_any_plain_type() {
    let folder = Folder::new();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "time",
            Arc::new(TimestampMillisecondArray::from(vec![Some(30), Some(20), Some(10), None]).with_timezone("UTC")),
        ),
        ("item", Arc::new(Int32Array::from(vec![3, 20, 100, 5]))),
        ("user", Arc::new(Float64Array::from(vec![Some(7.0), Some(7.0), Some(7.0), Some(7.0)]))),
        ("ignored", Arc::new(StringArray::from(vec!["a", "b", "c", "d"]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(folder.path().join("part-0.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    folder.write("_SUCCESS", "");
    let outcome = run(&folder.dataset(Format::Table)).unwrap();
    assert_eq!(outcome.lines(), ["7: 100 20 3"]);
    assert_eq!(outcome.shards[0][0].times, [10_000, 20_000, 30_000]);
    assert_eq!(outcome.rejected(), [("part-0.parquet", Some(4), "time is neither a number nor a date")]);
}

#[test]
fn table_without_times_takes_the_order_of_the_rows() {
    let folder = Folder::new();
    folder.write("b.csv", "user,item\nu,c\n");
    folder.write_gz("a.csv.gz", "user,item\nu,z\nu,a\n");
    let mut dataset = folder.dataset(Format::Table);
    dataset.columns.time = None;
    assert_eq!(run(&dataset).unwrap().lines(), ["u: z a c"]);
}
