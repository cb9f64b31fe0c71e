//! How well a captioner reads the shop's pictures: its captions beside what was drawn.

use std::collections::BTreeMap;
use std::fmt;

use super::scene::Scene;
use super::shop::Shop;

/// Counts over the shop's pictures.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) pictures: usize,
    /// Captions that say all that was drawn, word by word.
    pub(crate) exact: usize,
    /// Captions that name the shape, which is what customers care for.
    pub(crate) shape: usize,
}

impl Reading {
    /// Compares captions, by item, with what was drawn; an item without one was not read.
    pub(crate) fn of<'a>(shop: &Shop, captions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let captions: BTreeMap<&str, &str> = captions.into_iter().collect();
        let pairs = || shop.scenes().filter_map(|(id, scene)| Some((scene, *captions.get(id)?)));
        Self {
            pictures: shop.scenes().count(),
            exact: pairs().filter(|(scene, caption)| scene.caption == *caption).count(),
            shape: pairs().filter(|(scene, caption)| names_shape(scene, caption)).count(),
        }
    }
}

fn names_shape(scene: &Scene, caption: &str) -> bool {
    let (one, many) = &scene.shape;
    caption.split(' ').any(|word| word == one || word == many)
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |count: usize| 100.0 * count as f64 / self.pictures.max(1) as f64;
        write!(
            f,
            "captions of {} drawn pictures: {:.1} % say exactly what was drawn, {:.1} % name the right shape",
            self.pictures,
            share(self.exact),
            share(self.shape)
        )
    }
}
