//! What the commands take, for whoever asks or asks wrongly.

use std::fmt::Write as _;

/// A command.
struct Command {
    /// What it is called: one word, or two for a bench.
    name: &'static str,
    takes: &'static str,
    does: &'static str,
}

const COMMANDS: [Command; 13] = [
    Command {
        name: "check",
        takes: "[--full]",
        does: "set up what tests need, then fmt, clippy, build and every test\n\
               --full: the tests that start processes three times more, for what shows rarely, and the long form of
               those that count (kills, commits, seeds)",
    },
    Command {
        name: "parity",
        takes: "[--seed N]",
        does: "have transformers, PEFT and bitsandbytes make rankers of another seed, compare ours with them, and have them\n\
               read what ours writes",
    },
    Command {
        name: "deny",
        takes: "",
        does: "ask cargo-deny for licences, sources and known faults of the dependencies; it is built first where there is none",
    },
    Command {
        name: "manifests",
        takes: "",
        does: "ask hadolint of the Dockerfile and checkov of every overlay in k8s/",
    },
    Command {
        name: "image",
        takes: "",
        does: "do the steps of the Dockerfile to a Debian from debootstrap, and run the program in that (as root)",
    },
    Command {
        name: "sanitize",
        takes: "",
        does: "run the kernels' tests under AddressSanitizer, on AVX-512, AVX2 and neither",
    },
    Command {
        name: "bench retriever",
        takes: "--data FOLDER [--json] [--rounds N] [--threads 1,2] [--only beauty|movielens]",
        does: "LRURec beside PyTorch twins; FOLDER holds amazon-beauty/user_sequence.txt and\nml-latest-small/ratings.csv",
    },
    Command {
        name: "bench nf4",
        takes: "[--json] [--rounds N] [--threads 1,2]",
        does: "four-bit weights beside bitsandbytes",
    },
    Command {
        name: "bench captioner",
        takes: "[--json] [--rounds N] [--threads N]",
        does: "BLIP-2 beside transformers",
    },
    Command {
        name: "bench ranker",
        takes: "[--json] [--rounds N] [--threads N]",
        does: "a small Llama with low-rank updates beside transformers and PEFT: training, scoring, memory",
    },
    Command {
        name: "bench gpu",
        takes: "[--device emulated --tiny] [--json FILE] [--markdown FILE] [--rounds N] [--only nf4,attention,…]",
        does: "kernels and models on cards beside PyTorch, bitsandbytes, transformers and PEFT",
    },
    Command {
        name: "gpu",
        takes: "[--out FOLDER]",
        does: "pack tests and benches for a machine with a card, CUDA 13 and PyTorch but no Rust:\n\
               FOLDER (target/gpu) gets mllm4rec-gpu.tar.gz and run.sh, which says how it is used",
    },
    Command {
        name: "demo",
        takes: "[ARGS]",
        does: "build the program and run its demo; `demo --help` says what it takes",
    },
];

/// The help that these arguments ask for, of one command or of all; none if they ask for something else. The demo's arguments
/// are the program's own.
pub(crate) fn asked(args: &[&str]) -> Option<String> {
    let (first, rest) = args.split_first()?;
    let asks = |arg: &&str| ["--help", "-h"].contains(arg);
    match *first {
        "demo" => None,
        "help" => Some(of(rest)),
        first if asks(&first) => Some(of(&[])),
        _ => rest.iter().any(asks).then(|| of(args)),
    }
}

/// What is wrong with arguments that no command takes, and what it takes, or which commands there are.
pub(crate) fn refusal(args: &[&str]) -> String {
    let Some(first) = args.first() else { return of(&[]) };
    let wrong = match named(args).as_slice() {
        [] => format!("there is no command `{first}`"),
        [command] => {
            let rest = &args[command.name.split(' ').count()..];
            format!("`{}` does not take `{}`", command.name, rest.join(" "))
        }
        _ if args.len() == 1 => format!("`{first}` wants to know which"),
        _ => format!("`{}` is none of these", args.join(" ")),
    };
    format!("error: {wrong}\n\n{}", of(args))
}

/// The commands that arguments begin with; several where they name no bench, or none that there is.
fn named(args: &[&str]) -> Vec<&'static Command> {
    let begins = |command: &&Command, words: usize| {
        let name: Vec<&str> = command.name.split(' ').take(words).collect();
        args.len() >= name.len() && args[..name.len()] == name
    };
    let whole: Vec<_> = COMMANDS.iter().filter(|command| begins(command, 2)).collect();
    if whole.is_empty() { COMMANDS.iter().filter(|command| begins(command, 1)).collect() } else { whole }
}

/// Of the commands that arguments name, or of all.
fn of(args: &[&str]) -> String {
    let commands = named(args);
    let commands = if commands.is_empty() { COMMANDS.iter().collect() } else { commands };
    let mut text = String::new();
    for Command { name, takes, does } in commands {
        let call = format!("cargo xtask {name} {takes}");
        let _ = writeln!(text, "{}", call.trim_end());
        for line in does.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_command_says_what_it_takes() {
        for Command { name, takes, .. } in COMMANDS.iter().filter(|command| command.name != "demo") {
            for flag in ["--help", "-h"] {
                let args: Vec<&str> = name.split(' ').chain(["--out", flag]).collect();
                let said = asked(&args).unwrap();
                assert!(said.starts_with(&format!("cargo xtask {name}")) && said.contains(takes), "{said}");
                assert_eq!(said.matches("cargo xtask").count(), 1, "{said}");
            }
        }
        assert_eq!(asked(&["bench", "--help"]).unwrap().matches("cargo xtask bench").count(), 5);
        for all in [asked(&["--help"]), asked(&["help"]), Some(refusal(&[]))] {
            assert_eq!(all.unwrap().matches("cargo xtask").count(), COMMANDS.len());
        }
        assert!(asked(&["help", "gpu"]).unwrap().starts_with("cargo xtask gpu"));
        for own in [&["demo", "--help"][..], &["check", "--full"], &[]] {
            assert_eq!(asked(own), None);
        }
    }

    #[test]
    fn what_no_command_takes_is_named() {
        let first = |args| refusal(args).lines().next().unwrap().to_owned();
        assert_eq!(first(&["check", "--ful"]), "error: `check` does not take `--ful`");
        assert_eq!(first(&["gpu", "--out"]), "error: `gpu` does not take `--out`");
        assert_eq!(first(&["bench", "gqu"]), "error: `bench gqu` is none of these");
        assert_eq!(first(&["bench"]), "error: `bench` wants to know which");
        assert_eq!(first(&["chekc"]), "error: there is no command `chekc`");
        assert!(refusal(&["check", "--ful"]).contains("for what shows rarely"));
    }
}
