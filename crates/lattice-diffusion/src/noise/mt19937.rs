//! The Mersenne Twister of Matsumoto and Nishimura (1998), 32-bit, standard parameters.

const N: usize = 624;
const M: usize = 397;
const MATRIX: u32 = 0x9908_b0df;
const UPPER: u32 = 0x8000_0000;

#[inline]
fn temper(mut y: u32) -> u32 {
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c_5680;
    y ^= (y << 15) & 0xefc6_0000;
    y ^ (y >> 18)
}

/// mt19937 engine.
#[derive(Clone, Debug)]
pub struct Mt19937 {
    state: Box<[u32; N]>,
    next: usize,
}

impl Mt19937 {
    /// An engine seeded with the low 32 bits of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut engine = Self { state: Box::new([0; N]), next: N };
        engine.reseed(seed);
        engine
    }

    /// Starts anew, as [`Mt19937::new`] does, in the same memory.
    pub fn reseed(&mut self, seed: u64) {
        let mut previous = seed as u32;
        self.state[0] = previous;
        for (j, word) in self.state.iter_mut().enumerate().skip(1) {
            previous = (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(j as u32);
            *word = previous;
        }
        self.next = N;
    }

    fn twist(&mut self) {
        let s = &mut self.state;
        let mixed = |a: u32, b: u32| {
            let y = (a & UPPER) | (b & !UPPER);
            (y >> 1) ^ if b & 1 == 0 { 0 } else { MATRIX }
        };
        for i in 0..N - M {
            s[i] = s[i + M] ^ mixed(s[i], s[i + 1]);
        }
        for i in N - M..N - 1 {
            s[i] = s[i + M - N] ^ mixed(s[i], s[i + 1]);
        }
        s[N - 1] = s[M - 1] ^ mixed(s[N - 1], s[0]);
        self.next = 0;
    }

    /// The next tempered 32-bit word.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let word = temper(self.state[self.next]);
        self.next += 1;
        word
    }

    /// Fills `out` with what `convert` makes of the next words, one each.
    #[inline]
    pub fn fill<T>(&mut self, mut out: &mut [T], convert: impl Fn(u32) -> T) {
        while !out.is_empty() {
            if self.next == N {
                self.twist();
            }
            let ready = &self.state[self.next..];
            let count = out.len().min(ready.len());
            let (now, later) = out.split_at_mut(count);
            now.iter_mut().zip(ready).for_each(|(o, &word)| *o = convert(temper(word)));
            self.next += count;
            out = later;
        }
    }

    /// A 64-bit word of two outputs, the first being the high half.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        (high << 32) | u64::from(self.next_u32())
    }

    /// Drops `count` words.
    pub fn skip(&mut self, mut count: usize) {
        while count > 0 {
            if self.next == N {
                self.twist();
            }
            let dropped = count.min(N - self.next);
            self.next += dropped;
            count -= dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_in_any_portions() {
        let mut singly = Mt19937::new(5);
        let words: Vec<u32> = (0..2000).map(|_| singly.next_u32()).collect();
        let (mut filled, mut portions) = (vec![0; 2000], Mt19937::new(5));
        let (mut at, mut size) = (0, 0);
        while at < filled.len() {
            let end = (at + size).min(filled.len());
            portions.fill(&mut filled[at..end], |word| word);
            (at, size) = (end, size + 61);
        }
        assert_eq!(filled, words);
        portions.reseed(5);
        assert_eq!(portions.next_u32(), words[0]);
    }
}
