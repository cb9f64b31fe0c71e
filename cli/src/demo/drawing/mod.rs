//! Draws a scene: 64 x 64 pixels, like a sticker on wrapping paper.
//!
//! Place, size, turn and shade vary a little from picture to picture. Only sums, products, quotients and floors of
//! floating-point numbers are used, so that a picture has the same bits on every machine.

mod canvas;
mod ground;
mod png;
mod shapes;
#[cfg(test)]
mod tests;

use super::rng::Rng;
use super::scene::Scene;
use canvas::{Canvas, Colour};
use shapes::Part;

/// Pixels on each side.
const SIDE: usize = 64;
/// The paper that a sticker shows around its shape, in pixels.
const RIM: f32 = 1.4;
const PAPER: Colour = [252, 252, 250];

/// A scene as the bytes of a PNG file.
pub(super) fn draw(scene: &Scene, rng: &mut Rng) -> Vec<u8> {
    png::encode(SIDE, &pixels(scene, rng))
}

/// Red, green and blue, row by row.
fn pixels(scene: &Scene, rng: &mut Rng) -> Vec<u8> {
    let mut canvas = Canvas::new(SIDE);
    ground::paint(&mut canvas, &scene.pattern, rng);
    let outline =
        shapes::outline(&scene.shape.0).expect("every shape of the word list is drawn: a test goes through them");
    let colour = shade(&scene.colour, rng);
    for place in places(scene.count, rng) {
        stamp(&mut canvas, outline, &place, colour);
    }
    canvas.pixels()
}

/// Where a copy of a shape lies.
struct Place {
    x: f32,
    y: f32,
    radius: f32,
    /// Cosine and sine of the turn.
    turn: (f32, f32),
}

impl Place {
    fn near(x: f32, y: f32, radius: f32, rng: &mut Rng) -> Self {
        let jitter = radius * 0.12;
        // Half of the angle's tangent gives cosine and sine by arithmetic alone; about 13 degrees to either side.
        let t = rng.between(-0.115, 0.115);
        let turn = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let (x, y) = (x + rng.between(-jitter, jitter), y + rng.between(-jitter, jitter));
        Self { x, y, radius: radius * rng.between(0.9, 1.08), turn }
    }

    /// A point of the canvas in the coordinates of the shape.
    fn to_shape(&self, x: f32, y: f32) -> (f32, f32) {
        let (dx, dy) = ((x - self.x) / self.radius, (y - self.y) / self.radius);
        let (cos, sin) = self.turn;
        (dx * cos + dy * sin, dy * cos - dx * sin)
    }
}

/// One in the middle, two beside each other or aslant, three in a triangle, four in a square.
fn places(count: usize, rng: &mut Rng) -> Vec<Place> {
    let centres: &[(f32, f32)] = match (count, rng.below(3)) {
        (1, _) => &[(32.0, 32.0)],
        (2, 0) => &[(18.0, 32.0), (46.0, 32.0)],
        (2, 1) => &[(20.0, 20.0), (44.0, 44.0)],
        (2, _) => &[(44.0, 20.0), (20.0, 44.0)],
        (3, 0) => &[(18.0, 19.0), (46.0, 19.0), (32.0, 46.0)],
        (3, _) => &[(32.0, 18.0), (18.0, 45.0), (46.0, 45.0)],
        _ => &[(18.0, 18.0), (46.0, 18.0), (18.0, 46.0), (46.0, 46.0)],
    };
    let radius = [19.0, 12.5, 11.5][centres.len().clamp(1, 3) - 1];
    centres.iter().map(|&(x, y)| Place::near(x, y, radius, rng)).collect()
}

/// The paper of a sticker, then its shape.
fn stamp(canvas: &mut Canvas, outline: &[Part], place: &Place, colour: Colour) {
    let reach = place.radius * 1.35 + RIM;
    let mask = canvas.mask(place.x, place.y, reach, |x, y| {
        let (x, y) = place.to_shape(x, y);
        shapes::contains(outline, x, y)
    });
    canvas.fill_around(&mask, RIM, PAPER);
    canvas.fill(&mask, colour);
}

/// A colour, a little lighter or darker than it is in the book.
fn shade(name: &str, rng: &mut Rng) -> Colour {
    let pure: [f32; 3] = match name {
        "red" => [214.0, 40.0, 44.0],
        "orange" => [243.0, 130.0, 24.0],
        "yellow" => [246.0, 206.0, 36.0],
        "green" => [44.0, 156.0, 72.0],
        "blue" => [38.0, 100.0, 212.0],
        "purple" => [132.0, 62.0, 182.0],
        "pink" => [242.0, 128.0, 178.0],
        "black" => [42.0, 42.0, 50.0],
        _ => unreachable!("every colour of the word list is mixed: a test goes through them"),
    };
    let light = rng.between(0.9, 1.06);
    pure.map(|c| (c * light + rng.between(-6.0, 6.0)).clamp(0.0, 255.0) as u8)
}
