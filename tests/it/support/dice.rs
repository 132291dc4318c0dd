//! Reproducible randomness: a seed decides everything, and a failed test prints its seed.

/// splitmix64: the same sequence on every machine.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.draw() % sides as u64).unwrap()
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Independent dice for another part of the same run.
    pub fn split(&mut self) -> Self {
        Self(self.draw())
    }
}

/// The number in this environment variable, or `else_this`.
pub fn given(variable: &str, else_this: usize) -> usize {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(else_this)
}
