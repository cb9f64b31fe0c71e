//! Which device a worker computes on: what was asked for, what there is, and what this version can use.

use std::fmt;
use std::str::FromStr;

pub use kernels::{Card, CardReport, Inspection, Lacking, Library, inspect};
use kernels::{Device, NoCard};

use crate::{Error, Result};

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// The cards if there are any, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// Every card.
    Cards,
    /// The card of a number.
    Card(usize),
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "all" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cards),
            _ => {
                text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).map(Self::Card).ok_or_else(|| {
                    "allowed are auto, cpu, cuda, all (the same as auto), and cuda:0, cuda:1, …".to_owned()
                })
            }
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cards => f.write_str("cuda"),
            Self::Card(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Where a worker computes. Written, it is the [`Wish`] for just this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the CPU.
    Cpu,
    /// On the card of a number, and on the CPU what is done beside it.
    Card(usize),
}

impl Place {
    /// Opens the device, with so many threads of the CPU, and sees whether it computes as it should.
    ///
    /// # Errors
    /// If the operating system refuses the threads, the card cannot be opened, or something else comes out than is known to.
    pub fn open(self, threads: usize) -> kernels::Result<Device> {
        let device = match self {
            Self::Cpu => Device::cpu(threads),
            Self::Card(number) => Device::cuda(number, threads),
        }?;
        kernels::health::check(&device)?;
        Ok(device)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => Wish::Cpu.fmt(f),
            Self::Card(number) => Wish::Card(*number).fmt(f),
        }
    }
}

/// What is used for a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// At least one place; workers on one machine take them in turn.
    pub places: Vec<Place>,
    /// What the user should know about it, in one line; nothing where it is what one expects.
    pub note: Option<String>,
}

impl Choice {
    fn cpu(note: Option<String>) -> Self {
        Self { places: vec![Place::Cpu], note }
    }

    /// The place of the worker that is started as the `i`-th, from 0.
    #[must_use]
    pub fn place(&self, i: usize) -> Place {
        self.places[i % self.places.len()]
    }
}

/// Chooses devices of this machine.
///
/// # Errors
/// [`Error::NoDevice`] if a card was asked for and cannot be had: what is missing and what installs it.
pub fn choose(wish: Wish) -> Result<Choice> {
    if wish == Wish::Cpu {
        return Ok(Choice::cpu(None));
    }
    choose_from(wish, &kernels::cards(), &kernels::misnamed_folders())
}

/// The same for cards that were found, or not; why not may have to do with folders that were named for libraries and are none.
///
/// # Errors
/// As [`choose`].
pub fn choose_from(wish: Wish, cards: &Result<Vec<Card>, NoCard>, misnamed: &[String]) -> Result<Choice> {
    let refuse = |reason: String| Err(Error::NoDevice { wish, reason });
    let why = |said: String| [&[said], misnamed].concat().join("; ");
    let all = |cards: &[Card]| Choice {
        places: cards.iter().map(|card| Place::Card(card.number)).collect(),
        note: Some(untried(cards)),
    };
    match (wish, cards) {
        (Wish::Cpu, _) => Ok(Choice::cpu(None)),
        (Wish::Auto, Err(none)) => {
            let reason = why(none.to_string());
            Ok(Choice::cpu(Some(if none.is_there() {
                format!("the GPU cannot be used: using the CPU ({reason}); `mllm4rec doctor` says more")
            } else {
                format!("no GPU: using the CPU ({reason})")
            })))
        }
        (Wish::Cards | Wish::Card(_), Err(none)) => refuse(why(explained(none))),
        (Wish::Auto | Wish::Cards, Ok(cards)) => Ok(all(cards)),
        (Wish::Card(number), Ok(cards)) => match cards.iter().find(|card| card.number == number) {
            Some(card) => Ok(all(std::slice::from_ref(card))),
            None => {
                let there: Vec<String> = cards.iter().map(|c| format!("cuda:{} ({})", c.number, c.name)).collect();
                refuse(format!("there is no such GPU, or it cannot be used; there is {}", there.join(", ")))
            }
        },
    }
}

/// What whoever computes on cards should know.
fn untried(cards: &[Card]) -> String {
    let names: Vec<String> = cards.iter().map(|card| format!("cuda:{} ({})", card.number, card.name)).collect();
    let names = names.join(", ");
    format!("computing on {names}, on which this version has never been tried; --devices cpu does without")
}

