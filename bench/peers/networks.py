"""The whole networks of a Stable Diffusion 1.5 checkpoint as diffusers and transformers run them on PyTorch.

As a program it runs one case once and prints the peak resident memory of its process in bytes.
"""

import sys

CASES = [
    ("SD1.5", "unet", "f32", (2, 64)),
    ("SD1.5", "vae_decode", "f32", (1, 64)),
    ("SD1.5", "clip", "f32", (1, 77)),
]


def peak_memory(process):
    """Peak resident memory of a process so far, in bytes (Linux)."""
    with open(f"/proc/{process}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def values(torch, *dims):
    """Reproducible values in -1..1, the same as the example `networks` makes."""
    state, numbers = 1, []
    for _ in range(torch.Size(dims).numel()):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        numbers.append((state >> 8) / (1 << 23) - 1.0)
    return torch.tensor(numbers).reshape(dims)


def part(file, prefix):
    """Tensors of a safetensors file below a prefix, without it."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        names = [name for name in tensors.keys() if name.startswith(prefix)]
        return {name.removeprefix(prefix): tensors.get_tensor(name) for name in names}


def load(network, loaded, weights):
    """Gives the network all the weights, and fails if any is missing."""
    missing, _ = loaded.load_state_dict(weights, strict=False, assign=True)
    missing = [name for name in missing if not name.endswith("position_ids")]
    assert not missing, f"{network} lacks {missing[:3]}"
    return loaded.eval()


def peer(torch, file, case):
    """The network's forward pass: a function without arguments."""
    _, network, _, sizes = case
    if network == "unet":
        from diffusers import UNet2DConditionModel
        from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

        with torch.device("meta"):
            unet = UNet2DConditionModel(cross_attention_dim=768)
        prefix = "model.diffusion_model."
        weights = {prefix + name: weight for name, weight in part(file, prefix).items()}
        unet = load(network, unet, convert_ldm_unet_checkpoint(weights, unet.config))
        batch, side = sizes
        x, context = values(torch, batch, 4, side, side), values(torch, batch, 77, 768)
        timesteps = torch.full((batch,), 501.0)
        return lambda: unet(x, timesteps, context).sample
    if network == "vae_decode":
        from diffusers import AutoencoderKL
        from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

        widths = (128, 256, 512, 512)
        with torch.device("meta"):
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=widths,
                layers_per_block=2,
            )
        vae = load(network, vae, convert_ldm_vae_checkpoint(part(file, "first_stage_model."), vae.config))
        batch, side = sizes
        x = values(torch, batch, 4, side, side)
        return lambda: vae.decode(x).sample
    if network == "clip":
        from transformers import CLIPTextConfig, CLIPTextModel

        config = CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, bos_token_id=0,
            eos_token_id=2,
        )
        clip = CLIPTextModel(config)
        weights = part(file, "cond_stage_model.transformer.")
        ours = set(clip.state_dict())
        if not any(name.startswith("text_model.") for name in ours):
            weights = {name.removeprefix("text_model."): weight for name, weight in weights.items()}
        clip = load(network, clip, weights)
        batch, tokens = sizes
        ids = torch.tensor([[i * 601 % 49000 for i in range(tokens)]] * batch)
        return lambda: clip(ids).last_hidden_state
    raise ValueError(network)


def main():
    file, name = sys.argv[1:]
    import torch

    torch.set_grad_enabled(False)
    case = next(case for case in CASES if case[1] == name)
    peer(torch, file, case)()
    print(peak_memory("self"))


if __name__ == "__main__":
    main()
