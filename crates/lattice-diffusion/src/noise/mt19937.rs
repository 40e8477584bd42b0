//! The Mersenne Twister of Matsumoto and Nishimura (1998), 32-bit, standard parameters.

const N: usize = 624;
const M: usize = 397;
const MATRIX: u32 = 0x9908_b0df;
const UPPER: u32 = 0x8000_0000;

/// mt19937 engine.
#[derive(Clone, Debug)]
pub struct Mt19937 {
    state: Box<[u32; N]>,
    next: usize,
}

impl Mt19937 {
    /// An engine seeded with the low 32 bits of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut state = Box::new([0u32; N]);
        state[0] = seed as u32;
        for j in 1..N {
            let previous = state[j - 1];
            state[j] = (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(j as u32);
        }
        Self { state, next: N }
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
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
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
