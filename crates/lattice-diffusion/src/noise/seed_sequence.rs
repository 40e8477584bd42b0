//! Seeds for independent streams: the SeedSequence design of numpy (after M. O'Neill's `seed_seq_fe`).

const POOL: usize = 24;

/// Entropy stirred into a pool of 24 words, from which any number of seed words is read.
#[derive(Clone, Debug)]
pub struct SeedSequence {
    pool: [u32; POOL],
    /// As the last word of entropy left it.
    hash: Hash,
}

/// Hash with a multiplier that changes at every use.
#[derive(Clone, Debug)]
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

/// The 32-bit words of an integer, lowest first, without leading zero words; zero is one word.
fn words(value: u128) -> impl Iterator<Item = u32> {
    let rest = move |rest: &u128| Some(rest >> 32).filter(|&rest| rest != 0);
    std::iter::successors(Some(value), rest).map(|rest| rest as u32)
}

impl SeedSequence {
    /// The sequence of a seed and a spawn key (empty for the root).
    pub fn new(seed: u64, spawn_key: &[u128]) -> Self {
        let mut hash = Hash { constant: 0x43b0_d7e5, multiplier: 0x931e_8875 };
        let mut pool = [0; POOL];
        // A seed has fewer words than the pool. Padding keeps (seed, key) apart from a longer seed without a key.
        for (slot, word) in pool.iter_mut().zip(words(seed.into()).chain(std::iter::repeat(0))) {
            *slot = hash.mix(word);
        }
        for src in 0..POOL {
            for dst in 0..POOL {
                if src != dst {
                    pool[dst] = combine(pool[dst], hash.mix(pool[src]));
                }
            }
        }
        Self { pool, hash }.spawn(spawn_key)
    }

    /// The sequence with more words of spawn key.
    #[must_use]
    pub fn spawn(&self, spawn_key: &[u128]) -> Self {
        let mut child = self.clone();
        for word in spawn_key.iter().flat_map(|&key| words(key)) {
            for slot in &mut child.pool {
                *slot = combine(*slot, child.hash.mix(word));
            }
        }
        child
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
