//! A training at one step, as files: for checkpoints, and for members that are behind.

use std::collections::BTreeMap;

use bytes::Bytes;
use data::artifact::Digest;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::early_stopping::Course;

/// All that is needed to go on from a step.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// How it came there.
    pub(crate) course: Course,
    /// Parameters, moments and what is kept, by name.
    pub(crate) files: BTreeMap<String, Bytes>,
}

/// What stands in front of the files on their way to another member.
#[derive(Serialize, Deserialize)]
struct Header {
    course: Course,
    /// Names and lengths, in order.
    files: Vec<(String, usize)>,
}

impl Snapshot {
    /// One of its files.
    ///
    /// # Errors
    /// [`kernels::Error::Gang`] if it is not among them: another build has made it.
    pub(crate) fn file(&self, name: &str) -> Result<&Bytes> {
        let missing = || kernels::Error::Gang(format!("the state of the training lacks {name}"));
        self.files.get(name).ok_or_else(|| missing().into())
    }

    /// The same for the same state, whoever has it and however long it took.
    pub(crate) fn digest(&self) -> Digest {
        let course = Course { seconds: 0.0, ..self.course.clone() };
        let mut text = serde_json::to_string(&course).expect("a course has only string keys");
        for (name, bytes) in &self.files {
            text += &format!("\n{name} {}", Digest::of_bytes(bytes));
        }
        Digest::of_bytes(text.as_bytes())
    }

    /// As bytes, for another member.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let files = self.files.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect();
        let header = serde_json::to_vec(&Header { course: self.course.clone(), files }).expect("it has no maps");
        let mut bytes = Vec::with_capacity(8 + header.len() + self.files.values().map(Bytes::len).sum::<usize>());
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        self.files.values().for_each(|file| bytes.extend_from_slice(file));
        bytes
    }

    /// What [`Snapshot::to_bytes`] has made.
    ///
    /// # Errors
    /// [`kernels::Error::Gang`] if it is not whole.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::parse(Bytes::from(bytes))
            .ok_or_else(|| kernels::Error::Gang("the state that was sent is not whole".to_owned()).into())
    }

    fn parse(mut bytes: Bytes) -> Option<Self> {
        let mut take = |len: usize| (bytes.len() >= len).then(|| bytes.split_to(len));
        let len = u64::from_le_bytes(take(8)?.as_ref().try_into().ok()?);
        let header: Header = serde_json::from_slice(&take(usize::try_from(len).ok()?)?).ok()?;
        let files = header.files.into_iter().map(|(name, len)| Some((name, take(len)?)));
        let files = files.collect::<Option<BTreeMap<_, _>>>()?;
        bytes.is_empty().then_some(Self { course: header.course, files })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn snapshot() -> Snapshot {
        let files = [("a".to_owned(), Bytes::from_static(b"one")), ("b".to_owned(), Bytes::new())];
        let course = Course { step: 7, loss: Some(0.1), seconds: 3.5, ..Course::default() };
        Snapshot { course, files: files.into() }
    }

    #[test]
    fn a_state_arrives_as_it_was_sent_or_not_at_all() {
        let bytes = snapshot().to_bytes();
        let arrived = Snapshot::from_bytes(bytes.clone()).unwrap();
        assert_eq!((arrived.digest(), arrived.course.seconds), (snapshot().digest(), 3.5));
        for cut in 0..bytes.len() {
            assert!(Snapshot::from_bytes(bytes[..cut].to_vec()).is_err(), "{cut}");
        }
        assert!(Snapshot::from_bytes([bytes, vec![0]].concat()).is_err());
    }

    #[test]
    fn a_digest_covers_all_but_the_time() {
        let digest = snapshot().digest();
        let mut later = snapshot();
        later.course.seconds = 9.0;
        assert_eq!(later.digest(), digest);
        later.course.loss = Some(0.2);
        assert_ne!(later.digest(), digest);
        let mut other = snapshot();
        other.files.insert("b".to_owned(), Bytes::from_static(b"x"));
        assert_ne!(other.digest(), digest);
        assert!(other.file("c").is_err());
    }
}
