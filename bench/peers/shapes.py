"""The operations that occur in the networks, as (model, operation, dtype, sizes).

Sizes by operation:
  conv            batch, in, out, height, width, kernel, stride
  linear, gelu_linear, geglu_linear   rows, in, out
  attention       batch, heads, queries, keys, head width
  groupnorm_silu  batch, channels, height, width
  layernorm, geglu, gelu   rows, width
"""


def convs(batch, kernel, stride, triples):
    """From (in, out, map size)."""
    return [("conv", "f32", (batch, i, o, size, size, kernel, stride)) for i, o, size in triples]


def unet(batch, maps, widths, heads, context, head_layers):
    """A UNet of the Stable Diffusion family: `maps` and `widths` per level, `heads` and transformers where there are."""
    cases = []
    w, m = widths, maps
    plain, skips, ups, downs = [(4, w[0], m[0]), (w[0], 4, m[0])], [], [], []
    for level, (width, size) in enumerate(zip(w, m)):
        below = w[min(level + 1, len(w) - 1)]
        above = w[max(level - 1, 0)]
        plain += [(width, width, size), (above, width, size)]
        joined = sorted({below + width, 2 * width, width + above})
        plain += [(i, width, size) for i in joined]
        skips += [(i, width, size) for i in joined] + ([(above, width, size)] if above != width else [])
        if level + 1 < len(w):
            downs.append((width, width, size))
            ups.append((below, below, size))
    cases += convs(batch, 3, 1, plain + ups) + convs(batch, 3, 2, downs) + convs(batch, 1, 1, skips)
    for level in head_layers:
        width, size, tokens = w[level], m[level], m[level] ** 2
        head = width // heads[level]
        rows = batch * tokens
        cases += convs(batch, 1, 1, [(width, width, size)])
        cases += [
            ("linear", "f32", (rows, width, width)),
            ("geglu_linear", "f32", (rows, width, 8 * width)),
            ("linear", "f32", (rows, 4 * width, width)),
            ("linear", "f32", (batch * 77, context, width)),
            ("attention", "f32", (batch, heads[level], tokens, tokens, head)),
            ("attention", "f32", (batch, heads[level], tokens, 77, head)),
            ("layernorm", "f32", (rows, width)),
            ("geglu", "f32", (rows, 8 * width)),
        ]
    cases += [("groupnorm_silu", "f32", (batch, width, size, size)) for width, size in zip(w, m)]
    cases += [("linear", "f32", (batch, w[0], w[-1])), ("linear", "f32", (batch, w[-1], w[-1]))]
    return cases


def vae(size):
    """The decoder of the SD autoencoder for a picture of `size` pixels."""
    a = size // 8
    plain = [(4, 512, a), (512, 512, a), (512, 512, 2 * a), (512, 512, 4 * a), (512, 256, 4 * a), (256, 256, 4 * a)]
    plain += [(256, 256, size), (256, 128, size), (128, 128, size), (128, 3, size)]
    cases = convs(1, 3, 1, plain) + convs(1, 1, 1, [(4, 4, a), (512, 256, 4 * a), (256, 128, size)])
    cases += [("attention", "f32", (1, 1, a * a, a * a, 512))]
    cases += [("groupnorm_silu", "f32", (1, c, s, s)) for c, s in [(512, a), (512, 2 * a), (256, 4 * a), (128, size)]]
    return cases


def flux():
    """The blocks of Flux for 1024x1024 pixels: 4096 picture and 512 text tokens."""
    cases = []
    for rows in (4096, 512):
        cases += [
            ("linear", "f32", (rows, 3072, 9216)),
            ("linear", "f32", (rows, 3072, 3072)),
            ("gelu_linear", "f32", (rows, 3072, 12288)),
            ("linear", "f32", (rows, 12288, 3072)),
        ]
    cases += [("linear", "f32", (4608, 3072, 21504)), ("linear", "f32", (4608, 15360, 3072))]
    cases += [("attention", "f32", (1, 24, 4608, 4608, 128)), ("layernorm", "f32", (4608, 3072))]
    return cases


def all_cases():
    """(model, operation, dtype, sizes), every shape once."""
    sets = {
        "SD1.5 512": unet(2, [64, 32, 16, 8], [320, 640, 1280, 1280], [8] * 4, 768, [0, 1, 2]),
        "SDXL 1024": unet(2, [128, 64, 32], [320, 640, 1280], [5, 10, 20], 2048, [1, 2]),
        "Flux 1024": flux(),
        "VAE 512": vae(512),
        "VAE 1024": vae(1024),
    }
    seen, cases = set(), []
    for model, some in sets.items():
        for case in some:
            if case not in seen:
                seen.add(case)
                cases.append((model, *case))
    return cases


def quick_cases():
    """A few shapes of each kind that show whether a change made anything slower."""
    return [
        ("SD1.5 512", "conv", "f32", (2, 320, 320, 64, 64, 3, 1)),
        ("SD1.5 512", "conv", "f32", (2, 640, 640, 32, 32, 3, 1)),
        ("SD1.5 512", "conv", "f32", (2, 1280, 1280, 16, 16, 3, 1)),
        ("SD1.5 512", "conv", "f32", (2, 1280, 1280, 8, 8, 3, 1)),
        ("VAE 512", "conv", "f32", (1, 512, 512, 64, 64, 3, 1)),
        ("VAE 512", "conv", "f32", (1, 256, 256, 256, 256, 3, 1)),
        ("VAE 512", "conv", "f32", (1, 128, 128, 512, 512, 3, 1)),
        ("SD1.5 512", "conv", "f32", (2, 320, 320, 64, 64, 1, 1)),
        ("SD1.5 512", "conv", "f32", (2, 960, 640, 32, 32, 1, 1)),
        ("SD1.5 512", "conv", "f32", (2, 320, 320, 64, 64, 3, 2)),
        ("SD1.5 512", "conv", "f32", (2, 640, 640, 32, 32, 3, 2)),
        ("SD1.5 512", "attention", "f32", (1, 8, 4096, 4096, 40)),
        ("SD1.5 512", "attention", "f32", (1, 8, 1024, 1024, 80)),
        ("Flux 1024", "attention", "f32", (1, 8, 4096, 4096, 128)),
        ("SD1.5 512", "attention", "f32", (2, 8, 4096, 77, 40)),
        ("SD1.5 512", "linear", "f32", (8192, 320, 320)),
        ("SD1.5 512", "linear", "f32", (2048, 640, 640)),
        ("SD1.5 512", "geglu_linear", "f32", (2048, 640, 5120)),
        ("SD1.5 512", "linear", "f16", (2048, 640, 640)),
        ("SD1.5 512", "linear", "bf16", (2048, 640, 640)),
        ("SD1.5 512", "groupnorm_silu", "f32", (2, 320, 64, 64)),
        ("VAE 512", "groupnorm_silu", "f32", (1, 128, 512, 512)),
        ("SD1.5 512", "layernorm", "f32", (8192, 320)),
        ("SD1.5 512", "geglu", "f32", (4096, 2560)),
        ("SD1.5 512", "gelu", "f32", (4096, 2560)),
    ]
