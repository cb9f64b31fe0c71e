//! A page with pictures and captions: one file that needs nothing else.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use data::artifact::Digest;
use data::job::Captions;
use data::pictures::PictureSource;
use data::tables::{CaptionRow, PictureRow};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde_json::{Value, json};
use worker::decoders::{DecoderLimits, Decoders, Look, Thumb};

/// Pixels of a picture's side on the page.
const SIDE: usize = 160;
/// Quality of the pictures on the page, of 100.
const QUALITY: u8 = 80;
/// Pictures that are read and decoded together.
const TOGETHER: usize = 64;

/// One item of the sheet.
pub(crate) struct Entry {
    pub(crate) row: CaptionRow,
    pub(crate) title: String,
    /// The picture as a `data:` URL.
    pub(crate) picture: Option<String>,
}

/// What the page shows.
pub(crate) struct Sheet<'a> {
    pub(crate) job: &'a str,
    /// Of the whole job, by status.
    pub(crate) counts: BTreeMap<&'static str, usize>,
    pub(crate) entries: Vec<Entry>,
}

impl Sheet<'_> {
    /// Decodes the pictures, in processes of their own, and writes the page; returns how many entries it has.
    pub(crate) async fn write(
        mut self,
        file: &Path,
        pictures: &[PictureRow],
        source: &PictureSource,
        settings: &Captions,
    ) -> Result<usize> {
        let by_item: BTreeMap<&str, &PictureRow> = pictures.iter().map(|p| (p.item_id.as_str(), p)).collect();
        let decoders = Decoders::start(crate::commands::decoder()?, 2, DecoderLimits::of(settings))?;
        let look = Look::of(settings, SIDE);
        for entries in self.entries.chunks_mut(TOGETHER) {
            let mut found: Vec<(usize, Bytes)> = Vec::new();
            for (i, entry) in entries.iter().enumerate() {
                let Some(picture) = by_item.get(entry.row.item_id.as_str()) else { continue };
                // A file that has changed would stand beside the caption of another picture.
                let is_it = |b: &Bytes| picture.image_sha256.as_deref() == Some(Digest::of_bytes(b).as_str());
                found.extend(source.read(picture).await?.filter(is_it).map(|bytes| (i, bytes)));
            }
            let files: Vec<&Bytes> = found.iter().map(|(_, bytes)| bytes).collect();
            let decoded = decoders.decode_all(&files, look)?;
            let decoded = decoded.into_iter().map(|thumb| thumb.ok().and_then(|thumb| url(&thumb)));
            for ((i, _), picture) in found.into_iter().zip(decoded) {
                entries[i].picture = picture;
            }
        }
        let page = include_str!("page.html").replace("{{data}}", &embedded(&self.data()));
        std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(self.entries.len())
    }

    fn data(&self) -> Value {
        let items: Vec<Value> = self.entries.iter().map(Entry::json).collect();
        let model = self.entries.iter().find_map(|entry| entry.row.model.clone());
        let total: usize = self.counts.values().sum();
        json!({"job": self.job, "model": model, "counts": self.counts, "total": total, "items": items})
    }
}

impl Entry {
    fn json(&self) -> Value {
        let row = &self.row;
        json!({
            "item": row.item_id, "title": self.title, "caption": row.caption, "status": row.status.as_str(),
            "reason": row.reason, "picture": self.picture,
        })
    }
}

/// JSON that may stand inside of a script element.
fn embedded(data: &Value) -> String {
    data.to_string().replace('<', "\\u003c")
}

/// A picture as a `data:` URL.
fn url(thumb: &Thumb) -> Option<String> {
    let mut jpeg = Cursor::new(Vec::new());
    let side = u32::try_from(SIDE).ok()?;
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
    encoder.write_image(thumb.picture.rgb(), side, side, ExtendedColorType::Rgb8).ok()?;
    Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg.into_inner())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::embedded;

    #[test]
    fn no_text_ends_the_script() {
        let text = "</script><script>alert(1)</script><!--";
        let data = embedded(&json!({"caption": text}));
        assert!(!data.contains('<'));
        let back: serde_json::Value = serde_json::from_str(&data).expect("it is still JSON");
        assert_eq!(back["caption"], text);
    }
}
