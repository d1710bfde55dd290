"""Records as producers write them, small enough to reckon with by hand."""

import math
import re

import numpy as np

from sbkit import records
from sbkit.conv import save_weights
from sbkit.repetition import random_codes

DENSITY = {"binary": 1.0, "full_precision": 1.0, "ternary_twn": 0.58, "signed_binary": 0.35, "zero_one": 0.3}
RECIPE = {"dataset": "fashion_mnist", "model": "resnet8", "width": 16, "epochs": 3}


def curve(quantizer, beta):
    w = np.linspace(-1.5, 1.5, 61)
    if quantizer == "full_precision":
        forward = w
    elif quantizer == "binary":
        forward = np.where(w >= 0, 1.0, -1.0)
    elif quantizer == "ternary_twn":
        forward = np.sign(w) * (np.abs(w) > 0.5)
    else:
        forward = (beta or 1.0) * ((beta or 1.0) * w > 0.1)
    window = (np.abs(w) <= 1).astype(float)
    gradients = {f"gradient_{stage}": (window * g).tolist() for stage, g in (("start", 1), ("middle", 1), ("end", 1))}
    return {"beta": beta, "w": w.tolist(), "forward": forward.tolist(), **gradients}


def train_record(folder, label, seed, top1, *, codes=None, quantizer=None, **config):
    """Write a training record and, if given, the codes of its layers."""
    quantizer = quantizer or label
    signed = quantizer == "signed_binary"
    counts = np.round(500 * np.exp(-(np.linspace(-3, 3, 41) ** 2))).astype(int)
    effectual = counts * (np.abs(np.linspace(-3, 3, 41)) > 1)
    density = DENSITY[quantizer]
    size = 75_000 * config.get("width", 16) ** 2 // 256
    record = records.Record(
        "train",
        f"{label}-{seed}",
        RECIPE | {"quantizer": quantizer, "seed": seed} | config,
        {
            "top1_percent": top1,
            "density": density,
            "effectual_weights": round(size * density),
            "total_parameters": size + 2_000,
            "weight_bits": 2 if quantizer.startswith("ternary") else 32 if quantizer == "full_precision" else 1,
            "train_seconds": 10.0 + seed,
        },
        {
            "epochs": [
                {"epoch": e, "top1_percent": top1 - 9 / e**2, "train_loss": 1 / e, "density": density}
                | {"flip_fraction": 0.1 / e, "gradient_signal": 0.02 / e}
                for e in range(1, 7)
            ],
            "layers": [
                {"name": f"layer{i}.conv", "density": min(1.0, density * (1.2 - 0.08 * i))}
                for i in range(0 if quantizer == "full_precision" else 6)
            ],
            "latent": {
                layer: {
                    "edges": np.linspace(-0.4, 0.4, 42).tolist(),
                    "positive": counts.tolist(),
                    "positive_effectual": (effectual * (np.arange(41) > 20 if signed else 1)).tolist(),
                    "negative": (counts * signed).tolist(),
                    "negative_effectual": (effectual * (np.arange(41) < 20) * signed).tolist(),
                }
                for layer in ("layer1.0.conv1", "layer3.0.conv2")
            },
            "response": [curve(quantizer, beta) for beta in ((1.0, -1.0) if signed else (None,))],
        },
        {"status": "ok", "cpu": "test"},
    )
    records.write(record, folder / "records" / "train" / f"{label}-s{seed}.json")
    if codes:
        save_weights(folder / "weights" / f"{label}-s{seed}.npz", codes)


# Runs that change signed binary, their top-1 above its, and their options.
CHANGES = (
    ("ablate_interleaved", 0.5, {"assignment": "interleaved"}),
    ("ablate_swapped", -2.0, {"swap_at": 0.5}),
    ("ablate_delta_0.2", 1.5, {"delta_factor": 0.2}),
    ("ablate_threshold_learned", 0.2, {"threshold": "learned"}),
    ("ablate_l1", -1.0, {"l1": 1e-4}),
    ("ablate_epochs", 3.0, {"epochs": 9}),
    ("signed_binary_regions", 2.5, {"region_channels": 4, "assignment": "random"}),
    ("review_from_binary", 9.0, {"start_from": "binary"}),
)


