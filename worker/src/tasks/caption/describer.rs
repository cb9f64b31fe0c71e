//! Pictures to sentences: read, decode in other processes, describe together, remember.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use data::artifact::Digest;
use data::job::{Captions, Job, Precision};
use data::pictures::{Described, KnownCaptions, PictureSource};
use data::tables::PictureRow;
use futures::{StreamExt, TryStreamExt, stream};
use kernels::{Device, Tensor};
use model::captioner::picture::{Class, Preprocess};
use model::captioner::{BlipConfig, Captioner, Pixels};
use serde_json::json;
use tokio::runtime::Handle;

use crate::context::Context;
use crate::decoders::{DecoderLimits, Decoders, Look, Refusal, Thumb};
use crate::{Error, Result};

/// Pictures that are read at a time.
const READS: usize = 16;
/// Files that are decoded together, at least; as many wait for their turn.
const FILES: usize = 32;

/// The networks of the last lease: the next one is mostly of the same job.
static LOADED: Mutex<Option<(String, Arc<Machine>)>> = Mutex::new(None);

/// Gives back the memory of the networks.
pub(crate) fn forget() {
    *LOADED.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// What describes pictures; the networks are loaded when the first new one comes.
pub(super) struct Describer {
    source: PictureSource,
    known: KnownCaptions,
    name: String,
    settings: Captions,
    device: Device,
    machine: Option<Arc<Machine>>,
}

struct Machine {
    captioner: Captioner,
    preprocess: Preprocess,
    decoders: Decoders,
}

/// What is to be said of pictures, by their hash.
type Said = Vec<(String, Described)>;

/// A decoded picture, or why there is none; nothing for one that is gone.
type Decoded = (String, Option<Result<Thumb, Refusal>>);

impl Describer {
    pub(super) fn new(cx: &Context, device: &Device) -> Result<Self> {
        let settings = cx.job.captions.clone();
        let files: HashMap<&String, &Digest> =
            cx.spec.inputs.iter().filter(|(role, _)| role.starts_with("model:")).collect();
        let model = Digest::of_json(&json!({"files": files, "keys": settings.captioner_keys()}));
        let folder =
            Path::new(&settings.model).file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
        Ok(Self {
            source: PictureSource::open(&settings.images, &cx.store)?,
            known: KnownCaptions::of(&cx.store, &model),
            name: format!("{folder}@{}", model.short()),
            settings,
            device: device.clone(),
            machine: None,
        })
    }

    /// What the table calls the model.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What was said before.
    pub(super) fn known(&self) -> &KnownCaptions {
        &self.known
    }

    /// Looks at pictures, each with another content, and remembers what is to be said of them.
    pub(super) fn describe(
        &mut self,
        cx: &mut Context,
        pictures: &[&PictureRow],
    ) -> Result<HashMap<String, Described>> {
        if self.machine.is_none() {
            self.machine = Some(Machine::kept(cx, &self.settings, &self.name, &self.device)?);
        }
        let (Some(machine), runtime, batch) = (&self.machine, cx.runtime(), self.settings.batch_size as usize) else {
            return Ok(HashMap::new());
        };
        let look = Look::of(&self.settings, machine.preprocess.size);
        let max_tokens = self.settings.max_tokens as usize;
        let mut described = HashMap::new();
        let ((read_files, files), (ready, batches)) = (sync_channel(0), sync_channel(1));
        std::thread::scope(|scope| {
            // The next batch is read and decoded while this one is described.
            let (source, decoders) = (&self.source, &machine.decoders);
            let files_together = FILES.max(4 * cx.threads);
            scope.spawn(move || {
                let mut groups = pictures.chunks(files_together).map(|pictures| read(&runtime, source, pictures));
                groups.try_for_each(|files| read_files.send(files))
            });
            scope.spawn(move || {
                let decoded = files.into_iter().map(|files| decode(decoders, look, files?));
                batches_of(batch, decoded, |batch| ready.send(batch).is_ok());
            });
            for batch in batches {
                cx.check()?;
                let (new, passing) = machine.describe(batch?, max_tokens)?;
                cx.wait(self.known.remember(&new))?;
                described.extend(new.into_iter().chain(passing));
                cx.progress(described.len() as u64, pictures.len() as u64, "pictures", String::new);
            }
            Ok(described)
        })
    }
}

impl Machine {
    /// The one of the last lease, if it is the same in every respect.
    fn kept(cx: &Context, settings: &Captions, name: &str, device: &Device) -> Result<Arc<Self>> {
        let key = format!("{name} {} {}", settings.model, settings.max_bytes);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, machine)) = loaded.as_ref().filter(|(known, _)| *known == key) {
            return Ok(Arc::clone(machine));
        }
        *loaded = None; // two checkpoints may be more than there is memory
        let machine = Arc::new(Self::load(cx, settings, device)?);
        *loaded = Some((key, Arc::clone(&machine)));
        Ok(machine)
    }

    fn load(cx: &Context, settings: &Captions, device: &Device) -> Result<Self> {
        let folder = Path::new(&settings.model);
        let precision = match settings.precision {
            Precision::F32 => model::Precision::F32,
            Precision::Bf16 => model::Precision::Bf16,
        };
        let captioner = Captioner::load(folder, precision, device)?;
        let preprocess = preprocess(folder, captioner.config())?;
        let decoders = Decoders::start(cx.decoder.clone(), cx.threads, DecoderLimits::of(settings))?;
        Ok(Self { captioner, preprocess, decoders })
    }

    /// What is to be said of a batch; apart from it what may be otherwise the next time.
    fn describe(&self, batch: Vec<Decoded>, max_tokens: usize) -> Result<(Said, Said)> {
        let (mut new, mut passing, mut hashes, mut pixels) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (sha256, decoded) in batch {
            match decoded {
                Some(Ok(thumb)) => {
                    pixels.extend_from_slice(thumb.picture.rgb());
                    hashes.push(sha256);
                }
                Some(Err(refusal)) => {
                    // Other limits, or another machine, may give another answer.
                    let passes = refusal.may_pass() || refusal.class == Class::TooLarge;
                    let list = if passes { &mut passing } else { &mut new };
                    list.push((sha256, refused(&refusal)));
                }
                None => {}
            }
        }
        let side = self.preprocess.size;
        let pixels = Tensor::from_u8(&[hashes.len(), side, side, 3], pixels)?;
        let pixels = Pixels::Bytes(&pixels, &self.preprocess.normalisation);
        let captions = self.captioner.caption(pixels, max_tokens)?;
        new.extend(hashes.into_iter().zip(captions.into_iter().map(Described::Caption)));
        Ok((new, passing))
    }
}

