//! What an item's picture shows.

use serde::Deserialize;

use super::rng::Rng;

/// The words for what can be drawn.
#[derive(Deserialize)]
pub(super) struct Drawable {
    /// Of each shape the singular and the plural.
    pub(super) shapes: Vec<(String, String)>,
    pub(super) colours: Vec<String>,
    pub(super) patterns: Vec<String>,
    /// From one upwards.
    pub(super) counts: Vec<String>,
}

/// A few copies of a shape in a colour, on a ground with a pattern.
pub(super) struct Scene {
    /// Singular and plural.
    pub(super) shape: (String, String),
    pub(super) colour: String,
    pub(super) pattern: String,
    pub(super) count: usize,
    /// All of it in words: "three red stars on stripes", "one blue moon" on a plain ground.
    pub(super) caption: String,
}

impl Scene {
    /// A shape in a colour, on a pattern and as often as chance says.
    pub(super) fn any(words: &Drawable, shape: &(String, String), rng: &mut Rng) -> Self {
        let colour = &words.colours[rng.index(words.colours.len())];
        let pattern = &words.patterns[rng.index(words.patterns.len())];
        let count = 1 + rng.index(words.counts.len());
        let (one, many) = shape;
        let ground = if pattern == "plain" { String::new() } else { format!(" on {pattern}") };
        let caption = format!("{} {colour} {}{ground}", words.counts[count - 1], if count == 1 { one } else { many });
        Self { shape: shape.clone(), colour: colour.clone(), pattern: pattern.clone(), count, caption }
    }
}