fn explained(none: &NoCard) -> String {
    none.remedy().map_or_else(|| none.to_string(), |remedy| format!("{none}: {remedy}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cards(numbers: &[usize]) -> Result<Vec<Card>, NoCard> {
        let card = |&number| Card { number, name: "H100".to_owned(), capability: (9, 0), memory_bytes: 80 << 30 };
        Ok(numbers.iter().map(card).collect())
    }

    fn no_driver() -> Result<Vec<Card>, NoCard> {
        Err(NoCard::NoDriver { brought_by: "the NVIDIA driver" })
    }

    fn no_library() -> Result<Vec<Card>, NoCard> {
        let lacking = Lacking::Absent("no such file".to_owned());
        Err(NoCard::NoLibrary { library: "NVRTC", brought_by: "the package cuda-nvrtc-13-0", lacking })
    }

    #[test]
    fn a_wish_is_read_as_it_is_written() {
        for wish in [Wish::Auto, Wish::Cpu, Wish::Cards, Wish::Card(0), Wish::Card(7)] {
            assert_eq!(wish.to_string().parse(), Ok(wish));
        }
        assert_eq!("all".parse(), Ok(Wish::Auto));
        assert_eq!([Place::Cpu, Place::Card(2)].map(|place| place.to_string()), ["cpu", "cuda:2"]);
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "every"] {
            assert!(wrong.parse::<Wish>().unwrap_err().contains("cuda:0"), "{wrong}");
        }
    }

    #[test]
    fn cards_are_taken_if_there_are_any_and_their_absence_is_told_in_a_line() {
        let two = choose_from(Wish::Auto, &cards(&[0, 2]), &[]).unwrap();
        assert_eq!((0..3).map(|i| two.place(i)).collect::<Vec<_>>(), [Place::Card(0), Place::Card(2), Place::Card(0)]);
        assert!(two.note.unwrap().starts_with("computing on cuda:0 (H100), cuda:2 (H100), on which"));
        let none = choose_from(Wish::Auto, &no_driver(), &[]).unwrap();
        assert_eq!(none, Choice::cpu(Some("no GPU: using the CPU (no CUDA driver on this machine)".to_owned())));
        let useless = choose_from(Wish::Auto, &no_library(), &[]).unwrap();
        assert_eq!(useless.places, [Place::Cpu]);
        assert!(useless.note.unwrap().contains("(NVRTC is missing)"));
    }

    #[test]
    fn folders_that_are_none_are_part_of_why_there_is_no_card() {
        let misnamed = ["MLLM4REC_CUDA_LIBS names /cuda, which is no folder".to_owned()];
        for found in [no_driver(), no_library()] {
            let note = choose_from(Wish::Auto, &found, &misnamed).unwrap().note.unwrap();
            let refused = choose_from(Wish::Cards, &found, &misnamed).unwrap_err().to_string();
            assert!(note.contains(&misnamed[0]) && refused.ends_with(&misnamed[0]), "{note}; {refused}");
        }
        assert!(!choose_from(Wish::Auto, &cards(&[0]), &misnamed).unwrap().note.unwrap().contains(&misnamed[0]));
    }

    #[test]
    fn the_cpu_is_used_without_a_word_if_it_was_asked_for() {
        for found in [cards(&[0]), no_driver()] {
            assert_eq!(choose_from(Wish::Cpu, &found, &[]).unwrap(), Choice::cpu(None));
        }
        assert_eq!(choose(Wish::Cpu).unwrap(), Choice::cpu(None));
    }

    #[test]
    fn a_card_that_was_asked_for_is_used_or_missed_by_name() {
        assert_eq!(choose_from(Wish::Cards, &cards(&[0, 1]), &[]).unwrap().places, [Place::Card(0), Place::Card(1)]);
        assert_eq!(choose_from(Wish::Card(1), &cards(&[0, 1]), &[]).unwrap().places, [Place::Card(1)]);
        let refused = |wish, found| choose_from(wish, &found, &[]).unwrap_err().to_string();
        let said = refused(Wish::Card(3), cards(&[0, 1]));
        assert_eq!(
            said,
            "--devices cuda:3: there is no such GPU, or it cannot be used; there is cuda:0 (H100), cuda:1 (H100)"
        );
        let said = refused(Wish::Cards, no_driver());
        assert_eq!(said, "--devices cuda: no CUDA driver on this machine: it comes with the NVIDIA driver");
        let said = refused(Wish::Card(0), no_library());
        assert!(said.contains("NVRTC is missing") && said.contains("the package cuda-nvrtc-13-0"), "{said}");
    }
}
