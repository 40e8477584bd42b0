"""Times the kernels and PyTorch on the same shapes, turn by turn, and prints torch's time divided by ours.

Run through compare.sh, which builds the one and installs the other.
"""

import argparse
import glob
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time

import adapters
import networks
import shapes

# Seconds of a run below which threads and cores that fell asleep would show.
SHORT = 0.05


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few shapes of each kind")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each, after a warm-up")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of processor time, for a busy machine (Linux)")
    parser.add_argument("--filter", default="", help="only cases whose line contains this")
    parser.add_argument("--networks", action="store_true", help="also the whole networks of the checkpoint")
    parser.add_argument("--adapters", action="store_true", help="also a LoRA on the weights of SDXL")
    parser.add_argument("--only", action="store_true", help="with --adapters: nothing else")
    parser.add_argument("--checkpoint", help="an SD1.5 file")
    parser.add_argument("--ours", required=True, help="the folder of the built examples `shapes` and `networks`")
    parser.add_argument("--json", required=True, help="where the table goes")
    return parser.parse_args()


class Ours:
    """The example `shapes` or `networks`, which answers one case per line."""

    def __init__(self, command, threads):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, RAYON_NUM_THREADS=str(threads)),
        )

    def cpu_seconds(self):
        """Processor time of all its threads so far."""
        tasks = glob.glob(f"/proc/{self.process.pid}/task/*/schedstat")
        return sum(int(open(task).read().split()[0]) for task in tasks) / 1e9

    def cpu_time(self, case, warmup, runs):
        """Processor time of each run."""
        if warmup:
            self.time(case, 0, warmup)
        times = []
        for _ in range(runs):
            start = self.cpu_seconds()
            self.time(case, 0, 1)
            times.append(self.cpu_seconds() - start)
        return times

    def time(self, case, warmup, runs):
        """Seconds of each run."""
        return self.run(case, warmup, runs)["times"]

    def run(self, case, warmup, runs):
        _, operation, dtype, sizes = case
        words = [operation, dtype, warmup, runs, *sizes]
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"no answer to {case}")
        return json.loads(answer)