def write_ablations(folder):
    """Signed binary and the runs that change it, two seeds each; the n-th change gains n times 0.1 more in seed 1."""
    own = {"quantizer": "signed_binary", "delta_factor": 0.05, "assignment": "first_half", "region_channels": 0}
    for seed in (0, 1):
        train_record(folder, "signed_binary", seed, 80.0 + seed, **own)
        for place, (label, gain, options) in enumerate(CHANGES):
            train_record(folder, label, seed, 80.0 + seed + gain + 0.1 * place * seed, **own | options)
    return folder


TAP_SIGNS = {"region_taps": 1, "assignment": "random", "threshold": "mean", "delta_factor": 1.0}
DESIGNS = (
    ("ablate_any", -0.5, {"region_channels": 8}),
    ("ablate_codebook", -1.0, {"region_channels": 16, "codebook_bits": 6}),
    ("ablate_learned_codebook", -1.5, {"region_channels": 16, "codebook_bits": 6, "codebook": "learned"}),
    ("ablate_few", 0.0, {"region_channels": 16, "codebook_bits": 4}),
    ("ablate_random_codebook", -1.8, {"region_channels": 16, "codebook_bits": 6, "codebook": "random"}),
    ("ablate_untimed", -2.0, {"region_channels": 16, "codebook_bits": 2}),
)
SIGNS = {"region_channels": 16, "region_taps": 1, "codebook_bits": 4, "codebook": "learned"}


def write_codebooks(folder):
    """Binary, signed binary and designs with codebooks, three seeds; a benchmark that knows all of them but one."""
    for seed, noise in enumerate((0.0, 0.2, -0.2)):
        train_record(folder, "binary", seed, 87.0 + seed)
        train_record(folder, "signed_binary", seed, 84.0 + seed + noise)
        for label, gain, options in DESIGNS:
            top1 = 87.0 + seed + gain + noise
            train_record(folder, label, seed, top1, quantizer="signed_binary", **TAP_SIGNS | options)
        train_record(folder, "ablate_signs", seed, 85.0 + seed + noise, quantizer="binary", **SIGNS)
        # no part of the comparison: another recipe
        train_record(folder, "review_rate", seed, 99.0, quantizer="signed_binary", learning_rate=0.5, **TAP_SIGNS)
    timings = []
    for layer, ms in LAYERS:
        timings.append(timing(layer, "torch", "contiguous", ms))
        for *what, factor, more in (
            ("table", "binary", 0.8, {}),
            ("table", "binary", 0.4, {"encoding": "signed"}),
            ("table", "signed_binary", 0.36, {}),
            ("table", "signed_binary", 0.3, {"regions": 4}),
            ("table", "signed_binary", 0.3, {"regions": 16, "codebook_bits": 6}),
            ("table", "signed_binary", 0.2, {"regions": 16, "codebook_bits": 6, "encoding": "codebook"}),
            ("sparse", "signed_binary", 0.25, {"regions": 16, "codebook_bits": 6}),
            ("table", "binary", 0.24, {"regions": 16, "codebook_bits": 4, "encoding": "codebook"}),
        ):
            timings.append(timing(layer, *what, ms * factor, **more))
    write_bench(folder, "codebooks", timings, study="codebooks")
    return folder


LAYERS = (("64→64 @56", 1.0), ("512→512 @7", 1.5))  # and milliseconds
PEERS = ("torch", "onnxruntime", "openvino")


