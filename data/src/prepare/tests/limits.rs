//! What a user is told when the input, the job or the machine will not do.

use arrow::array::AsArray;
use futures::StreamExt;

use super::*;
use crate::prepare::engine::Engine;
use crate::prepare::filter::in_order;
use crate::prepare::spool::{InteractionSpool, Time};

/// `users` users with the same `items` items each.
fn ratings(users: usize, items: usize) -> String {
    let mut text = "user,item,time\n".to_owned();
    for user in 0..users {
        for item in 0..items {
            writeln!(text, "u{user:06},i{:06},{}", (user * 7 + item * 13) % 1_000_003, (user * 31 + item * 17) % 9_973)
                .unwrap();
        }
    }
    text
}

#[test]
fn malformed_rows_are_put_aside_up_to_the_limit() {
    let folder = Folder::new();
    folder.write("ratings.csv", b"userId,movieId,rating,timestamp\n1,1,3,1\n1,2,3\n1,3,good,1\n1,4,3,now\n,5,3,1\n1, ,3,1\n1,\"7,3,1\n1,\xff,3,1\n1,8,inf,1\n1,2,3,2\n1,3,3,3\n");
    folder.write("movies.csv", "movieId,title,genres\n1,a,\n2,b,\n3,c,\n");
    let data = folder.dataset(Format::Movielens);
    let outcome = run(&data).unwrap();
    assert_eq!(outcome.lines(), ["1: 1 2 3"]);
    assert_eq!(
        outcome.rejected(),
        [
            ("ratings.csv", Some(3), "wrong number of fields"),
            ("ratings.csv", Some(4), "rating is not a number"),
            ("ratings.csv", Some(5), "time is not a number"),
            ("ratings.csv", Some(6), "empty user id"),
            ("ratings.csv", Some(7), "empty item id"),
            ("ratings.csv", Some(8), "quotation mark without an end"),
            ("ratings.csv", Some(9), "not UTF-8"),
            ("ratings.csv", Some(10), "rating is not a number"),
        ]
    );
    let run_at = |max_rejected| run_with(&data, &Limits { max_rejected, ..limits() });
    // 11 ratings and 3 titles are read.
    assert!(run_at(MaxRejected::Rows(8)).is_ok());
    assert!(run_at(MaxRejected::Share(8.0 / 14.0)).is_ok());
    let error = message(run_at(MaxRejected::Rows(7)));
    assert!(error.contains("8 of 9 rows") && error.contains("`limits.max_rejected` allows 7"), "{error}");
    let error = message(run_at(MaxRejected::Share(0.5)));
    assert!(error.contains("8 of 14 rows") && error.contains("allows 50%"), "{error}");
    assert!(error.contains("2 × rating is not a number (ratings.csv:4, ratings.csv:10)"), "{error}");
}

#[test]
fn missing_files_and_columns_are_named_with_what_is_there() {
    let folder = Folder::new();
    let data = folder.dataset(Format::Movielens);
    let error = message(run(&data));
    assert!(error.contains("ratings.csv") && error.contains("holds nothing"), "{error}");
    folder.write("ratings.csv", "userId,movie,rating,timestamp\n1,1,3,1\n");
    let error = message(run(&data));
    assert!(error.contains("movies.csv") && error.contains("holds ratings.csv"), "{error}");
    folder.write("movies.csv", "movieId,title,genres\n");
    let error = message(run(&data));
    assert!(error.contains("no column `movieId`") && error.contains("userId, movie, rating, timestamp"), "{error}");

    let mut table = folder.dataset(Format::Table);
    table.path = folder.path().join("ratings.csv").display().to_string();
    let error = message(run(&table));
    assert!(error.contains("no column `user` (`dataset.columns.user`)"), "{error}");
    table.path = "/nowhere/at/all".to_owned();
    let error = message(run(&table));
    assert!(error.contains("/nowhere/at/all") && error.contains("`dataset.path`"), "{error}");
    table.path = "s3://shop/log".to_owned();
    assert!(message(run(&table)).contains("s3://"));
}

#[test]
fn several_files_of_a_kind_are_not_guessed_between() {
    let folder = Folder::new();
    folder.write("ratings_Soap.csv", "U,A,5.0,3\nU,B,4.0,2\nU,C,1.0,1\n");
    folder.write("ratings_Toys.csv", "");
    for category in ["Soap", "Toys"] {
        let row = |id: &str| format!("{{'asin': '{id}', 'title': '{category} {id}'}}\n");
        folder.write(&format!("meta_{category}.json"), [row("A"), row("B"), row("C")].concat());
    }
    let mut data = folder.dataset(Format::Amazon2014);
    let error = message(run(&data));
    assert!(error.contains("ratings_Soap.csv, ratings_Toys.csv"), "{error}");
    data.path = folder.path().join("ratings_Soap.csv").display().to_string();
    assert_eq!(run(&data).unwrap().items[0].title, "Soap A");
    let files: Vec<String> = crate::prepare::input_files(&data).unwrap().into_iter().map(|f| f.name).collect();
    assert_eq!(files, ["ratings_Soap.csv", "meta_Soap.json"]);
}

