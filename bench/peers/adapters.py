"""A rank-64 LoRA on all matrices and convolutions of SDXL's UNet, as PyTorch computes it.

Both sides do the same arithmetic: every weight to f32, plus strength * alpha / rank times the product of the two factors in f32, rounded
back to its own type. The files are made here: shapes of SDXL, values that repeat.
"""

import gzip
import json
import math
import os

RANK, ALPHA, STRENGTH = 64, 32.0, 0.75

CASES = [
    # All 2.57e9 parameters.
    ("SDXL", "lora", "f16", ("",)),
    # A whole UNet in f32 and its patched copy would take 20 GB: the encoder's half.
    ("SDXL", "lora", "f32", ("input_blocks.",)),
]


def shapes(root, prefix):
    """Names and shapes of the weights that are patched."""
    with gzip.open(os.path.join(root, "testdata/manifests/sdxl.json.gz")) as text:
        tensors = json.load(text)["tensors"]
    unet = {name.removeprefix("model.diffusion_model."): shape for name, shape in tensors.items() if "diffusion_model" in name}
    return {name: shape for name, shape in unet.items() if name.startswith(prefix) and len(shape) >= 2}


def make(torch, root, folder, case):
    """The weights' file and the adapter's, made once."""
    from safetensors.torch import save_file

    _, _, dtype, (prefix,) = case
    paths = [os.path.join(folder, f"peers-{kind}-{dtype}.safetensors") for kind in ("weights", "lora")]
    if all(map(os.path.exists, paths)):
        return paths
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02
    stored = {"f16": torch.float16, "f32": torch.float32}[dtype]

    def values(shape, start, dtype):
        count = math.prod(shape)
        repeated = noise.roll(start).to(dtype).repeat(count // noise.numel() + 1)
        return repeated[:count].reshape(shape).clone()

    weights, lora = {}, {}
    for index, (name, shape) in enumerate(shapes(root, prefix).items()):
        weights[name] = values(shape, index, stored)
        module = name.removesuffix(".weight")
        lora[module + ".lora_up.weight"] = values([shape[0], RANK] + [1] * (len(shape) - 2), index + 1, torch.float16)
        lora[module + ".lora_down.weight"] = values([RANK] + shape[1:], index + 2, torch.float16)
        lora[module + ".alpha"] = torch.tensor(ALPHA)
    for tensors, path in zip((weights, lora), paths):
        save_file(tensors, path + ".part")
        os.rename(path + ".part", path)
    return paths


def peer(torch, paths):
    """Applies the adapter to all weights: a function without arguments that returns the patched ones."""
    from safetensors.torch import load_file

    weights, lora = (load_file(path) for path in paths)

    def apply():
        patched = {}
        for name, weight in weights.items():
            module = name.removesuffix(".weight")
            up = lora[module + ".lora_up.weight"].float().flatten(1)
            down = lora[module + ".lora_down.weight"].float().flatten(1)
            factor = STRENGTH * lora[module + ".alpha"].item() / down.shape[0]
            value = weight.float()
            if value is weight:
                value = weight.clone()
            value += (factor * torch.mm(up, down)).reshape(value.shape)
            patched[name] = value.to(weight.dtype)
        return patched

    return apply


def sample(patched):
    """The values that the example `adapters` prints."""
    ends = [patched[name].flatten() for name in (min(patched), max(patched))]
    return [values[i * (values.numel() - 1) // 7].item() for values in ends for i in range(8)]