def peer(torch, case):
    """PyTorch's way of doing it: a function without arguments."""
    functional = torch.nn.functional
    _, operation, _, d = case
    random = torch.randn
    if operation in ("linear", "gelu_linear", "geglu_linear"):
        rows, k, n = d
        x, w, b = random(rows, k), random(n, k) / math.sqrt(k), random(n)
        if operation == "linear":
            return lambda: functional.linear(x, w, b)
        if operation == "gelu_linear":
            return lambda: functional.gelu(functional.linear(x, w, b), approximate="tanh")

        def geglu_linear():
            value, gate = functional.linear(x, w, b).chunk(2, -1)
            return value * functional.gelu(gate)

        return geglu_linear
    if operation == "attention":
        batch, heads, queries, keys, width = d
        q, k, v = (random(batch, length, heads * width) for length in (queries, keys, keys))

        def attention():
            split = lambda t: t.view(batch, -1, heads, width).transpose(1, 2)
            y = functional.scaled_dot_product_attention(split(q), split(k), split(v))
            return y.transpose(1, 2).reshape(batch, queries, heads * width)

        return attention
    if operation == "conv":
        batch, inputs, outputs, height, width, kernel, stride = d
        x = random(batch, inputs, height, width)
        w = random(outputs, inputs, kernel, kernel) / math.sqrt(inputs * kernel * kernel)
        b = random(outputs)
        return lambda: functional.conv2d(x, w, b, stride=stride, padding=kernel // 2)
    x = random(*d)
    if operation == "groupnorm_silu":
        gain = random(d[1])
        return lambda: functional.silu(functional.group_norm(x, 32, gain, gain))
    if operation == "layernorm":
        gain = random(d[1])
        return lambda: functional.layer_norm(x, (d[1],), gain, gain)
    if operation == "geglu":

        def geglu():
            value, gate = x.chunk(2, -1)
            return value * functional.gelu(gate)

        return geglu
    if operation == "gelu":
        return lambda: functional.gelu(x)
    raise ValueError(operation)


def flops(case):
    """Multiplications and additions of the definition, or None where they are not what bounds the time."""
    _, operation, _, d = case
    if operation.endswith("linear"):
        return 2 * d[0] * d[1] * d[2]
    if operation == "attention":
        return 4 * math.prod(d)
    if operation == "conv":
        batch, inputs, outputs, height, width, kernel, stride = d
        return 2 * batch * inputs * outputs * (height // stride) * (width // stride) * kernel**2
    return None


def kind(case):
    """The heading of the summary under which a case counts."""
    _, operation, dtype, d = case
    if operation == "conv":
        return f"conv {d[5]}x{d[5]}" + (f" stride {d[6]}" if d[6] > 1 else "")
    if operation == "attention":
        return "self-attention" if d[2] == d[3] else "cross-attention"
    return operation if dtype == "f32" else f"{operation} {dtype}"


def cpu_name():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def rate(case, seconds):
    work = flops(case)
    return f"{work / seconds / 1e9:5.0f} GF/s" if work else " " * 10


def compare(args, case, run, ours):
    """Both in turns; the row of the table."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    run()
    # A turn of a short case begins with a run that does not count, which wakes the threads and fills the caches as inside a network, and
    # takes as many as fill its time.
    seconds = min(ours.time(case, 1, 1))
    ahead, repeats = (1, min(50, int(SHORT / seconds))) if seconds < SHORT else (0, 1)
    torch_times, our_times = [], []
    for _ in range(args.runs):
        for _ in range(ahead):
            run()
        for _ in range(repeats):
            start = clock()
            run()
            torch_times.append(clock() - start)
        # Torch's threads spin for a while before they sleep.
        time.sleep(0.02)
        our_times += ours.cpu_time(case, ahead, repeats) if args.cpu_time else ours.time(case, ahead, repeats)
    theirs, own = statistics.median(torch_times), statistics.median(our_times)
    model, operation, dtype, sizes = case
    name = f"{operation} {dtype} {'x'.join(map(str, sizes))}"
    print(
        f"{model:10} {name:44} torch {theirs * 1e3:9.2f} ms {rate(case, theirs)}"
        f"  ours {own * 1e3:9.2f} ms {rate(case, own)}  ratio {theirs / own:6.2f}",
        flush=True,
    )
    return {
        "model": model,
        "kind": kind(case),
        "operation": operation,
        "dtype": dtype,
        "sizes": sizes,
        "torch_seconds": theirs,
        "our_seconds": own,
        "ratio": theirs / own,
    }


def compare_shapes(args, torch):
    ours = Ours([os.path.join(args.ours, "shapes")], args.threads)
    rows = []
    for case in shapes.quick_cases() if args.quick else shapes.all_cases():
        if args.filter in " ".join(map(str, case)):
            rows.append(compare(args, case, peer(torch, case), ours))
    return rows


def compare_networks(args, torch):
    """Times, peak memory of a process that runs the network once, and how far the results are apart."""
    command = [os.path.join(args.ours, "networks"), args.checkpoint]
    rows = []
    for case in networks.CASES:
        if args.filter not in " ".join(map(str, case)):
            continue
        ours = Ours(command, args.threads)
        run = networks.peer(torch, args.checkpoint, case)
        result = run().flatten()
        spread = [result[i * (result.numel() - 1) // 15].item() for i in range(16)]
        error = max(abs(a - b) for a, b in zip(spread, ours.run(case, 0, 1)["sample"]))
        own_memory = networks.peak_memory(ours.process.pid)
        program = [sys.executable, networks.__file__, args.checkpoint, case[1]]
        memory = int(subprocess.run(program, capture_output=True, check=True, text=True).stdout)
        row = compare(args, case, run, ours)
        relative = error / result.abs().max().item()
        row |= {"torch_bytes": memory, "our_bytes": own_memory, "relative_error": relative}
        print(
            f"{'':10} peak memory: torch {memory / 1e6:.0f} MB, ours {own_memory / 1e6:.0f} MB, "
            f"ours / torch {own_memory / memory:.2f}; results differ by {relative:.1e} of the largest value",
            flush=True,
        )
        rows.append(row)
    return rows


def compare_adapters(args, torch):
    """Times, and how far the patched weights are apart."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
    rows = []
    for case in adapters.CASES:
        if args.filter not in " ".join(map(str, case)):
            continue
        paths = adapters.make(torch, root, os.path.dirname(args.json), case)
        ours = Ours([os.path.join(args.ours, "adapters"), *paths], args.threads)
        run = adapters.peer(torch, paths)
        error = max(abs(a - b) for a, b in zip(adapters.sample(run()), ours.run(case, 0, 1)["sample"]))
        # The sizes of this case are a name, which the other side does not need.
        row = compare(args, case[:3] + ((),), run, ours) | {"largest_difference": error}
        print(f"{'':10} the patched weights differ by {error:.1e} at most", flush=True)
        rows.append(row)
        ours.process.terminate()
    return rows


def main():
    args = arguments()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import torch

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    rows = [] if args.only else compare_shapes(args, torch)
    if args.adapters:
        rows += compare_adapters(args, torch)
    if args.networks:
        rows += compare_networks(args, torch)
    groups = {}
    for row in rows:
        groups.setdefault(row["kind"], []).append(row["ratio"])
    print("\ngeometric mean of the ratios (least)")
    summary = {}
    for name, ratios in groups.items():
        summary[name] = {"mean": statistics.geometric_mean(ratios), "least": min(ratios), "cases": len(ratios)}
        print(f"{name:24} {summary[name]['mean']:6.2f} ({min(ratios):.2f} of {len(ratios)})")
    table = {
        "cpu": cpu_name(),
        "threads": args.threads,
        "torch": torch.__version__,
        "runs": args.runs,
        "clock": "processor time" if args.cpu_time else "wall",
        "summary": summary,
        "cases": rows,
    }
    with open(args.json, "w") as out:
        json.dump(table, out, indent=1)


if __name__ == "__main__":
    main()