#[test]
fn nothing_left_names_the_counts_and_the_keys() {
    let folder = Folder::new();
    folder.write("x.csv", "user,item,time\na,x,1\na,y,2\nb,x,1\nb,y,1\nc,x,1\n");
    let error = message(run(&folder.dataset(Format::Table)));
    assert!(error.contains("3 users, 2 items and 5 interactions before the filter, 0 after"), "{error}");
    assert!(error.contains("3 users have fewer than three items"), "{error}");
    assert!(error.contains("`dataset.min_interactions_per_user` = 1"), "{error}");
    for nothing in ["user,item,time\n", "user,item,time\na,x,noon\nb,y,soon\n"] {
        folder.write("x.csv", nothing);
        let all = Limits { max_rejected: MaxRejected::Share(1.0), ..limits() };
        let error = message(run_with(&folder.dataset(Format::Table), &all));
        assert!(error.contains("no row that could be read") && error.contains("`dataset.columns`"), "{error}");
        assert!(!error.contains("min_interactions"), "the filter has nothing to do with it: {error}");
    }
    let few = Limits { max_rejected: MaxRejected::Share(0.01), ..limits() };
    let error = message(run_with(&folder.dataset(Format::Table), &few));
    assert!(error.contains("2 of 2 rows") && !error.contains("raise the limit"), "{error}");
    folder.write("x.csv", "");
    assert!(matches!(run(&folder.dataset(Format::Table)), Err(Error::MissingColumn { .. })));
}

#[test]
fn a_gzip_stream_that_breaks_off_is_an_error() {
    let folder = Folder::new();
    let path =
        folder.write_gz("ratings.csv.gz", &format!("userId,movieId,rating,timestamp\n{}", "1,1,3,1\n".repeat(50_000)));
    let bytes = std::fs::read(&path).unwrap();
    folder.write("ratings.csv.gz", &bytes[..bytes.len() - 20]);
    folder.write("movies.csv", "movieId,title,genres\n1,a,\n");
    let error = message(run(&folder.dataset(Format::Movielens)));
    assert!(error.contains("ratings.csv.gz") && error.contains("line"), "{error}");
}

#[test]
fn small_memory_gives_the_same_result_or_names_its_key() {
    let folder = Folder::new();
    folder.write("x.csv", ratings(20_000, 20));
    let data = folder.dataset(Format::Table);
    let plenty = run(&data).unwrap();
    let run_in = |memory_bytes| run_with(&data, &Limits { memory_bytes, ..limits() });
    assert!(plenty == run_in(32 << 20).unwrap(), "memory changes the result");
    for mebibytes in [16, 8, 4, 2] {
        match run_in(mebibytes << 20) {
            Ok(outcome) => assert!(plenty == outcome, "{mebibytes} MiB change the result"),
            Err(error) => assert!(matches!(error, Error::Memory { .. }), "{mebibytes} MiB: {error:?}"),
        }
    }
    let error = run_in(64 << 10).unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error:?}");
    assert!(error.to_string().contains("`limits.memory`"), "{error}");
}

#[tokio::test]
async fn sorts_larger_than_the_memory_spill_to_the_folder() {
    let folder = Folder::new();
    let mut spool = InteractionSpool::create(folder.path()).unwrap();
    for row in 0..400_000_i64 {
        let id = format!("{:08}", row * 7_919 % 400_009);
        spool.push(&id, &id, Time::Micros(row)).unwrap();
    }
    spool.finish().unwrap();
    let engine = Engine::new(folder.path(), 12 << 20).unwrap();
    let rows = in_order(engine.open("interactions").await.unwrap()).unwrap();
    let mut batches = rows.execute_stream().await.unwrap();
    let (mut seen, mut spilled) = (0, 0);
    let mut last = String::new();
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        spilled = spilled.max(engine.spilled_bytes());
        for user in batch.column(0).as_string::<i32>().iter().flatten() {
            assert!(last.as_str() < user, "{last} comes before {user}");
            user.clone_into(&mut last);
            seen += 1;
        }
    }
    assert_eq!(seen, 400_000);
    assert!(spilled > 1 << 20, "{spilled} bytes were spilled");
}

#[test]
fn shards_are_ranges_of_users() {
    let folder = Folder::new();
    folder.write("x.csv", ratings(10, 3));
    let outcome = run(&Dataset { shard_users: 4, ..folder.dataset(Format::Table) }).unwrap();
    let sizes: Vec<usize> = outcome.shards.iter().map(Vec::len).collect();
    assert_eq!(sizes, [4, 4, 2]);
    assert_eq!(outcome.shards[1][0].user_id, "u000004");
}
