//! Children that decode, and children that misbehave.
//!
//! Without the usual harness: this program is also the child (`child`), and a harness would write to its standard output.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mllm4rec_worker::decoders::{
    DecoderCommand, DecoderLimits, Decoders, DecodersError, Look, Refusal, Request, Thumb, serve, serve_with,
};
use model::captioner::picture::{Alpha, Class, Orientation, Picture};

const LOOK: Look = Look { side: 8, alpha: Alpha::OverWhite, orientation: Orientation::Apply };

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("child") => return child(&args[1]),
        // What a harness would be asked before it runs anything.
        Some("--list") => return ExitCode::SUCCESS,
        _ => {}
    }
    let tests: [(&str, fn()); 12] = [
        ("pictures_come_back_in_order", pictures_come_back_in_order),
        ("bad_pictures_are_refused_by_the_child", bad_pictures_are_refused_by_the_child),
        ("a_panic_costs_one_picture", a_panic_costs_one_picture),
        ("a_death_costs_one_picture", a_death_costs_one_picture),
        ("memory_is_bounded", memory_is_bounded),
        ("a_hang_ends_in_time", a_hang_ends_in_time),
        ("a_child_killed_from_outside_is_replaced", a_child_killed_from_outside_is_replaced),
        ("garbage_is_no_answer", garbage_is_no_answer),
        ("a_talkative_child_does_not_block", a_talkative_child_does_not_block),
        ("programs_that_are_no_decoders_are_named", programs_that_are_no_decoders_are_named),
        ("children_end_with_their_parent", children_end_with_their_parent),
        ("no_child_is_left", no_child_is_left),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// The child, as the test asks for it.
fn child(kind: &str) -> ExitCode {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    match kind {
        "good" => serve(stdin.lock(), stdout.lock()),
        "wicked" => serve_with(stdin.lock(), stdout.lock(), wicked),
        "garbage" => {
            let _ = stdout.lock().write_all(&[0xA5; 100_000]);
            let _ = stdin.lock().read_to_end(&mut Vec::new());
            ExitCode::SUCCESS
        }
        "silent" => ExitCode::from(3),
        other => panic!("no child is called {other}"),
    }
}

/// Does what the file says; anything else is a picture of one colour.
fn wicked(request: &Request) -> Result<Thumb, Refusal> {
    match request.bytes.as_slice() {
        b"panic" => panic!("as asked"),
        b"abort" => std::process::abort(),
        b"exit" => std::process::exit(7),
        b"hang" => std::thread::sleep(Duration::from_secs(600)),
        b"overflow" => drop(std::hint::black_box(deeper(1))),
        b"memory" => drop(std::hint::black_box(vec![1_u8; 3 << 30])),
        b"garbage" => std::io::stdout().write_all(&[0xA5; 100]).unwrap(),
        b"talk" => (0..20_000).for_each(|i| eprintln!("{i}: a line that nobody reads")),
        _ => {}
    }
    let side = request.look.side;
    let colour = request.bytes.first().copied().unwrap_or(0);
    Ok(Thumb { picture: Picture::new(side, side, vec![colour; side * side * 3]).unwrap(), width: 1, height: 1 })
}

#[allow(unconditional_recursion)]
fn deeper(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    room[3] + deeper(depth + 1)
}

fn command(kind: &str) -> DecoderCommand {
    DecoderCommand {
        program: std::env::current_exe().unwrap().into_os_string(),
        args: vec!["child".into(), kind.into()],
    }
}

fn start(kind: &str, count: usize, limits: DecoderLimits) -> Decoders {
    Decoders::start(command(kind), count, limits).unwrap()
}

/// What one wicked child makes of files; the last is always good and must come back.
fn after(file: &[u8], limits: DecoderLimits) -> Refusal {
    let decoders = start("wicked", 1, limits);
    let mut answers = decoders.decode_all(&[b"1", file, b"2"], LOOK).unwrap();
    assert_eq!(answers.pop().unwrap().unwrap().picture.rgb()[0], b'2', "the picture behind it is not affected");
    let refusal = answers.pop().unwrap().unwrap_err();
    assert_eq!(answers.pop().unwrap().unwrap().picture.rgb()[0], b'1');
    refusal
}

/// A 24-bit BMP of one colour.
fn bmp(width: u32, height: u32, colour: u8) -> Vec<u8> {
    let row = (width as usize * 3).next_multiple_of(4);
    let pixels = vec![colour; row * height as usize];
    let mut file = b"BM".to_vec();
    file.extend(54_u32.wrapping_add(pixels.len() as u32).to_le_bytes());
    file.extend([0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0]);
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    file.extend(pixels);
    file
}

fn pictures_come_back_in_order() {
    let decoders = start("good", 3, DecoderLimits::default());
    let files: Vec<Vec<u8>> = (0..60).map(|i| bmp(i % 9 + 1, i % 7 + 1, i as u8 * 4)).collect();
    for _ in 0..2 {
        let answers = decoders.decode_all(&files, LOOK).unwrap();
        assert_eq!(answers.len(), files.len());
        for (i, answer) in (0_u32..).zip(answers) {
            let thumb = answer.unwrap();
            assert_eq!((thumb.width, thumb.height), (i % 9 + 1, i % 7 + 1));
            assert_eq!(thumb.picture.rgb(), [i as u8 * 4; 192]);
        }
    }
    assert!(decoders.decode_all::<Vec<u8>>(&[], LOOK).unwrap().is_empty());
}

fn bad_pictures_are_refused_by_the_child() {
    let mut limits = DecoderLimits::default();
    limits.picture.bytes = 1000;
    limits.picture.pixels = 50;
    let decoders = start("good", 2, limits);
    let files =
        [Vec::new(), b"<html>".to_vec(), vec![b'B'; 1001], bmp(8, 8, 1), bmp(7, 7, 1)[..100].to_vec(), bmp(7, 7, 9)];
    let answers = decoders.decode_all(&files, LOOK).unwrap();
    let reasons: Vec<&str> = answers.iter().map(|a| a.as_ref().map_or_else(|e| e.reason.as_str(), |_| "ok")).collect();
    assert_eq!(reasons, ["empty", "unknown_format", "too_many_bytes", "too_many_pixels", "truncated", "ok"]);
    assert_eq!(answers[3].as_ref().unwrap_err().class, Class::TooLarge);
    assert_eq!(answers[4].as_ref().unwrap_err().class, Class::Undecodable);
    assert!(answers[3].as_ref().unwrap_err().sentence.contains("8 x 8"));
}

fn a_panic_costs_one_picture() {
    assert_eq!(after(b"panic", DecoderLimits::default()).reason, "decoder_panicked");
}

fn a_death_costs_one_picture() {
    let abort = after(b"abort", DecoderLimits::default());
    assert_eq!(abort.reason, "decoder_died");
    let exit = after(b"exit", DecoderLimits::default());
    assert!(exit.sentence.contains("exit code 7"), "{}", exit.sentence);
    assert_eq!(after(b"overflow", DecoderLimits::default()).reason, "decoder_died");
    if cfg!(unix) {
        assert!(abort.sentence.contains("signal 6"), "{}", abort.sentence);
    }
}

fn memory_is_bounded() {
    if cfg!(target_os = "linux") {
        let refusal = after(b"memory", DecoderLimits::default());
        assert_eq!(refusal.reason, "decoder_died", "{}", refusal.sentence);
        // A real picture within the limits of pictures, in a child that is too small for it.
        let decoders = start("good", 1, DecoderLimits { memory_bytes: 96 << 20, ..DecoderLimits::default() });
        let mut large = bmp(6000, 5000, 0);
        large.truncate(10 << 20);
        let answers = decoders.decode_all(&[large, bmp(3, 3, 7)], LOOK).unwrap();
        assert_eq!(answers[0].as_ref().unwrap_err().reason, "decoder_died");
        assert!(answers[1].is_ok());
    }
}

fn a_hang_ends_in_time() {
    let begin = Instant::now();
    let limits = DecoderLimits { time: Duration::from_millis(700), ..DecoderLimits::default() };
    let refusal = after(b"hang", limits);
    assert_eq!(refusal.reason, "timeout");
    assert!(refusal.sentence.contains("700ms"), "{}", refusal.sentence);
    assert!(begin.elapsed() < Duration::from_secs(60));
}

/// Children of this process, by the system's list of processes.
fn children() -> Vec<i32> {
    let me = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // "pid (name) state parent ..."; a name may hold spaces and brackets.
        let Some((_, behind)) = stat.rsplit_once(')') else { continue };
        if behind.split_whitespace().nth(1) == Some(me.as_str()) {
            found.extend(entry.file_name().to_string_lossy().parse::<i32>());
        }
    }
    found
}

