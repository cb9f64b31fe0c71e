//! What members tell each other before they join: whether they can, and with which versions.
//!
//! Everybody tells, also who cannot join: so all of them learn why not, and nobody waits within NCCL for one that does not come.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::api::Api;
use super::trouble;
use crate::collective::Collective;
use crate::cuda;
use crate::{Error, Result};

/// What a member tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Greeting {
    /// Of NCCL.
    version: String,
    /// Of CUDA, as the driver has it.
    driver: String,
    /// Tells machines apart.
    machine: String,
    /// Why it cannot join.
    trouble: String,
}

impl Greeting {
    /// That of this process.
    pub(super) fn of(api: Result<&Api, &str>) -> Self {
        let version = |[major, minor, patch]: [u32; 3]| format!("{major}.{minor}.{patch}");
        let trouble = match api {
            Ok(_) => told_to_block().unwrap_or_default(),
            Err(said) => said.replace('\n', " "),
        };
        Self {
            version: api.map_or_else(|_| "none".to_owned(), |api| version(api.version)),
            driver: cuda::driver_version().map_or_else(|| "none".to_owned(), version),
            // Two containers of one machine tell the same, as NCCL has it.
            machine: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
            trouble,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        [&*self.version, &self.driver, &self.machine, &self.trouble].join("\n").into_bytes()
    }

    fn from_bytes(rank: usize, bytes: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let parts: Vec<String> = text.split('\n').map(str::to_owned).collect();
        let [version, driver, machine, trouble] = <[String; 4]>::try_from(parts)
            .map_err(|_| Error::Gang(format!("rank {rank} does not join NCCL, but does something else")))?;
        Ok(Self { version, driver, machine, trouble })
    }

    /// Tells the others; returns what is to be remarked about them.
    ///
    /// # Errors
    /// [`Error::Gang`] says who cannot join, or whose versions do not go together.
    pub(super) fn exchange(&self, ring: &mut dyn Collective) -> Result<Vec<String>> {
        let all = ring.all_gather(self.to_bytes())?;
        let all =
            all.iter().enumerate().map(|(rank, bytes)| Self::from_bytes(rank, bytes)).collect::<Result<Vec<_>>>()?;
        judge(&all)?;
        let here = all.iter().filter(|other| other.machine == self.machine).count();
        Ok(remark_on_drivers(&all).into_iter().chain(trouble::remark_on_shared_memory(here)).collect())
    }
}

/// The one setting of NCCL under which nobody could end a member that waits.
fn told_to_block() -> Option<String> {
    let set = std::env::var("NCCL_COMM_BLOCKING").is_ok_and(|value| value.trim() == "1");
    set.then(|| "NCCL_COMM_BLOCKING=1 makes every wait endless: unset it".to_owned())
}

fn judge(all: &[Greeting]) -> Result<()> {
    let troubles: Vec<String> = (0..)
        .zip(all)
        .filter(|(_, member)| !member.trouble.is_empty())
        .map(|(rank, member)| format!("rank {rank} cannot: {}", member.trouble))
        .collect();
    if !troubles.is_empty() {
        return Err(Error::Gang(format!("not everybody can join NCCL: {}", troubles.join("; "))));
    }
    let release = |member: &Greeting| member.version.rsplit_once('.').unwrap_or_default().0.to_owned();
    match differing(all, release) {
        None => Ok(()),
        Some(who) => Err(Error::Gang(format!(
            "workers have different versions of NCCL, {who}: install the same everywhere (the package libnccl2, or \
             nvidia-nccl-cu13 of PyPI)"
        ))),
    }
}

fn remark_on_drivers(all: &[Greeting]) -> Option<String> {
    differing(all, |member| member.driver.clone()).map(|who| format!("workers have different drivers: CUDA {who}"))
}

/// Who has what, such as `2.27 on ranks 0, 2 and 2.21 on rank 1`; nothing if it is the same everywhere.
fn differing(all: &[Greeting], what: impl Fn(&Greeting) -> String) -> Option<String> {
    let mut who: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (rank, member) in all.iter().enumerate() {
        who.entry(what(member)).or_default().push(rank.to_string());
    }
    if who.len() < 2 {
        return None;
    }
    let mut text = String::new();
    for (i, (what, ranks)) in who.iter().rev().enumerate() {
        let and = if i == 0 { "" } else { " and " };
        let ranks_are = if ranks.len() == 1 { "rank" } else { "ranks" };
        let _ = write!(text, "{and}{what} on {ranks_are} {}", ranks.join(", "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with(version: &str, driver: &str) -> Greeting {
        Greeting { version: version.to_owned(), driver: driver.to_owned(), ..Greeting::default() }
    }

    #[test]
    fn versions_that_do_not_go_together_are_named_with_their_ranks() {
        let all = [with("2.27.3", "13.0.0"), with("2.21.5", "13.0.0"), with("2.27.7", "12.8.0")];
        let said = judge(&all).unwrap_err().to_string();
        assert!(said.contains("2.27 on ranks 0, 2 and 2.21 on rank 1"), "{said}");
        assert_eq!(
            remark_on_drivers(&all).unwrap(),
            "workers have different drivers: CUDA 13.0.0 on ranks 0, 1 and 12.8.0 on rank 2"
        );
        // A patch is no other version.
        judge(&[all[0].clone(), all[2].clone()]).unwrap();
        assert_eq!(remark_on_drivers(&all[..2]), None);
    }

    #[test]
    fn everybody_hears_who_cannot_join_and_why() {
        let lacking = Greeting::of(Err("NCCL is missing:\nit comes with libnccl2"));
        let told = Greeting::from_bytes(1, &lacking.to_bytes()).unwrap();
        let said = judge(&[with("2.27.3", ""), told]).unwrap_err().to_string();
        assert!(said.contains("rank 1 cannot: NCCL is missing: it comes with libnccl2"), "{said}");
        assert!(Greeting::from_bytes(0, b"something else").is_err());
    }
}