/// What is said of a picture that cannot be decoded.
fn refused(refusal: &Refusal) -> Described {
    let key = match refusal.reason.as_str() {
        "too_many_pixels" => " (captions.max_pixels)",
        "too_many_bytes" => " (captions.max_bytes)",
        _ => "",
    };
    let reason = format!("{}: {}{key}", refusal.reason, refusal.sentence);
    match refusal.class {
        Class::TooLarge => Described::TooLarge(reason),
        Class::Undecodable => Described::Undecodable(reason),
    }
}

/// Gathers groups into batches of `size` until nobody wants more; an error is the last.
fn batches_of<T>(
    size: usize,
    groups: impl Iterator<Item = Result<Vec<T>>>,
    mut give: impl FnMut(Result<Vec<T>>) -> bool,
) {
    let mut waiting = Vec::new();
    for group in groups {
        match group {
            Ok(group) => waiting.extend(group),
            Err(e) => {
                give(Err(e));
                return;
            }
        }
        while waiting.len() >= size {
            let rest = waiting.split_off(size);
            if !give(Ok(std::mem::replace(&mut waiting, rest))) {
                return;
            }
        }
    }
    if !waiting.is_empty() {
        give(Ok(waiting));
    }
}

/// The bytes of pictures, in order.
fn read(runtime: &Handle, source: &PictureSource, pictures: &[&PictureRow]) -> Result<Vec<(String, Option<Bytes>)>> {
    let one = |picture: &PictureRow| {
        let picture = picture.clone();
        async move {
            let bytes = source.read(&picture).await?;
            Ok::<_, Error>((picture.image_sha256.unwrap_or_default(), bytes))
        }
    };
    runtime.block_on(stream::iter(pictures.iter().map(|picture| one(picture))).buffered(READS).try_collect())
}

