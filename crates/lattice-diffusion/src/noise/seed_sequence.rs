//! Seeds for independent streams: the SeedSequence design of numpy (after M. O'Neill's `seed_seq_fe`).

const POOL: usize = 24;

/// Entropy stirred into a pool of 24 words, from which any number of seed words is read.
#[derive(Clone, Debug)]
pub struct SeedSequence {
    pool: [u32; POOL],
}

/// Hash with a multiplier that changes at every use.
struct Hash {
    constant: u32,
    multiplier: u32,
}

impl Hash {
    fn mix(&mut self, value: u32) -> u32 {
        let value = value ^ self.constant;
        self.constant = self.constant.wrapping_mul(self.multiplier);
        let value = value.wrapping_mul(self.constant);
        value ^ (value >> 16)
    }
}

fn combine(x: u32, y: u32) -> u32 {
    let r = 0xca01_f9dd_u32.wrapping_mul(x).wrapping_sub(0x4973_f715_u32.wrapping_mul(y));
    r ^ (r >> 16)
}

/// Appends the 32-bit words of an integer, lowest first, without leading zero words; zero is one word.
fn push_words(words: &mut Vec<u32>, mut value: u128) {
    loop {
        words.push(value as u32);
        value >>= 32;
        if value == 0 {
            break;
        }
    }
}

impl SeedSequence {
    /// The sequence of a seed and a spawn key (empty for the root).
    pub fn new(seed: u64, spawn_key: &[u128]) -> Self {
        let mut entropy = Vec::with_capacity(POOL + 2 * spawn_key.len());
        push_words(&mut entropy, u128::from(seed));
        if !spawn_key.is_empty() {
            // Padding keeps (seed, key) apart from a longer seed without a key.
            entropy.resize(POOL, 0);
            for &key in spawn_key {
                push_words(&mut entropy, key);
            }
        }
        let mut hash = Hash { constant: 0x43b0_d7e5, multiplier: 0x931e_8875 };
        let mut pool = [0; POOL];
        for (i, slot) in pool.iter_mut().enumerate() {
            *slot = hash.mix(entropy.get(i).copied().unwrap_or(0));
        }
        for src in 0..POOL {
            for dst in 0..POOL {
                if src != dst {
                    pool[dst] = combine(pool[dst], hash.mix(pool[src]));
                }
            }
        }
        for &word in entropy.iter().skip(POOL) {
            for slot in &mut pool {
                *slot = combine(*slot, hash.mix(word));
            }
        }
        Self { pool }
    }

    /// The first `count` output words.
    pub fn words(&self, count: usize) -> Vec<u32> {
        let mut hash = Hash { constant: 0x8b51_f9dd, multiplier: 0x58f3_8ded };
        self.pool.iter().cycle().take(count).map(|&v| hash.mix(v)).collect()
    }

    /// The first output word.
    pub fn first_word(&self) -> u32 {
        Hash { constant: 0x8b51_f9dd, multiplier: 0x58f3_8ded }.mix(self.pool[0])
    }
}
