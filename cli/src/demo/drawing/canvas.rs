//! Pixels, three times as fine in each direction while something is drawn, so that edges come out smooth.

/// Red, green and blue.
pub(super) type Colour = [u8; 3];

/// Fine pixels in a pixel, in each direction.
const FINE: usize = 3;

/// A square that is drawn on.
pub(super) struct Canvas {
    /// Fine pixels on each side.
    side: usize,
    fine: Vec<Colour>,
}

/// Fine pixels, by their numbers.
pub(super) type Mask = Vec<(usize, usize)>;

impl Canvas {
    /// A black canvas of so many pixels on each side.
    pub(super) fn new(side: usize) -> Self {
        Self { side: side * FINE, fine: vec![[0; 3]; side * side * FINE * FINE] }
    }

    /// Gives every point a colour. Coordinates are in pixels, of the middle of a fine pixel.
    pub(super) fn paint(&mut self, colour: impl Fn(f32, f32) -> Colour) {
        for (i, fine) in self.fine.iter_mut().enumerate() {
            *fine = colour(middle(i % self.side), middle(i / self.side));
        }
    }

    /// The fine pixels that belong to a shape, among those that are not further than `reach` from a point.
    pub(super) fn mask(&self, x: f32, y: f32, reach: f32, contains: impl Fn(f32, f32) -> bool) -> Mask {
        let range = |centre: f32| {
            let first = ((centre - reach) * FINE as f32).floor().max(0.0) as usize;
            let end = ((centre + reach) * FINE as f32).floor().max(0.0) as usize + 1;
            first.min(self.side)..end.min(self.side)
        };
        let columns = range(x);
        let points = range(y).flat_map(|row| columns.clone().map(move |column| (column, row)));
        points.filter(|&(column, row)| contains(middle(column), middle(row))).collect()
    }

    /// Gives the pixels of a mask a colour.
    pub(super) fn fill(&mut self, mask: &Mask, colour: Colour) {
        for &(column, row) in mask {
            self.fine[row * self.side + column] = colour;
        }
    }

    /// The same for all that are not further than `width` pixels from the mask.
    pub(super) fn fill_around(&mut self, mask: &Mask, width: f32, colour: Colour) {
        let width = width * FINE as f32;
        let steps = width as isize;
        let square = (-steps..=steps).flat_map(|dy| (-steps..=steps).map(move |dx| (dx, dy)));
        let disc: Vec<(isize, isize)> =
            square.filter(|(dx, dy)| ((dx * dx + dy * dy) as f32) <= width * width).collect();
        for &(column, row) in mask {
            for &(dx, dy) in &disc {
                let (column, row) = (column.wrapping_add_signed(dx), row.wrapping_add_signed(dy));
                if column < self.side && row < self.side {
                    self.fine[row * self.side + column] = colour;
                }
            }
        }
    }

    /// The picture: of every pixel red, green and blue, row by row, each the mean of its fine pixels.
    pub(super) fn pixels(&self) -> Vec<u8> {
        let side = self.side / FINE;
        (0..side * side).flat_map(|i| self.pixel(i % side, i / side)).collect()
    }

    fn pixel(&self, column: usize, row: usize) -> Colour {
        let mut sums = [0; 3];
        for i in 0..FINE * FINE {
            let fine = self.fine[(row * FINE + i / FINE) * self.side + column * FINE + i % FINE];
            for (sum, value) in sums.iter_mut().zip(fine) {
                *sum += usize::from(value);
            }
        }
        sums.map(|sum| ((sum + FINE * FINE / 2) / (FINE * FINE)) as u8)
    }
}

/// The coordinate of the middle of a fine pixel.
fn middle(number: usize) -> f32 {
    (number as f32 + 0.5) / FINE as f32
}
