//! What solvers allocate beside the network: a few tensors of the latent's size that they return, keep or draw, and a little
//! bookkeeping that does not grow with the latent.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use candle_core::{DType, Device, Result, Tensor};
use lattice_diffusion::noise::prepare_noise;
use lattice_diffusion::sample::Sampling;
use lattice_diffusion::samplers::{SAMPLERS, Silent, sampler_named};
use lattice_diffusion::schedules::Scheduler;
use lattice_diffusion::{Denoised, Denoiser, ModelSampling, SamplingSettings};

/// A latent, and the bytes from which on an allocation is one of its size.
const SHAPE: [usize; 4] = [1, 4, 32, 32];
const LARGE: usize = 8 << 10;
const STEPS: usize = 24;
/// Most bytes of bookkeeping per call: shapes, handles and lists of terms.
const SMALL: f64 = 3072.0;

/// Tensors per call: the next sample, what a multistep solver keeps, and the noise that is drawn.
fn tensors_of(name: &str) -> f64 {
    let name = name.strip_suffix("_gpu").unwrap_or(name);
    match name {
        "euler" | "euler_cfg_pp" | "ddim" | "dpmpp_2m" | "dpmpp_2m_cfg_pp" => 1.0,
        "dpm_2" | "sa_solver_pece" => 1.5,
        "heunpp2" | "dpm_fast" => 2.5,
        "sa_solver"
        | "uni_pc"
        | "uni_pc_bh2"
        | "seeds_2"
        | "seeds_3"
        | "res_multistep_ancestral"
        | "res_multistep_ancestral_cfg_pp" => 3.0,
        "er_sde" | "dpm_adaptive" => 4.0,
        _ => 2.0,
    }
}

/// What this thread has allocated.
#[derive(Clone, Copy, Default)]
struct Count {
    /// Bytes in allocations of at least [`LARGE`].
    large: usize,
    /// Bytes in smaller ones.
    small: usize,
}

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new(Count { large: 0, small: 0 }) };
}

struct Counting;

fn note(bytes: usize) {
    COUNT.with(|count| {
        let Count { large, small } = count.get();
        count.set(if bytes >= LARGE {
            Count { large: large + bytes, small }
        } else {
            Count { large, small: small + bytes }
        });
    });
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing, as the counter is a plain cell
// that is initialised at compile time and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A prediction that allocates nothing, and the count at each call.
struct Watching {
    denoised: Tensor,
    counts: Vec<Count>,
}

impl Denoiser for Watching {
    fn denoise(&mut self, _x: &Tensor, _sigma: f64, need_uncond: bool) -> Result<Denoised> {
        self.counts.push(COUNT.get());
        Ok(Denoised { denoised: self.denoised.clone(), uncond: need_uncond.then(|| self.denoised.clone()) })
    }
}

/// Tensors and bytes of bookkeeping per call, in the middle of a run.
fn per_call(model: &ModelSampling, name: &str) -> (f64, f64) {
    let sampler = sampler_named(name).unwrap();
    let noise = prepare_noise(&SHAPE, 1, None).unwrap();
    let latent = Tensor::zeros(&SHAPE, DType::F32, &Device::Cpu).unwrap();
    let sigmas = Scheduler::named("karras").and_then(|s| s.sigmas(model, STEPS)).unwrap();
    let sampling = Sampling {
        model,
        format: None,
        sampler: &*sampler,
        sigmas: &sigmas,
        noise: &noise,
        seed: 1,
        latent: &latent,
        mask: None,
    };
    let denoised = (&noise.noise * 0.1).unwrap();
    let mut denoiser = Watching { denoised, counts: Vec::with_capacity(4096) };
    sampling.run(&mut denoiser, &mut Silent).unwrap();
    let counts = denoiser.counts;
    // Histories are full after a quarter; the last steps of many solvers are of lower order.
    let (from, to) = (counts.len() / 4, counts.len() * 3 / 4);
    let calls = (to - from) as f64;
    let bytes = |of: fn(&Count) -> usize| (of(&counts[to]) - of(&counts[from])) as f64 / calls;
    let tensor = SHAPE.iter().product::<usize>() * size_of::<f32>();
    (bytes(|c| c.large) / tensor as f64, bytes(|c| c.small))
}

#[test]
fn solvers_allocate_their_tensors_and_little_else() {
    let model = ModelSampling::new(&SamplingSettings::eps()).unwrap();
    for named in SAMPLERS {
        let (tensors, small) = per_call(&model, named.name);
        let name = named.name;
        assert!(tensors <= tensors_of(name) + 0.01, "{name}: {tensors:.2} tensors per call");
        assert!(small <= SMALL, "{name}: {small:.0} bytes of bookkeeping per call");
    }
}