/// Decodes all that are there; a picture that has changed since it was listed counts as gone.
fn decode(decoders: &Decoders, look: Look, mut pictures: Vec<(String, Option<Bytes>)>) -> Result<Vec<Decoded>> {
    for (sha256, bytes) in &mut pictures {
        *bytes = bytes.take().filter(|bytes| Digest::of_bytes(bytes).as_str() == sha256);
    }
    let there: Vec<&Bytes> = pictures.iter().filter_map(|(_, bytes)| bytes.as_ref()).collect();
    let mut decoded = decoders.decode_all(&there, look)?;
    for (answer, bytes) in decoded.iter_mut().zip(&there) {
        // Alone on the machine's decoders, a picture that took too long may have time enough.
        if answer.as_ref().is_err_and(Refusal::may_pass) {
            *answer = decoders.decode_all(&[bytes], look)?.remove(0);
        }
    }
    let mut decoded = decoded.into_iter();
    Ok(pictures.iter().map(|(sha256, bytes)| (sha256.clone(), bytes.as_ref().and_then(|_| decoded.next()))).collect())
}

/// What a checkpoint wants its pictures to look like, checked against its vision tower.
fn preprocess(folder: &Path, config: &BlipConfig) -> Result<Preprocess> {
    let path = folder.join("preprocessor_config.json");
    let bytes = std::fs::read(&path).map_err(|source| model::Error::Io { path: path.display().to_string(), source })?;
    let preprocess = Preprocess::from_json(&bytes)?;
    if preprocess.size != config.vision.image_size {
        let (size, side) = (preprocess.size, config.vision.image_size);
        let what = format!("preprocessor_config.json makes pictures of {size} pixels, the vision tower takes {side}");
        return Err(model::Error::Config(what).into());
    }
    Ok(preprocess)
}

/// Finds what is wrong with a job's captioner before anything is computed.
///
/// # Errors
/// The first that is found, naming the file or the key.
pub fn check_captioner(job: &Job) -> Result<()> {
    let folder = Path::new(&job.captions.model);
    let config = Captioner::check(folder)?;
    preprocess(folder, &config)?;
    let longest = config.decoder.max_positions.saturating_sub(config.queries);
    if job.captions.max_tokens as usize > longest {
        let what = format!("captions.max_tokens is {}, the decoder has room for {longest}", job.captions.max_tokens);
        return Err(model::Error::Config(what).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What is given, the errors as nothing.
    fn gathered(size: usize, groups: Vec<Result<Vec<u32>>>, at_most: usize) -> Vec<Option<Vec<u32>>> {
        let mut given = Vec::new();
        batches_of(size, groups.into_iter(), |batch| {
            given.push(batch.ok());
            given.len() < at_most
        });
        given
    }

    #[test]
    fn groups_become_batches() {
        let groups = || vec![Ok(vec![1, 2]), Ok(vec![]), Ok(vec![3, 4, 5, 6, 7]), Ok(vec![8])];
        let all = [vec![1, 2, 3], vec![4, 5, 6], vec![7, 8]].map(Some);
        assert_eq!(gathered(3, groups(), 9), all);
        assert_eq!(gathered(3, groups(), 1), all[..1]);
        assert_eq!(gathered(3, Vec::new(), 9), []);
        let broken = vec![Ok(vec![1, 2, 3, 4]), Err(model::Error::Input("broken".to_owned()).into()), Ok(vec![5])];
        assert_eq!(gathered(3, broken, 9), [Some(vec![1, 2, 3]), None]);
    }
}
