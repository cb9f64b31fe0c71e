//! From a folder of pictures to a captions table: every item once, every picture described once, whatever it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use data::job::Stage;
use data::tables::{CaptionRow, CaptionStatus};
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Workshop, children};

/// A 24-bit BMP of some size that shows `seed`.
fn bmp(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let mut bytes = bmp_header(width, height, row * height);
    for i in 0..row * height {
        bytes.push(((i / 7).wrapping_mul(seed.wrapping_mul(2_654_435_761) | 1) >> 24) as u8);
    }
    bytes
}

fn bmp_header(width: u32, height: u32, pixels: u32) -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    for word in [54 + pixels, 0, 54, 40, width, height, 1 | 24 << 16, 0, pixels, 2835, 2835, 0, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The golden files' network with a tokenizer, as a user's checkpoint would lie there.
fn write_captioner(folder: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/blip2/model");
    std::fs::create_dir_all(folder).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(name), folder.join(name)).unwrap();
    }
    let words: BTreeMap<String, u32> = (0..160).map(|i| (format!("w{i}"), i)).collect();
    let tokenizer = serde_json::json!({"version": "1.0",
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"}});
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("preprocessor_config.json"), r#"{"size": {"height": 28, "width": 28}}"#).unwrap();
}

/// A shop of `items` items and the job that describes them.
fn write_shop(workshop: &Workshop, items: usize, settings: &str) -> String {
    let mut log = String::from("user,item,time\n");
    for (user, item) in (0..6).flat_map(|user| (0..items).map(move |item| (user, item))) {
        let _ = writeln!(log, "u{user},i{item:03},{}", user * items + item);
    }
    std::fs::write(workshop.path("log.csv"), log).unwrap();
    write_captioner(&workshop.path("captioner"));
    std::fs::create_dir_all(workshop.path("pictures")).unwrap();
    let text = format!(
        "schema_version = 1\nname = \"pictures\"\nstages = [\"prepare\", \"caption\"]\n\
         [dataset]\nformat = \"table\"\npath = {:?}\n[dataset.columns]\ntime = \"time\"\n\
         [captions]\nfrom = \"blip2\"\nmodel = {:?}\nimages = {:?}\nmax_tokens = 6\n{settings}\n",
        workshop.path("log.csv"),
        workshop.path("captioner"),
        workshop.path("pictures"),
    );
    let path = workshop.path("pictures.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn put(workshop: &Workshop, name: &str, bytes: &[u8]) {
    std::fs::write(workshop.path("pictures").join(name), bytes).unwrap();
}

/// Runs the job and gives its captions by item, and what the report says of them.
fn describe(
    workshop: &Workshop,
    job: &str,
    root: &str,
    more: &[&str],
) -> (BTreeMap<String, CaptionRow>, serde_json::Value) {
    let root = workshop.path(root);
    let arguments = ["run", job, "--json", "--root", root.to_str().unwrap()];
    let output = workshop.command(&[&arguments[..], more].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<CaptionRow> = JobOutputs::open(&root, said["job"].as_str().unwrap()).rows(Stage::Caption, None);
    let count = rows.len();
    let by_item: BTreeMap<String, CaptionRow> = rows.into_iter().map(|row| (row.item_id.clone(), row)).collect();
    assert_eq!(by_item.len(), count, "an item has two rows");
    (by_item, said["report"]["captions"].clone())
}

#[test]
fn every_item_has_a_row_and_every_picture_is_described_once() {
    let workshop = Workshop::open();
    let job = write_shop(&workshop, 40, "placeholder_share = 0.06\nshard_items = 8\nbatch_size = 4");
    for i in 0..30 {
        put(&workshop, &format!("i{i:03}.bmp"), &bmp(20 + i, 50 - i, i + 1));
    }
    put(&workshop, "i030.jpg", &bmp(20, 50, 1)); // that of i000, under another name
    put(&workshop, "i031.png", &bmp(40, 40, 99)[..2000]);
    put(&workshop, "i032.jpg", b"");
    put(&workshop, "i033.jpg", b"<html>not found</html>");
    put(&workshop, "i034.bmp", &bmp_header(60_000, 60_000, 0));
    for i in 35..38 {
        put(&workshop, &format!("i{i:03}.bmp"), &bmp(9, 9, 7));
    }
    put(&workshop, "i038.bmp", &bmp(1, 1, 5));

    let (rows, report) = describe(&workshop, &job, "one", &["--workers", "2"]);
    let status = |item: &str| (rows[item].status, rows[item].reason.clone().unwrap_or_default());
    assert_eq!(rows.len(), 40);
    for i in (0..31).chain([38]) {
        let row = &rows[&format!("i{i:03}")];
        assert_eq!(row.status, CaptionStatus::Ok, "{row:?}");
        assert!(row.caption.starts_with('w') && row.model.as_ref().unwrap().starts_with("captioner@"), "{row:?}");
    }
    assert_eq!(rows["i000"].caption, rows["i030"].caption);
    for item in ["i031", "i032", "i033"] {
        assert_eq!(status(item).0, CaptionStatus::Undecodable, "{item}: {}", status(item).1);
        assert!(!status(item).1.is_empty());
    }
    assert_eq!(status("i034").0, CaptionStatus::TooLarge, "{}", status("i034").1);
    assert_eq!(status("i036").0, CaptionStatus::Placeholder);
    assert_eq!((status("i039").0, rows["i039"].image_sha256.clone()), (CaptionStatus::Missing, None));
    assert_eq!(report["ok"], 32);
    // 30 and the pixel, and the four bad ones; neither the copy nor the placeholder.
    assert_eq!((report["described_pictures"].as_u64(), report["known_pictures"].as_u64()), (Some(35), Some(0)));

    // Another cut, batch and limit: the same captions, and nothing is looked at again but what was too large.
    let cut = ["--set", "captions.shard_items=16", "--set", "captions.batch_size=7"];
    for other in [&cut[..], &["--set", "captions.max_pixels=49000000"]] {
        let (again, report) = describe(&workshop, &job, "one", other);
        assert!(again.iter().all(|(item, row)| row.caption == rows[item].caption && row.status == rows[item].status));
        assert_eq!((report["described_pictures"].as_u64(), report["known_pictures"].as_u64()), (Some(1), Some(34)));
    }

    // Another root, one picture at a time.
    let (alone, _) = describe(&workshop, &job, "two", &["--set", "captions.batch_size=1"]);
    assert_eq!(alone, rows);

    // More pictures: only the new one is described, and the one that was too large is looked at again.
    put(&workshop, "i039.bmp", &bmp(33, 12, 77));
    let (more, report) = describe(&workshop, &job, "one", &[]);
    assert_eq!(more["i039"].status, CaptionStatus::Ok);
    assert_eq!(report["described_pictures"], 2);
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let workshop = Workshop::open();
    let job = write_shop(&workshop, 400, "shard_items = 64\nbatch_size = 8");
    for i in 0..400 {
        put(&workshop, &format!("i{i:03}.bmp"), &bmp(30 + i % 7, 30, i + 1));
    }
    let (wanted, _) = describe(&workshop, &job, "whole", &[]);
    let root = workshop.path("killed");
    let mut child = workshop.command(&["run", &job, "--root", root.to_str().unwrap()]).spawn().unwrap();
    let known = root.join("_control/v1/captions");
    while !known.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // The worker goes too, at once: it has no time to finish anything.
    for pid in children(&child) {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = files(&known);
    let (found, report) = describe(&workshop, &job, "killed", &[]);
    assert_eq!(found, wanted);
    // What was said stands as it was; every picture was described or remembered, and none is said twice.
    let after = files(&known);
    assert!(!before.is_empty() && before.iter().all(|(path, time)| after.get(path) == Some(time)));
    let counted = |what: &str| report[what].as_u64().unwrap();
    assert_eq!((after.len(), counted("described_pictures") + counted("known_pictures")), (400, 400));
}

/// The files below a folder, with the times of their last change.
fn files(folder: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path, entry.metadata().unwrap().modified().unwrap());
        }
    }
    found
}

/// A server on this machine that has one picture and counts what it is asked.
fn serve(picture: Vec<u8>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (mut lines, mut first) = (BufReader::new(&stream), String::new());
            lines.read_line(&mut first).unwrap();
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            count.fetch_add(1, Ordering::SeqCst);
            let (status, body) =
                if first.contains("/there") { ("200 OK", &picture[..]) } else { ("404 Not Found", &b"no"[..]) };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(body));
        }
    });
    (port, asked)
}