#[cfg(target_os = "linux")]
fn a_child_killed_from_outside_is_replaced() {
    let kill = || {
        children()
            .into_iter()
            .for_each(|pid| assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().is_ok()))
    };
    let decoders = start("wicked", 1, DecoderLimits { time: Duration::from_secs(60), ..DecoderLimits::default() });
    let answers = std::thread::scope(|scope| {
        let answers = scope.spawn(|| decoders.decode_all(&[&b"hang"[..], b"2"], LOOK).unwrap());
        std::thread::sleep(Duration::from_millis(500));
        kill();
        answers.join().unwrap()
    });
    let refusal = answers[0].as_ref().unwrap_err();
    assert!(refusal.sentence.contains("signal 9"), "{}", refusal.sentence);
    assert!(answers[1].is_ok());
    // Between two pictures it is nobody's fault.
    kill();
    std::thread::sleep(Duration::from_millis(200));
    assert!(decoders.decode_all(&[b"3"], LOOK).unwrap()[0].is_ok());
}

#[cfg(not(target_os = "linux"))]
fn a_child_killed_from_outside_is_replaced() {}

fn garbage_is_no_answer() {
    let refusal = after(b"garbage", DecoderLimits::default());
    assert_eq!(refusal.reason, "decoder_died");
    assert!(refusal.sentence.contains("no frame"), "{}", refusal.sentence);
    let error = Decoders::start(command("garbage"), 1, DecoderLimits::default()).err().unwrap();
    assert!(matches!(error, DecodersError::NotADecoder { .. }), "{error}");
}

fn a_talkative_child_does_not_block() {
    let decoders = start("wicked", 1, DecoderLimits { time: Duration::from_secs(60), ..DecoderLimits::default() });
    assert!(decoders.decode_all(&[b"talk"], LOOK).unwrap()[0].is_ok());
}

fn programs_that_are_no_decoders_are_named() {
    let missing = DecoderCommand { program: "/no/such/program".into(), args: Vec::new() };
    let error = Decoders::start(missing, 1, DecoderLimits::default()).err().unwrap();
    assert!(error.to_string().starts_with("cannot start the picture decoder /no/such/program"), "{error}");
    let error = Decoders::start(command("silent"), 1, DecoderLimits::default()).err().unwrap();
    assert!(error.to_string().contains("exit code 3"), "{error}");
}

/// When a parent goes, its end of the pipe closes.
fn children_end_with_their_parent() {
    let DecoderCommand { program, args } = command("good");
    let mut child = std::process::Command::new(program).args(args).stdin(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// Behind all the tests above: neither running children nor dead ones that nobody has collected.
fn no_child_is_left() {
    assert_eq!(children(), Vec::<i32>::new());
}
