//! Random numbers: uniform and normal draws, Brownian trees, seed sequences.

use anyhow::{Result, anyhow, bail};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use lattice_diffusion::noise::{
    BrownianTree, Generator, Mt19937, NoiseFloat, SeedSequence, normal_tensor, prepare_noise,
};
use serde_json::Value as Json;

use super::Operation;
use crate::{Case, Check, Outcome};

/// Operations of topic `noise`.
pub(super) const OPERATIONS: &[Operation] = &[
    ("noise", "prepare_noise", prepared),
    ("noise", "uniform", uniform),
    ("noise", "normal_dtype", normal_dtype),
    ("noise", "sequence", sequence),
    ("noise", "mixed", mixed),
    ("noise", "brownian", brownian),
    ("noise", "seed_sequence", seed_sequence),
    ("noise", "mt19937_words", mt19937_words),
];

/// Absolute tolerance of increments divided by the root of their distance, which the reference does not round exactly.
const DIVIDED: f64 = 2e-6;

fn prepared(case: &Case<'_>) -> Result<Outcome> {
    let indices = if case.json["batch_index"].is_null() { None } else { Some(case.usizes("batch_index")?) };
    let got = prepare_noise(&case.usizes("shape")?, case.seed("seed")?, indices.as_deref())?;
    Ok(Outcome::Ran(vec![Check::exact("noise", &got.noise, &case.tensor("out")?)?]))
}

/// One draw compared with `out`, in the type that the case names.
fn typed_draw(case: &Case<'_>, normal: bool) -> Result<Outcome> {
    fn draw<T: NoiseFloat + candle_core::WithDType>(case: &Case<'_>, normal: bool) -> Result<Tensor> {
        let (mut generator, n) = (Generator::new(case.seed("seed")?), case.usize("n")?);
        let values: Vec<T> = if normal { generator.normal(n) } else { generator.uniform(n) };
        Ok(Tensor::from_vec(values, n, &Device::Cpu)?)
    }
    let got = match case.str("dtype")? {
        "float32" => draw::<f32>(case, normal)?,
        "float64" => draw::<f64>(case, normal)?,
        "float16" => draw::<f16>(case, normal)?,
        "bfloat16" => draw::<bf16>(case, normal)?,
        other => bail!("unknown dtype {other}"),
    };
    Ok(Outcome::Ran(vec![Check::exact("draw", &got, &case.tensor("out")?)?]))
}

fn uniform(case: &Case<'_>) -> Result<Outcome> {
    typed_draw(case, false)
}

fn normal_dtype(case: &Case<'_>) -> Result<Outcome> {
    typed_draw(case, true)
}

fn sequence(case: &Case<'_>) -> Result<Outcome> {
    let mut generator = Generator::new(case.seed("seed")?);
    let draws = case.json["tensors"].as_object().map_or(0, serde_json::Map::len);
    let sizes = if case.json["sizes"].is_null() { None } else { Some(case.usizes("sizes")?) };
    let mut checks = Vec::new();
    for i in 0..draws {
        let role = format!("draw{i}");
        let shape = match &sizes {
            Some(sizes) => vec![*sizes.get(i).ok_or_else(|| anyhow!("no size for {role}"))?],
            None => case.usizes("shape")?,
        };
        let got = normal_tensor(&mut generator, shape)?;
        checks.push(Check::exact(&role, &got, &case.tensor(&role)?)?);
    }
    Ok(Outcome::Ran(checks))
}

