//! What a file says about one module: its adapter and the tensors that belong to it.

use std::collections::HashMap;
use std::sync::Arc;

use lattice_kernels::Weight;

use super::apply::Patch;

/// One adapter of one module, with its tensors as they are stored. Cheap to share; its address is its identity.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// File the tensors come from, for messages.
    pub source: Arc<str>,
    /// Module name as it stands in the file.
    pub module: String,
    /// Family and tensors.
    pub kind: AdapterKind,
    /// `alpha`: scales the change by alpha / rank; in OFT and BOFT the constraint.
    pub alpha: Option<f64>,
    /// `dora_scale`: the magnitudes of a weight-decomposed adapter (DoRA, arXiv 2402.09353).
    pub dora_scale: Option<Weight>,
}

/// Adapter families.
#[derive(Clone, Debug)]
pub enum AdapterKind {
    /// LoRA (arXiv 2106.09685), with `mid` LoCon in its CP form.
    Lora {
        /// [out, rank] and trailing unit axes.
        up: Weight,
        /// [rank, in, ...].
        down: Weight,
        /// [rank, rank, kh, kw].
        mid: Option<Weight>,
        /// Shape the weight is zero-padded to first.
        reshape: Option<Vec<usize>>,
    },
    /// LoHa (arXiv 2108.06098): product of two low-rank matrices, element by element.
    Loha {
        /// The four factors `w1_a`, `w1_b`, `w2_a`, `w2_b`.
        factors: [Weight; 4],
        /// Tucker cores `t1`, `t2`.
        cores: Option<[Weight; 2]>,
    },
    /// LoKr (arXiv 2309.14859): Kronecker product.
    Lokr {
        /// Left factor, whole or in two.
        w1: Factor,
        /// Right factor, whole or in two.
        w2: Factor,
        /// Tucker core of the right factor.
        core: Option<Weight>,
    },
    /// GLoRA (arXiv 2306.07967).
    Glora {
        /// `a1`, `a2`, `b1`, `b2`.
        factors: [Weight; 4],
    },
    /// OFT (arXiv 2306.07280): output rows rotated in blocks, [blocks, b, b].
    Oft {
        /// Skew generators.
        blocks: Weight,
    },
    /// BOFT (arXiv 2311.06243): rotations in butterfly order, [factors, blocks, b, b].
    Boft {
        /// Skew generators.
        blocks: Weight,
        /// Factor per output row.
        rescale: Option<Weight>,
    },
    /// A difference to be added.
    Diff(Weight),
    /// A value to be put in place.
    Set(Weight),
    /// The parameter of another model to be added, after that model's own patches (merging).
    Parameter {
        /// As it is in the other model's file.
        weight: Weight,
        /// What changes it there.
        patches: Vec<Patch>,
    },
}

/// A matrix that may be stored as a product.
#[derive(Clone, Debug)]
pub enum Factor {
    /// As it is.
    Whole(Weight),
    /// [rows, rank] and [rank, columns].
    Product(Weight, Weight),
}