#[test]
fn pictures_named_by_url_are_downloaded_once() {
    let workshop = Workshop::open();
    let job = write_shop(&workshop, 8, "placeholder_share = 1.0");
    let (port, asked) = serve(bmp(30, 20, 3));
    let url = |item: usize| match item {
        0 | 1 => format!("http://127.0.0.1:{port}/there"),
        2 => format!("http://127.0.0.1:{port}/there?size=large"),
        3 => format!("http://127.0.0.1:{port}/gone"),
        4 => "http://169.254.169.254/latest/meta-data".to_owned(),
        5 => "ftp://example.com/x.jpg".to_owned(),
        _ => String::new(),
    };
    let mut log = String::from("user,item,time,picture\n");
    for (user, item) in (0..6).flat_map(|user| (0..8).map(move |item| (user, item))) {
        let _ = writeln!(log, "u{user},i{item:03},{item},{}", url(item));
    }
    std::fs::write(workshop.path("log.csv"), log).unwrap();
    let image = ["--set", "dataset.columns.image=picture"];
    // Nobody has a picture: that is a mistake in the job.
    let root = workshop.path("none").display().to_string();
    let output = workshop.command(&[&["run", job.as_str(), "--root", &root][..], &image].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{said}");
    assert!(said.contains("none of the 8 items has a picture") && said.contains("captions.fetch is off"), "{said}");

    put(&workshop, "i007.bmp", &bmp(20, 20, 5));
    let (rows, _) = describe(&workshop, &job, "off", &image);
    assert_eq!(rows["i007"].status, CaptionStatus::Ok);
    assert!(rows["i000"].reason.as_ref().unwrap().starts_with("not_fetched"), "{:?}", rows["i000"]);
    assert_eq!(asked.load(Ordering::SeqCst), 0);

    let hosts = format!("captions.fetch_allow_hosts=[\"127.0.0.1:{port}\"]");
    let on = [&image[..], &["--set", "captions.fetch=true", "--set", &hosts]].concat();
    let (rows, report) = describe(&workshop, &job, "on", &on);
    for item in ["i000", "i001", "i002"] {
        assert_eq!((rows[item].status, &rows[item].caption), (CaptionStatus::Ok, &rows["i000"].caption));
    }
    let reason = |item: &str| rows[item].reason.clone().unwrap();
    assert!(reason("i003").starts_with("not_found"), "{}", reason("i003"));
    assert!(reason("i004").starts_with("refused_address"), "{}", reason("i004"));
    assert!(reason("i005").starts_with("bad_url"), "{}", reason("i005"));
    assert!(reason("i006").starts_with("no_file"), "{}", reason("i006"));
    // The download, and the picture of the folder.
    assert_eq!((report["described_pictures"].as_u64(), asked.load(Ordering::SeqCst)), (Some(2), 3));

    // Another setting makes another table, and nothing is asked for again.
    let more = [&on[..], &["--set", "captions.placeholder_share=0.9"]].concat();
    let (again, _) = describe(&workshop, &job, "on", &more);
    assert_eq!((again, asked.load(Ordering::SeqCst)), (rows, 3));
}

#[test]
fn what_is_wrong_with_a_captioner_is_said_before_anything_runs() {
    let workshop = Workshop::open();
    let job = write_shop(&workshop, 8, "");
    let refused = |more: &[&str]| {
        let output = workshop.command(&[&["validate", &job][..], more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["--set", "captions.images=/nowhere/at/all"]).contains("captions.images"));
    assert!(refused(&["--set", "captions.model=/nowhere/at/all"]).contains("captions.model"));
    assert!(refused(&["--set", "captions.max_tokens=100"]).contains("captions.max_tokens is 100"));
    assert!(refused(&["--set", "captions.placeholder_sha256=[\"xyz\"]"]).contains("no SHA-256"));
    let config = workshop.path("captioner").join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"opt\"", "\"t5\"")).unwrap();
    let said = refused(&[]);
    assert!(said.contains("t5 decoder") && said.contains("blip2-flan-t5"), "{said}");
}