/// Draws of different kinds from one generator, written like `randn 5` or `randint 0..1000 x8 (int64)`.
fn mixed(case: &Case<'_>) -> Result<Outcome> {
    let mut generator = Generator::new(case.seed("seed")?);
    let ops = case.field("ops")?.as_array().ok_or_else(|| anyhow!("ops is no list"))?;
    let mut checks = Vec::new();
    for op in ops {
        let words: Vec<&str> = op.as_str().unwrap_or_default().split_whitespace().collect();
        let (role, got) = match words.as_slice() {
            ["randn", n] => (format!("randn{n}"), tensor(generator.normal::<f32>(n.parse()?))?),
            ["rand", n] => (format!("rand{n}"), tensor(generator.uniform::<f32>(n.parse()?))?),
            ["rand64", n] => (format!("rand64_{n}"), tensor(generator.uniform::<f64>(n.parse()?))?),
            ["randint", range, count, ..] => {
                let (low, high) = range.split_once("..").ok_or_else(|| anyhow!("no range in {op}"))?;
                let count = count.trim_start_matches('x').parse()?;
                ("randint".into(), tensor(generator.integers(low.parse()?, high.parse()?, count))?)
            }
            ["randperm", n] => (format!("randperm{n}"), tensor(generator.permutation(n.parse()?))?),
            _ => bail!("unknown draw {op}"),
        };
        checks.push(Check::exact(&role, &got, &case.tensor(&role)?)?);
    }
    Ok(Outcome::Ran(checks))
}

fn tensor<T: candle_core::WithDType>(values: Vec<T>) -> Result<Tensor> {
    let len = values.len();
    Ok(Tensor::from_vec(values, len, &Device::Cpu)?)
}

fn brownian(case: &Case<'_>) -> Result<Outcome> {
    let shape = case.usizes("shape")?;
    let (t0, t1) = (case.f64("sigma_min")?, case.f64("sigma_max")?);
    let mut tree = BrownianTree::new(t0, t1, case.seed("seed")?, shape.iter().product())?;
    let pair = |json: &Json| {
        let number = |i: usize| json[i].as_f64().ok_or_else(|| anyhow!("a query is two numbers"));
        anyhow::Ok((number(0)?, number(1)?))
    };
    let queries = case.field("queries")?.as_array().ok_or_else(|| anyhow!("queries is no list"))?;
    let raw = case.tensor("raw_increments")?;
    let mut checks = Vec::new();
    let mut compare = |(from, to): (f64, f64), role: String, raw: Option<Tensor>| -> Result<()> {
        let noise = Tensor::from_vec(tree.step_noise(from, to)?, shape.as_slice(), &Device::Cpu)?;
        checks.push(Check::close(&role, &noise, &case.tensor(&role)?, DIVIDED, 0.0)?);
        if let Some(raw) = raw {
            let sign = if from > to { -1.0 } else { 1.0 };
            let increment = tree.increment(from.min(to), from.max(to))?;
            let signed: Vec<f32> = increment.iter().map(|w| sign * w).collect();
            let signed = Tensor::from_vec(signed, shape.as_slice(), &Device::Cpu)?;
            checks.push(Check::exact(&format!("increment of {role}"), &signed, &raw)?);
        }
        Ok(())
    };
    for (i, query) in queries.iter().enumerate() {
        compare(pair(query)?, format!("step{i}"), Some(raw.get(i)?))?;
    }
    if case.has_tensor("out_of_order_first_last") {
        compare(pair(case.field("extra_query")?)?, "out_of_order_first_last".into(), None)?;
    }
    Ok(Outcome::Ran(checks))
}

fn numbers<T: std::str::FromStr>(json: &Json) -> Vec<T> {
    let text = |v: &Json| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    json.as_array().into_iter().flatten().filter_map(|v| text(v).parse().ok()).collect()
}

fn seed_sequence(case: &Case<'_>) -> Result<Outcome> {
    let key: Vec<u128> = numbers(&case.json["spawn_key"]);
    let want: Vec<u32> = numbers(&case.json["words"]);
    let got = SeedSequence::new(case.seed("entropy")?, &key).words(want.len());
    Ok(Outcome::Ran(vec![Check::equal("words", &got, &want)]))
}

fn mt19937_words(case: &Case<'_>) -> Result<Outcome> {
    let rows = case.field("rows")?.as_array().ok_or_else(|| anyhow!("rows is no list"))?;
    let mut checks = Vec::new();
    for row in rows {
        let seed: u64 = row["seed"].as_str().unwrap_or_default().parse()?;
        let want: Vec<u32> = numbers(&row["first_words"]);
        let mut engine = Mt19937::new(seed);
        let got: Vec<u32> = want.iter().map(|_| engine.next_u32()).collect();
        checks.push(Check::equal(&format!("seed {seed}"), &got, &want));
    }
    Ok(Outcome::Ran(checks))
}