def timing(layer, contender, variant, ms, **more):
    """One row of a bench record; `layer` is such as 64→64 @56."""
    C, K, H = (int(number) for number in re.findall(r"\d+", layer)) if layer != "network" else (0, 0, 0)
    peer = contender in PEERS
    return {
        "layer": layer,
        "C": C,
        "K": K,
        "H": H,
        "contender": contender,
        "variant": variant,
        "scheme": "" if peer else variant,
        "precision": variant if variant in ("bf16", "int8") else "fp32",
        "encoding": "" if peer else "two_group",
        "skip_zeros": True,
        "group": 6 if contender == "table" else 0,
        "regions": 0,
        "density": 1.0 if peer else DENSITY[variant],
        "batch": 1,
        "model": "",
        "median_ms": ms,
        "iqr_ms": ms * 0.02,
        "min_ms": ms * 0.98,
        "round_ms": [ms * f for f in (0.98, 1.0, 1.01, 1.0, 1.03)],
        "rounds": 5,
        "gmacs": K * C * 9 * H * H / ms / 1e6,
        "reduction": 9.5,
        "best_reduction": 11.5,
        "weight_bytes": 9 * K * C * (4 if peer else 1) // {"bf16": 2, "int8": 4}.get(variant, 1),
        "plan_seconds": 0.0 if peer else 0.002,
        "bound_ms": 0.4 * ms if contender == "table" else None,
        "roofline_fraction": 0.4 if contender == "table" else None,
        "flagged": False,
    } | more


# Contender, variant, milliseconds over those of the layer, and what differs from `timing`.
KERNELS = (
    ("torch", "bf16", 0.38, {}),
    ("onnxruntime", "fp32", 1.1, {}),
    ("onnxruntime", "int8", 0.42, {}),
    ("openvino", "fp32", 1.3, {}),
    ("table", "signed_binary", 0.5, {}),
    ("table", "signed_binary", 0.57, {"skip_zeros": False}),
    ("table", "signed_binary", 0.62, {"regions": 4, "group": 4}),
    ("table", "signed_binary", 0.52, {"group": 4}),
    ("table", "zero_one", 0.48, {}),
    ("table", "binary", 0.63, {}),
    ("table", "binary", 0.55, {"encoding": "rewritten"}),
    ("table", "binary", 0.53, {"encoding": "signed"}),
    ("table", "ternary_twn", 0.9, {"flagged": True}),
    ("table", "ternary_twn", 0.7, {"encoding": "signed"}),
    ("sparse", "signed_binary", 1.4, {}),
    ("sparse", "binary", 3.0, {}),
    ("dataflow", "signed_binary", 0.8, {"reduction": 12.0, "best_reduction": 12.0}),
    ("dataflow", "signed_binary", 1.6, {"skip_zeros": False}),
    ("dataflow", "zero_one", 0.8, {}),
    ("dataflow", "binary", 1.6, {"best_reduction": 6.2}),
    ("dataflow", "binary", 1.0, {"encoding": "rewritten"}),
    ("dataflow", "ternary_twn", 1.2, {}),
    ("dataflow", "ternary_twn", 1.9, {"skip_zeros": False}),
)


def write_bench(folder, name, timings, cpu="test", started="2026-01-01T00:00:00Z", **config):
    config = {"study": "layers", "shapes": "resnet18", "threads": 1, "rounds": 5, "density": 0.35, "batch": 1} | config
    provenance = {"status": "ok", "cpu": cpu, "isa": "avx2", "started_utc": started}
    metrics = {"timings": timings, "peaks": {"fma_gmacs": 1.2, "l1_gadds": 4.0, "l2_gadds": 2.0, "lanes": 8}}
    record = records.Record("bench", name, config, metrics, {}, provenance)
    records.write(record, folder / "records" / "bench" / f"{name}.json")


def bench_record(folder, name="layers", faster=1.0, **changes):
    timings = []
    for layer, ms in LAYERS:
        timings += [
            timing(layer, "torch", "contiguous", ms / faster * (2 if layer.startswith("64") else 1)),
            timing(layer, "torch", "channels_last", ms / faster * 1.2),
        ]
        timings += [timing(layer, *what, ms / faster * factor, **more) for *what, factor, more in KERNELS]
    write_bench(folder, name, timings, **changes)