/// The tensors of one module by what follows its name.
#[derive(Debug, Default)]
pub(super) struct Parts(HashMap<&'static str, Weight>);

impl Parts {
    pub(super) fn insert(&mut self, suffix: &'static str, weight: Weight) {
        self.0.insert(suffix, weight);
    }

    fn get(&self, suffix: &str) -> Option<Weight> {
        self.0.get(suffix).cloned()
    }

    fn four(&self, suffixes: [&str; 4]) -> Option<[Weight; 4]> {
        let [a, b, c, d] = suffixes.map(|s| self.get(s));
        Some([a?, b?, c?, d?])
    }

    fn number(&self, suffix: &str) -> Option<f64> {
        let weight = self.get(suffix).filter(|w| w.elem_count() == 1)?;
        let mut value = [0f32];
        weight.read_f32(0, &mut value);
        Some(f64::from(value[0]))
    }

    pub(super) fn alpha(&self) -> Option<f64> {
        self.number(".alpha")
    }

    pub(super) fn dora_scale(&self) -> Option<Weight> {
        self.get(".dora_scale")
    }

    /// What the module's weight gets: of several families in one module the last in this order.
    pub(super) fn weight_kind(&self) -> Option<AdapterKind> {
        [
            self.lora(),
            self.loha(),
            self.lokr(),
            self.four([".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"])
                .map(|factors| AdapterKind::Glora { factors }),
            self.rotation(),
            self.get(".w_norm").map(AdapterKind::Diff),
            self.get(".diff").map(AdapterKind::Diff),
            self.get(".set_weight").map(AdapterKind::Set),
        ]
        .into_iter()
        .flatten()
        .next_back()
    }

    /// What the module's bias gets.
    pub(super) fn bias_kind(&self) -> Option<AdapterKind> {
        self.get(".diff_b").or_else(|| self.get(".b_norm")).map(AdapterKind::Diff)
    }

    fn lora(&self) -> Option<AdapterKind> {
        let (up, down) = LORA_PAIRS.iter().find_map(|(up, down)| Some((self.get(up)?, self.get(down)?)))?;
        let reshape = self
            .get(".reshape_weight")
            .filter(|w| w.elem_count() <= 8)
            .map(|w| w.to_f32().into_iter().map(|v| v as usize).collect());
        Some(AdapterKind::Lora { up, down, mid: self.get(".lora_mid.weight"), reshape })
    }

    fn loha(&self) -> Option<AdapterKind> {
        let factors = self.four([".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b"])?;
        let cores = self.get(".hada_t1").zip(self.get(".hada_t2")).map(|(a, b)| [a, b]);
        Some(AdapterKind::Loha { factors, cores })
    }

    fn lokr(&self) -> Option<AdapterKind> {
        let factor = |whole: &str, a: &str, b: &str| match self.get(whole) {
            Some(w) => Some(Factor::Whole(w)),
            None => Some(Factor::Product(self.get(a)?, self.get(b)?)),
        };
        Some(AdapterKind::Lokr {
            w1: factor(".lokr_w1", ".lokr_w1_a", ".lokr_w1_b")?,
            w2: factor(".lokr_w2", ".lokr_w2_a", ".lokr_w2_b")?,
            core: self.get(".lokr_t2"),
        })
    }

    fn rotation(&self) -> Option<AdapterKind> {
        let blocks = self.get(".oft_blocks")?;
        match blocks.dims().len() {
            3 => Some(AdapterKind::Oft { blocks }),
            4 => Some(AdapterKind::Boft { blocks, rescale: self.get(".rescale") }),
            _ => None,
        }
    }
}

/// Names of the two LoRA matrices, in order of preference.
pub(super) const LORA_PAIRS: [(&str, &str); 7] = [
    (".lora_up.weight", ".lora_down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora.up.weight", ".lora.down.weight"),
    (".lora_B", ".lora_A"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    (".lora_B.default.weight", ".lora_A.default.weight"),
];

/// What may follow a module's name otherwise.
pub(super) const OTHER_SUFFIXES: [&str; 29] = [
    ".alpha",
    ".dora_scale",
    ".reshape_weight",
    ".lora_mid.weight",
    ".hada_w1_a",
    ".hada_w1_b",
    ".hada_w2_a",
    ".hada_w2_b",
    ".hada_t1",
    ".hada_t2",
    ".lokr_w1",
    ".lokr_w2",
    ".lokr_w1_a",
    ".lokr_w1_b",
    ".lokr_w2_a",
    ".lokr_w2_b",
    ".lokr_t2",
    ".a1.weight",
    ".a2.weight",
    ".b1.weight",
    ".b2.weight",
    ".oft_blocks",
    ".rescale",
    ".w_norm",
    ".b_norm",
    ".diff",
    ".diff_b",
    ".set_weight",
    ".lora_magnitude_vector",
];
