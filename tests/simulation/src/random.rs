//! Randomness that a seed decides.

/// Randomness that a seed decides (`SplitMix64`): the same on every machine, for ever.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for every seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A stream that depends on this one, but not on how much of it is used.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `of`; 0 when `of` is 0.
    pub const fn below(&mut self, of: u64) -> u64 {
        if of == 0 { 0 } else { self.next() % of }
    }

    /// A number from `low` to `high`, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Whether something happens that happens so many times in a million.
    pub const fn one_in_a_million(&mut self, times: u32) -> bool {
        self.below(1_000_000) < times as u64
    }

    /// Whether something happens that happens so many times in a hundred.
    pub const fn percent(&mut self, times: u64) -> bool {
        self.below(100) < times
    }

    /// One of these; a programmer's error when there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let place = self.below(of.len() as u64);
        &of[usize::try_from(place).unwrap_or(0)]
    }
}