def threads_record(folder):
    timings = []
    for layer, ms in LAYERS:
        for n in (1, 2):
            more = {"on_threads": n, "bound_ms": None, "roofline_fraction": None}
            timings.append(timing(layer, "torch", "contiguous", ms / (1 if n == 1 else 1.25), **more))
            timings.append(timing(layer, "table", "signed_binary", ms / 2 / (1 if n == 1 else 1.5), **more))
    write_bench(folder, "threads", timings, study="threads", threads=2)


def entropy(*probabilities):
    return -sum(p * math.log2(p) for p in probabilities if p > 0)


def density_record(folder):
    """Signed binary and ternary cost exactly their entropy by `table` and `dataflow`, and their density by `sparse`."""
    timings = []
    for algorithm, scale in (("sparse", 1.0), ("table", 0.2), ("dataflow", 0.3)):
        for percent in range(5, 100, 15):
            d = percent / 100
            for scheme, bits in (("signed_binary", entropy(d, 1 - d)), ("ternary_twn", entropy(d / 2, d / 2, 1 - d))):
                cost = scale * (d if algorithm == "sparse" else bits)
                encoding = "signed" if (algorithm, scheme) == ("table", "ternary_twn") else "two_group"
                more = {"density": d, "entropy_bits": bits, "best_reduction": 2 / cost, "encoding": encoding}
                timings.append(timing("128→128 @28", algorithm, scheme, cost, **more))
        for encoding, factor in (("two_group", 2.0), ("rewritten", 1.1), ("signed", 1.0)):
            if encoding == "signed" and algorithm != "table":
                continue
            cost = scale * factor * (0.9 if algorithm == "dataflow" else 1.0)
            more = {"entropy_bits": 1.0, "best_reduction": 2 / cost, "encoding": encoding}
            timings.append(timing("128→128 @28", algorithm, "binary", cost, **more))
    write_bench(folder, "density", timings, study="density")


def network_record(folder, batch):
    timings = []
    for *what, ms, more in (
        ("torch", "contiguous", 40.0, {}),
        ("torch", "channels_last", 30.0, {}),
        ("torch", "frozen", 28.0, {}),
        ("onnxruntime", "fp32", 25.0, {}),
        ("openvino", "fp32", 27.0, {}),
        ("table", "binary", 14.0, {"encoding": "signed"}),
        ("table", "ternary_twn", 17.5, {"encoding": "signed"}),
        ("table", "signed_binary", 12.5, {}),
    ):
        more = more | {"batch": batch, "model": "resnet18", "bound_ms": None, "roofline_fraction": None}
        timings.append(timing("network", *what, ms * batch * (1 if batch == 1 else 0.8), **more))
    name = "network" if batch == 1 else f"network_batch_{batch}"
    write_bench(folder, name, timings, study="network", batch=batch)


TOP1 = {
    "full_precision": (89.1, 89.4, 89.0),
    "binary": (87.0, 87.4, 86.9),
    "ternary_twn": (88.0, 88.2, 87.8),
    "zero_one": (78.0, 80.1, 79.2),
    "signed_binary": (83.0, 84.1, 83.6),
}


def write_profile(folder):
    """A profile of synthetic records: five schemes and a narrow binary, three seeds each; a benchmark of each study."""
    for label, scores in TOP1.items():
        for seed, top1 in enumerate(scores):
            codes = None
            if label != "full_precision":
                generator = np.random.default_rng(seed)
                codes = {
                    f"layer{i}.conv": random_codes(label, (K, C, 3, 3), DENSITY[label], generator)
                    for i, (K, C) in enumerate(((16, 16), (32, 32), (64, 64)))
                }
            train_record(folder, label, seed, top1, codes=codes)
    for seed, top1 in enumerate((82.0, 82.5, 82.4)):
        train_record(folder, "binary_narrow", seed, top1, quantizer="binary", width=10)
    bench_record(folder)
    threads_record(folder)
    density_record(folder)
    for batch in (1, 8):
        network_record(folder, batch)
    return folder
