import hashlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from dataclasses import fields, replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import forked
from PIL import Image

from sbkit import cpu, data, inference, models, records, training
from sbkit.conv import load_weights
from sbkit.quantizers import QuantizerConfig, activations
from sbkit.quantizers.activations import LearnedStep
from sbkit.schemes import CODED, SCHEMES
from sbkit.training import TrainConfig, diagnostics, loop, norms, progress, run, schedule_lr, train
from sbkit.training.__main__ import main
from sbkit.training.checkpoint import load_state
from sbkit.training.config import CHECKPOINTS
from sbkit.training.setup import build, compiled, finished, prepare

TINY = TrainConfig(
    dataset="digits", width=4, image_size=0, train_images=256, batch_size=64, epochs=1, learning_rate=5e-3
)
SIGNED = QuantizerConfig()
QUIET = {"progress": "none", "threads": 1}
SMALL = [
    "--dataset=digits", "--width=4", "--image-size=0", "--train-images=256", "--batch-size=64", "--epochs=2",
    "--learning-rate=5e-3", "--augment=crop_flip", "--progress=lines",
]  # fmt: skip


def same_weights(a, b):
    return training.weights_sha256(a) == training.weights_sha256(b)


def untimed(history):
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in history["epochs"]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Finished runs, by name: paths of their checkpoints."""
    folder = tmp_path_factory.mktemp("kept")
    recipes = {
        "full_precision": (TINY, QuantizerConfig("full_precision")),
        "other": (replace(TINY, seed=1), QuantizerConfig("full_precision")),
        "ternary_ttq": (TINY, QuantizerConfig("ternary_ttq")),
        "prelu": (replace(TINY, nonlinearity="prelu"), QuantizerConfig("binary")),
        "swapped": (TINY, QuantizerConfig(swap_at=0.5, assignment="random", channel_signs=True)),
    }
    for name, configs in recipes.items():
        run(*configs, folder, name=name, **QUIET)
    return {name: folder / "checkpoints" / f"{name}.pt" for name in recipes}


# Schedule


def test_one_cycle_warms_up_peaks_and_ends_at_zero():
    config = replace(TINY, schedule="one_cycle", learning_rate=1.0)
    rates = [schedule_lr(config, step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(1 / 25) and rates[150] == pytest.approx((1 + 1 / 25) / 2)
    assert rates[300] == pytest.approx(1) and rates[650] == pytest.approx(0.5) and rates[1000] == pytest.approx(0)
    assert all(a < b for a, b in pairwise(rates[:301]))
    assert all(a > b for a, b in pairwise(rates[300:]))


def test_cosine_and_linear_fall_from_the_peak_to_zero():
    cosine, linear = (replace(TINY, schedule=schedule, learning_rate=0.1) for schedule in ("cosine", "linear"))
    steps = (0, 25, 50, 100)
    quarter = 0.05 * (1 + math.sqrt(0.5))
    assert [schedule_lr(cosine, step, 100) for step in steps] == pytest.approx([0.1, quarter, 0.05, 0])
    assert [schedule_lr(linear, step, 100) for step in steps] == pytest.approx([0.1, 0.075, 0.05, 0])


def test_the_optimizer_follows_the_schedule_and_the_estimator_the_progress(monkeypatch):
    rates, told = [], []
    step, set_progress = torch.optim.Adam.step, loop.set_progress
    monkeypatch.setattr(torch.optim.Adam, "step", lambda a: (rates.append(a.param_groups[0]["lr"]), step(a)))
    monkeypatch.setattr(loop, "set_progress", lambda model, p: (told.append(p), set_progress(model, p)))
    config = replace(TINY, epochs=2)
    train(config, SIGNED, **QUIET)
    assert rates == [schedule_lr(config, index, 8) for index in range(8)]
    assert told == [index / 8 for index in range(8)]


# Training


def test_training_learns_digits():
    config = replace(TINY, train_images=0, epochs=6, width=8)
    top1 = {
        key: train(config, QuantizerConfig(key), **QUIET).metrics["top1_percent"] for key in ("binary", "signed_binary")
    }
    assert min(top1.values()) > 85, top1


@pytest.mark.parametrize("key", SCHEMES)
def test_every_scheme_trains_and_reports_itself(key):
    result = train(TINY, QuantizerConfig(key), **QUIET)
    metrics, history = result.metrics, result.history
    assert metrics["quantized_weights"] == sum(
        p.numel() for n, p in result.model.named_parameters() if n.endswith(("conv1.weight", "conv2.weight"))
    )
    assert metrics["effectual_weights"] == round(metrics["density"] * metrics["quantized_weights"])
    assert metrics["weight_bits"] == SCHEMES[key].stored_bits
    assert 0 < metrics["density"] <= 1 and (metrics["density"] < 1) == SCHEMES[key].zeros
    (epoch,) = history["epochs"]
    assert epoch["density"] == metrics["density"] and (epoch["flip_fraction"] > 0) == (key in CODED)
    assert len(history["layers"]) == (6 if key in CODED else 0)
    for layer, histogram in history["latent"].items():
        size = dict(result.model.named_parameters())[f"{layer}.weight"].numel()
        assert sum(histogram["positive"]) + sum(histogram["negative"]) == size
        assert len(histogram["edges"]) == len(histogram["positive"]) + 1
        assert all(e <= a for e, a in zip(histogram["positive_effectual"], histogram["positive"], strict=True))
        assert (sum(histogram["negative"]) == size // 2) == (key == "signed_binary")
        # Ineffectual weights of a positive region lie below its threshold: the upper tail is all effectual.
        assert histogram["positive_effectual"][-1] == histogram["positive"][-1]
    assert len(history["latent"]) == 3 and len(history["per_class_percent"]) == 10


def test_flips_count_changed_codes():
    before, after = {"a": np.array([1, 0, -1, 1])}, {"a": np.array([1, 1, 1, 1])}
    assert diagnostics.flip_fraction(before, after) == 0.5 and diagnostics.flip_fraction({}, {}) == 0.0


def test_evaluation_counts_every_test_image_once():
    digits = data.load("digits")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.arange(10) == 3)
    tested = training.evaluate(model, digits, TINY)
    assert tested["top1_percent"] == pytest.approx(100 * (digits.y_test == 3).sum().item() / 359)
    assert tested["per_class_percent"] == [100.0 if label == 3 else 0.0 for label in range(10)]
    logits = torch.zeros(359, 10)
    logits[:, 3] = 1
    assert tested["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, digits.y_test).item(), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"augment": "crop_flip", "optimizer": "sgd", "learning_rate": 0.05}])
def test_a_seed_decides_every_bit_and_another_seed_differs(options):
    config = replace(TINY, **options)
    first, again, other = (train(replace(config, seed=seed), SIGNED, **QUIET).model for seed in (0, 0, 1))
    assert same_weights(first, again) and not same_weights(first, other)


def test_a_diverging_run_says_so():
    with pytest.raises(FloatingPointError, match=r"at step \d+.*learning_rate"):
        train(replace(TINY, learning_rate=1e30, optimizer="sgd"), QuantizerConfig("full_precision"), **QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet9"}, "model = 'resnet9'; allowed: resnet8"),
        ({"optimizer": "lamb"}, "adam, sgd"),
        ({"augment": "mixup"}, "crop_flip"),
        ({"epochs": 0}, "epochs = 0; allowed: an integer >= 1"),
        ({"batch_size": 64.0}, "batch_size = 64.0; allowed"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0; allowed"),
        ({"block": "xnor"}, "block = 'xnor'; allowed: basic, released"),
        ({"activation_bits": 1}, "activation_bits = 1; allowed: an integer from 2 to 8"),
        ({"outer_layers": "int8"}, "outer_layers = 'int8'; allowed: floats, integers"),
        ({"validation_images": -1}, "validation_images = -1; allowed: an integer >= 0"),
        ({"l1": math.inf}, "l1 = inf; allowed"),
        ({"width": 10**9}, "width = 1000000000; allowed: an integer from 0 to 4096"),
        ({"seed": 2**32}, "seed = 4294967296; allowed: an integer from 0 to 4294967295"),
        ({"dataset": 5}, "dataset = 5; allowed: a name or path"),
        ({"start_from": None}, "start_from = None; allowed: a name or path"),
        ({"compile": "no"}, "compile = 'no'; allowed: True, False"),
        ({"robustness": 1}, "robustness = 1; allowed: True, False"),
    ],
)
def test_a_wrong_recipe_is_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


@pytest.mark.parametrize(
    ("options", "how", "message"),
    [
        ({"batch_size": 512}, {}, "batch_size = 512"),
        ({"distill_from": "absent.pt"}, {}, r"distill_from = 'absent.pt' is not a file; allowed: checkpoints/"),
        ({"start_from": "."}, {}, r"start_from = '\.' is not a file; allowed: checkpoints/"),
        ({"dataset": "image_folder:absent"}, {}, "absent/train does not exist"),
        ({}, {"progress": "loud"}, "progress = 'loud'; allowed: auto"),
        ({}, {"threads": 0}, "threads = 0; allowed: an integer"),
        ({}, {"threads": 10**6}, "threads = 1000000; allowed: an integer"),
        ({}, {"name": "../../evil"}, r"name = '\.\./\.\./evil'; allowed"),
        ({}, {"name": "/etc/evil"}, "name = '/etc/evil'; allowed"),
        ({}, {"name": "a" * 101}, "allowed: up to 100 letters"),
        ({}, {"folder": "/proc/sbkit"}, "folder = '/proc/sbkit' cannot be written"),
        ({}, {"folder": ""}, "folder = ''; allowed: the path of a folder"),
        ({}, {"folder": __file__}, r"folder = '.*test_training.py' cannot be written"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_written(tmp_path, options, how, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(replace(TINY, **options), SIGNED, **{"folder": tmp_path} | QUIET | how)
    assert list(tmp_path.iterdir()) == []
    words = {**options, "folder": tmp_path, **how}
    with pytest.raises(SystemExit) as stopped:
        main([*SMALL, *(f"--{name.replace('_', '-')}={value}" for name, value in words.items())])
    assert stopped.value.code == 2 or re.fullmatch(f"error: .*{message}.*", stopped.value.code)


def test_a_number_of_processes_that_is_none_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(SystemExit, match="error: WORLD_SIZE = 'two'; allowed: a whole number"):
        main([*SMALL, f"--folder={tmp_path}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "place", ["records", "weights", "checkpoints", "records/train/a.json", "checkpoints/a.partial.pt"]
)
def test_files_and_folders_in_the_place_of_the_other_are_named(tmp_path, place):
    """Nothing is trained first."""
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).mkdir() if "." in place else (tmp_path / place).touch()
    with pytest.raises((ValueError, OSError), match=place):
        run(TINY, SIGNED, tmp_path, name="a", **QUIET)


@pytest.fixture
def pets(tmp_path):
    """Makes folders of images, `image_folder:<tmp_path>/<where>/pets`, whose pixels a seed decides."""

    def make(where, seed=0, size=(8, 8)):
        random = np.random.default_rng(seed)
        for part, count in (("train", 8), ("test", 2)):
            for name in ("cat", "dog"):
                folder = tmp_path / where / "pets" / part / name
                folder.mkdir(parents=True, exist_ok=True)
                for index in range(count):
                    image = Image.fromarray(random.integers(0, 256, size, np.uint8))
                    image.save(folder / f"{index}.png", compress_level=0)
        return replace(TINY, dataset=f"image_folder:{tmp_path / where / 'pets'}", train_images=0, batch_size=8)

    return make


@pytest.mark.parametrize("model", models.MODELS)
def test_oblong_images_train_or_are_refused_by_name(pets, tmp_path, monkeypatch, model):
    monkeypatch.setenv("SBKIT_ROOT", str(tmp_path))
    config = replace(pets("a", size=(28, 35) if model == "transformer" else (32, 40)), model=model)
    if model in ("mlp", "vgg_small", "transformer"):
        with pytest.raises(
            ValueError, match=rf"{model} needs square images, .*pets are \d+x\d+ pixels; allowed: image_"
        ):
            prepare(config, SIGNED)
    else:
        assert prepare(config, SIGNED).model(torch.zeros(1, 1, 32, 40)).shape == (1, 2)


# Interruption, and running again


def interrupting(call):
    """An `evaluate` that a person interrupts at its first or second call."""
    calls = []

    def evaluate(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return training.evaluate(*arguments)

    return evaluate


def test_an_interrupted_run_says_so_in_a_line_and_continues_to_the_same_bits(tmp_path, monkeypatch, capsys):
    config, quantizer = replace(TINY, epochs=3, augment="crop_flip"), QuantizerConfig("ternary_ttq")
    again = {"folder": tmp_path, "name": "a", "progress": "lines", "threads": 1}
    lines = (
        "in epoch 1 of 3: running it again starts from the beginning",
        "after epoch 1 of 3: running it again continues",
    )
    for call, line in enumerate(lines, 1):
        with monkeypatch.context() as patch, pytest.raises(training.Interrupted) as stopped:
            patch.setattr(loop, "evaluate", interrupting(call))
            run(config, quantizer, **again)
        assert stopped.value._render_traceback_() == [f"interrupted {line}"]  # as IPython shows it
    assert capsys.readouterr().out.startswith("epoch 1/3  loss ")
    record = run(config, quantizer, **again)
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"continues after epoch 1 of 3, from {tmp_path / 'checkpoints' / 'a.partial.pt'}"
    assert [line.split()[1] for line in others] == ["2/3", "3/3"]
    whole = train(config, quantizer, **QUIET)
    assert record.provenance["weights_sha256"] == training.weights_sha256(whole.model)
    assert untimed(record.history) == untimed(whole.history)
    monkeypatch.setattr(loop, "evaluate", interrupting(1))
    with pytest.raises(KeyboardInterrupt) as stopped:  # without a checkpoint nothing would continue
        train(TINY, SIGNED, **QUIET)
    assert stopped.type is KeyboardInterrupt


def test_a_finished_run_with_outer_layers_in_integers_is_lowered(tmp_path):
    """In bf16, whose training is off the integers' values, while its tests are not."""
    config = replace(TINY, activation_bits=6, outer_layers="integers", epochs=2)
    config = replace(config, precision="fp32" if cpu.bf16_trouble() else "bf16")
    record = run(config, SIGNED, tmp_path, name="a", progress="none")
    again = finished("networks", str(tmp_path / "checkpoints" / "a.pt"))
    images, view = again.data, {"mean": again.data.mean, "std": again.data.std, "shuffle": False}
    x, y = next(data.batches(images.x_test, images.y_test, len(images.y_test), **view))
    right = inference.lower(again.model, x, tune=False)(x).argmax(1) == y
    off = 100 * right.double().mean().item() - record.metrics["top1_percent"]
    assert abs(off) < 100 * 2.5 / len(y)  # two images: a sum beside a tie is another integer on another CPU
    assert record.config["outer_layers"] == "integers"


@pytest.mark.skipif(bool(cpu.bf16_trouble()), reason="no bf16 here")
def test_statistics_of_norms_are_those_of_the_arithmetic_of_the_test(monkeypatch):
    """Of the first batches of the run's own seed, in float32; not where bf16 is tested in bf16."""
    monkeypatch.setattr(norms, "BATCHES", 3)
    seen, config = [], replace(TINY, precision="bf16", augment="crop_flip", epochs=2)
    integers = train(replace(config, activation_bits=6), SIGNED, **QUIET).model
    images = data.load("digits", train_images=256, seed=0)
    view = {"mean": images.mean, "std": images.std, "augment": "crop_flip"}
    order = torch.Generator().manual_seed(config.seed)
    batches = data.batches(images.x_train, images.y_train, 64, generator=order, **view)
    hook = integers.stem[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    for x, _ in islice(batches, 3):
        integers.eval()(x)
    hook.remove()
    for statistic, found in (("mean", integers.stem[1].running_mean), ("var", integers.stem[1].running_var)):
        expected = torch.stack([getattr(x, statistic)((0, 2, 3)) for x in seen]).mean(0)
        torch.testing.assert_close(found, expected)
    assert integers.stem[1].momentum == 0.1
    monkeypatch.setattr(loop, "settle_norms", lambda setup: pytest.fail("not for floats"))
    train(config, SIGNED, **QUIET)
    train(replace(config, precision="fp32", activation_bits=6), SIGNED, **QUIET)


def test_a_killed_run_continues_to_the_same_bits(tmp_path):
    killed, whole = ([*SMALL, f"--folder={tmp_path}", f"--name={name}"] for name in ("killed", "whole"))

    def task():
        save = loop.Setup.save
        loop.Setup.save = lambda *a: (save(*a), os.kill(os.getpid(), signal.SIGKILL))
        main(killed)

    assert forked(task)() == -signal.SIGKILL
    assert [path.name for path in tmp_path.rglob("*.*")] == ["killed.partial.pt"]
    for arguments in (killed, whole):
        main(arguments)
    killed, whole = (records.load(tmp_path / "records" / "train" / f"{name}.json") for name in ("killed", "whole"))
    assert killed.provenance["weights_sha256"] == whole.provenance["weights_sha256"]
    assert untimed(killed.history) == untimed(whole.history)


def test_a_finished_run_is_not_trained_again_and_no_other_takes_its_name(tmp_path, capsys, monkeypatch):
    record = run(TINY, SIGNED, tmp_path, name="a", **QUIET)
    path = tmp_path / "records" / "train" / "a.json"
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["sbkit.training.run"], "train", None)
        again = run(TINY, SIGNED, tmp_path, name="a", progress="lines")
        assert again == records.load(path) and again.id == record.id
        top1 = record.metrics["top1_percent"]
        said = f"a is finished: top-1 {top1:.2f} %. To train it again, delete {path}\n"
        assert capsys.readouterr().out == said
        both = (
            r"a.json is the record signed_b.* of another .*\(learning_rate = 0.005, here 0.001\).* not trained further"
        )
        with pytest.raises(ValueError, match=both):
            run(replace(TINY, learning_rate=1e-3), SIGNED, tmp_path, name="a", **QUIET)
    # Without its files, or with more to measure, it is trained.
    (tmp_path / "weights" / "a.npz").unlink()
    repeated = run(replace(TINY, robustness=True), SIGNED, tmp_path, name="a", **QUIET)
    assert repeated.id == record.id and repeated.history.keys() - record.history.keys() == {"robustness"}
    measured = repeated.history["robustness"]
    assert measured["images"] == 359 and measured["top1_percent"] == pytest.approx(top1, abs=0.3)
    assert repeated.provenance["weights_sha256"] == record.provenance["weights_sha256"]
    assert (tmp_path / "weights" / "a.npz").exists()


@pytest.mark.parametrize("harm", ["cut", "short", "empty", "text", "zip", "tensor", "number", "code"])
def test_a_damaged_checkpoint_is_refused_by_its_name_with_the_right_advice(kept, tmp_path, harm):
    content = kept["full_precision"].read_bytes()
    file = tmp_path / "checkpoints" / "a.partial.pt"
    file.parent.mkdir()
    if harm in ("tensor", "number", "code"):
        torch.save({"tensor": torch.ones(2), "number": 3, "code": {"model": Path("a")}}[harm], file)
    elif harm == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", b"?")
    else:
        cuts = {"cut": content[:-1000], "short": content[:30], "empty": b"", "text": b"weights"}
        file.write_bytes(cuts[harm])
    with pytest.raises(ValueError, match=rf"{file} is not a readable checkpoint \(.*\); delete it to start afresh"):
        run(TINY, SIGNED, tmp_path, name="a", **QUIET)
    for option in CHECKPOINTS:
        with pytest.raises(ValueError, match=rf"{file} is not a readable .*; {option} needs .* make it again"):
            train(replace(TINY, **{option: str(file)}), SIGNED, **QUIET)


ODD = [torch.ones(2, dtype=dtype) for dtype in (torch.float16, torch.int32, torch.complex64)]
ODD += [torch.ones(2).to_sparse(), torch.ones(2, device="meta")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": [1]}, "is not the checkpoint of a finished run"),
        ({"model": {"weight": torch.tensor([1, math.nan])}}, "holds weights that are not finite"),
        ({"model": {"weight": 1}}, "holds weights that are not finite"),
        *(({"model": {"weight": weight}}, "holds weights that are not finite float32 numbers") for weight in ODD),
        ({"train_config": {"options": 1}}, "is of another version of sbkit: .*options"),
        ({"train_config": {"model": "resnet9"}}, "is of another version of sbkit: model = 'resnet9'; allowed"),
        ({"quantizer_config": None}, "is of another version of sbkit: .*mapping"),
    ],
)
def test_a_checkpoint_of_other_contents_is_refused_by_its_name(kept, tmp_path, change, message):
    file = tmp_path / "a.pt"
    torch.save(torch.load(kept["full_precision"], weights_only=True) | change, file)
    for option in CHECKPOINTS:
        with pytest.raises(ValueError, match=f"{option} = '{file}' {message}"):
            train(replace(TINY, **{option: str(file)}), SIGNED, **QUIET)


def test_no_flipped_bit_of_a_checkpoint_changes_what_is_read(kept, tmp_path):
    content, file = kept["full_precision"].read_bytes(), tmp_path / "flipped.pt"
    whole, _ = load_state(kept["full_precision"], torch.device("cpu"), "")
    refused = 0
    for place in np.random.default_rng(0).integers(0, 8 * len(content), 200).tolist():
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        try:
            state, _ = load_state(file, torch.device("cpu"), "")
        except ValueError:
            refused += 1
            continue
        assert state["train_config"] == whole["train_config"] and state["quantizer_config"] == whole["quantizer_config"]
        assert all(torch.equal(state["model"][key], value) for key, value in whole["model"].items())
    assert refused > 100  # the others lie in padding and in time stamps


@pytest.mark.parametrize(
    "forged", [{"optimizer": {}}, {"model": {}}, {"order": torch.zeros(3, dtype=torch.uint8)}, {"epochs": "abc"}]
)
def test_a_checkpoint_of_this_run_with_other_contents_is_refused(tmp_path, forged):
    checkpoint = tmp_path / "run.pt"
    train(TINY, SIGNED, checkpoint=checkpoint, **QUIET)
    torch.save(torch.load(checkpoint, weights_only=True) | forged, checkpoint)
    with pytest.raises(ValueError, match=r"run.pt is not a readable checkpoint \(.*\); delete it to start afresh"):
        train(TINY, SIGNED, checkpoint=checkpoint, **QUIET)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    checkpoint = tmp_path / "run.pt"
    train(TINY, SIGNED, checkpoint=checkpoint, **QUIET)
    for options in ({"learning_rate": 1e-3}, {"epochs": 2}):
        with pytest.raises(ValueError, match="another configuration"):
            train(replace(TINY, **options), SIGNED, checkpoint=checkpoint, **QUIET)


@pytest.mark.parametrize("option", CHECKPOINTS)
def test_a_run_goes_on_from_the_checkpoint_it_began_with_alone(kept, tmp_path, monkeypatch, option):
    """Two files of one name give one configuration; their contents tell them apart."""
    for where, name in (("a", "full_precision"), ("moved", "full_precision"), ("b", "other")):
        (tmp_path / where).mkdir()
        (tmp_path / where / "fp.pt").write_bytes(kept[name].read_bytes())
    by = {where: replace(TINY, epochs=2, **{option: str(tmp_path / where / "fp.pt")}) for where in ("a", "moved", "b")}
    with monkeypatch.context() as patch, pytest.raises(training.Interrupted):
        patch.setattr(loop, "evaluate", interrupting(2))
        run(by["a"], SIGNED, tmp_path, name="taught", **QUIET)
    with pytest.raises(ValueError, match=r"taught\.partial\.pt belongs to another .*teacher or start; delete it"):
        run(by["b"], SIGNED, tmp_path, name="taught", **QUIET)
    record = run(by["moved"], SIGNED, tmp_path, name="taught", **QUIET)
    assert record.provenance["weights_sha256"] == training.weights_sha256(train(by["a"], SIGNED, **QUIET).model)
    assert record.provenance[CHECKPOINTS[option]] == hashlib.sha256(kept["full_precision"].read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=rf"taught.json is the record .* \({CHECKPOINTS[option]} differs\)"):
        run(by["b"], SIGNED, tmp_path, name="taught", **QUIET)
    (tmp_path / "a" / "fp.pt").unlink()
    assert run(by["a"], SIGNED, tmp_path, name="taught", **QUIET).id == record.id  # nothing left to compare with


def test_a_run_belongs_to_the_images_it_was_trained_on(pets, tmp_path, monkeypatch):
    monkeypatch.setenv("SBKIT_ROOT", str(tmp_path))
    first, moved, other = pets("x"), pets("y"), pets("z", seed=1)
    with monkeypatch.context() as patch, pytest.raises(training.Interrupted):
        patch.setattr(loop, "evaluate", interrupting(2))
        run(replace(first, epochs=2), SIGNED, tmp_path, name="stopped", **QUIET)
    with pytest.raises(ValueError, match=r"stopped\.partial\.pt belongs to another configuration, data set"):
        run(replace(other, epochs=2), SIGNED, tmp_path, name="stopped", **QUIET)
    record = run(first, SIGNED, tmp_path, **QUIET)
    assert run(moved, SIGNED, tmp_path, **QUIET).provenance["data_sha256"] == record.provenance["data_sha256"]
    with pytest.raises(ValueError, match=rf"{record.id}.json is the record .* \(data_sha256 differs\)"):
        run(other, SIGNED, tmp_path, **QUIET)
    assert run(other, SIGNED, tmp_path, name="other", **QUIET).id == record.id


def test_progress_is_a_bar_for_people_and_lines_in_a_batch(monkeypatch, capsys):
    monkeypatch.delenv("SBKIT_BATCH", raising=False)
    assert progress.chosen("auto") == "lines" and progress.chosen("bar") == "bar"
    for people in ((progress, "_in_kernel"), (sys.stderr, "isatty")):
        with monkeypatch.context() as patch:
            patch.setattr(*people, lambda: True)
            assert progress.chosen("auto") == "bar"
            patch.setenv("SBKIT_BATCH", "1")
            assert progress.chosen("auto") == "lines"
    train(replace(TINY, epochs=2), SIGNED, progress="bar")
    shown = capsys.readouterr()
    assert shown.out == "" and "epoch 2/2: 100%" in shown.err and "8/8" in shown.err and "top-1" in shown.err


# Records and distillation


def test_a_run_leaves_a_record_and_codes_and_its_final_state(tmp_path):
    record = run(TINY, SIGNED, tmp_path, name="signed_binary-s0", **QUIET)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    names = ["checkpoints/signed_binary-s0.pt", "records/train/signed_binary-s0.json", "weights/signed_binary-s0.npz"]
    assert files == names
    assert records.load(tmp_path / files[1]) == replace(record, history=json.loads(json.dumps(record.history)))
    (row,) = records.read(tmp_path, "train").to_dict("records")
    assert row["quantizer"] == "signed_binary" and row["dataset"] == "digits" and row["learning_rate"] == 5e-3
    assert row["name"] == "signed_binary-s0" and row["id"] == record.id and row["provenance_data_label"] == "Digits"
    assert row["batch_size"] == 64 and row["augment"] == "none" and "augment" not in row["config"]
    assert record.provenance["data_sha256"] == data.load("digits").sha256
    codes = {name: weight.codes for name, weight in load_weights(tmp_path / files[2]).items()}
    nonzero, size = (sum(f(c) for c in codes.values()) for f in (np.count_nonzero, np.size))
    assert record.metrics["density"] == pytest.approx(nonzero / size)
    assert [layer["name"] for layer in record.history["layers"]] == list(codes)


def test_an_id_names_what_decides_the_network_alone():
    def identity(config=TINY, quantizer=SIGNED):
        return records.run_id("run", training.configuration(config, quantizer))

    assert training.configuration(TrainConfig(), SIGNED) == {}
    assert identity() == identity(replace(TINY, robustness=True)) != identity(replace(TINY, seed=1))
    assert identity(quantizer=QuantizerConfig(delta_factor=0.1)) != identity() != identity(replace(TINY, l1=1e-4))
    elsewhere = [replace(TINY, dataset=f"image_folder:{folder}/pets") for folder in ("/a", "/b")]
    assert identity(elsewhere[0]) == identity(elsewhere[1])
    started = replace(TINY, start_from="results/a/checkpoints/binary-s0.pt", distill_from="b/full_precision-s0.pt")
    config = training.configuration(started, SIGNED)
    assert (config["start_from"], config["distill_from"]) == ("binary", "full_precision")
    assert training.configuration(replace(started, seed=1), SIGNED)["start_from"] == "binary-s0"
    named = {field.name for kind in (TrainConfig, QuantizerConfig) for field in fields(kind)} - {"robustness"}
    options = training.options(started, SIGNED)
    assert options.keys() == named and config.items() <= options.items()


def test_committed_records_keep_their_configs_and_ids():
    """The options of each record give its configuration and its id again."""
    folder = Path(__file__).parents[1] / "results" / "reference"
    paths = sorted(folder.glob("*/records/train/*.json"))
    assert paths
    for path in paths[::5]:
        record = records.load(path)
        options = record.provenance["options"]
        config, quantizer = (
            kind(**{field.name: options[field.name] for field in fields(kind) if field.name in options})
            for kind in (TrainConfig, QuantizerConfig)
        )
        assert training.configuration(config, quantizer) == record.config, path
        assert records.run_id(quantizer.quantizer, record.config) == record.id, path


def test_the_distillation_loss_is_the_divergence_from_the_teacher():
    x, y = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(6, dtype=torch.long)
    student, teacher = torch.nn.Identity(), torch.nn.Softmax(1)
    p, q = teacher(x).softmax(1), x.softmax(1)
    expected = (p * (p / q).log()).sum(1).mean()
    assert torch.allclose(loop._loss(student, teacher, x, y, TINY), expected, atol=1e-6)
    assert loop._loss(student, student, x, y, TINY).abs() < 1e-6


# Starting points and penalties


STILL = replace(TINY, learning_rate=1e-12, epochs=1)  # moves no weight


def state_of(path):
    return torch.load(path, weights_only=True)["model"]


@pytest.mark.parametrize("name", ["full_precision", "ternary_ttq", "prelu", "swapped"])
def test_a_run_starts_from_the_weights_of_another_scheme_and_keeps_its_own_signs(kept, name):
    started = train(replace(STILL, start_from=str(kept[name])), SIGNED, **QUIET).model
    fresh = train(STILL, SIGNED, **QUIET).model.state_dict()
    theirs = state_of(kept[name])
    for key, value in started.state_dict().items():
        if key.endswith(("beta", "channel_sign")):
            assert torch.equal(value, fresh[key]), key
        elif key.endswith("num_batches_tracked"):  # batch norms go on to follow the activations
            assert value == theirs[key] + 4
        elif not key.endswith(("running_mean", "running_var")):
            assert torch.allclose(value, theirs[key], atol=1e-9, rtol=0), key


def test_signs_that_follow_the_initial_weights_follow_those_it_starts_from(kept):
    quantizer = QuantizerConfig(assignment="initial_weights", region_channels=2)
    model = train(replace(STILL, start_from=str(kept["full_precision"])), quantizer, **QUIET).model
    theirs = state_of(kept["full_precision"])
    for name, layer in models.quant_layers(model).items():
        sums = theirs[f"{name}.weight"].reshape(*layer.quantizer.beta.shape, -1).sum(2)
        assert sums[layer.quantizer.beta > 0].min() >= sums[layer.quantizer.beta < 0].max()
        assert (layer.quantizer.beta > 0).double().mean() == 0.5


def test_a_start_that_does_not_fit_is_refused(kept, tmp_path):
    start = {"start_from": str(kept["full_precision"])}
    for options, message in (
        ({"width": 8}, "a resnet8 of width 4, which lacks layer1.0.conv1.weight of this resnet8 of width 8; allowed"),
        ({"model": "mlp"}, "a resnet8 of width 4, which lacks 4.weight of this mlp of width 4; allowed"),
    ):
        with pytest.raises(ValueError, match=message):
            train(replace(TINY, **start, **options), SIGNED, **QUIET)
    partial = tmp_path / "run.partial.pt"
    train(TINY, SIGNED, checkpoint=partial, **QUIET)
    for option in ("distill_from", "start_from"):
        with pytest.raises(ValueError, match=f"{option} = .*partial.pt' is not the checkpoint of a finished run"):
            train(replace(TINY, **{option: str(partial)}), SIGNED, **QUIET)


def test_a_run_learns_from_a_finished_full_precision_run_and_names_where_it_started(kept, tmp_path):
    mlp = replace(TINY, model="mlp", width=16)
    run(mlp, QuantizerConfig("full_precision"), tmp_path, name="teacher-s0", **QUIET)
    teacher = tmp_path / "checkpoints" / "teacher-s0.pt"
    assert not (tmp_path / "weights").exists()
    config = replace(TINY, distill_from=str(teacher), start_from=str(kept["ternary_ttq"]))
    record = run(config, SIGNED, tmp_path, name="taught", **QUIET)
    untaught = train(replace(config, distill_from=""), SIGNED, **QUIET).model
    assert record.provenance["weights_sha256"] != training.weights_sha256(untaught)
    assert (record.config["distill_from"], record.config["start_from"]) == ("teacher", "ternary_ttq")
    with pytest.raises(ValueError, match="other channels, classes or image sizes"):
        train(replace(config, image_size=4), SIGNED, **QUIET)
    with pytest.raises(ValueError, match="allowed: full_precision"):
        train(replace(TINY, distill_from=str(kept["ternary_ttq"])), SIGNED, **QUIET)


def test_the_l1_penalty_adds_its_gradient_and_stays_out_of_the_reported_loss(monkeypatch):
    """One step of SGD from the same weights: the difference is learning rate * l1 * sign(w), where w is penalized."""
    config = replace(TINY, optimizer="sgd", train_images=64, learning_rate=25e-3, weight_decay=0.0)
    rate = schedule_lr(config, 0, 1)  # times 1.9 in the first step with Nesterov momentum 0.9
    plain, penalized = (train(replace(config, l1=l1), SIGNED, **QUIET) for l1 in (0.0, 0.01))
    initial = build(config, SIGNED, data.load("digits")).state_dict()
    for (key, value), other in zip(plain.model.named_parameters(), penalized.model.parameters(), strict=True):
        expected = (
            1.9 * rate * 0.01 * initial[key].sign() if key.endswith(("conv1.weight", "conv2.weight")) else 0 * value
        )
        torch.testing.assert_close(value - other, expected, atol=1e-7, rtol=1e-3)
    assert plain.history["epochs"][0]["train_loss"] == penalized.history["epochs"][0]["train_loss"]


@pytest.mark.parametrize("model, image_size", [("mlp", 0), ("transformer", 7)])
def test_networks_of_linear_layers_train_and_leave_codes(tmp_path, model, image_size):
    config = replace(TINY, model=model, image_size=image_size, width=16)
    record = run(config, QuantizerConfig(scale="mean"), tmp_path, name="a", **QUIET)
    weights = load_weights(tmp_path / "weights" / "a.npz")
    assert record.metrics["quantized_weights"] == sum(weight.codes.size for weight in weights.values())
    assert {weight.codes.shape[2:] for weight in weights.values()} == {(1, 1)}


# Command line and several processes


def test_the_command_line_takes_every_field_and_fails_plainly(tmp_path, capsys):
    main([*SMALL, "--quantizer=binary", "--no-channels-last", f"--folder={tmp_path}", "--name=a"])
    assert re.search(r"epoch 2/2 .* top-1 .*\nrank 0: .*weights [0-9a-f]{64}\n$", capsys.readouterr().out)
    config = records.load(tmp_path / "records" / "train" / "a.json").config
    assert config["learning_rate"] == 5e-3 and config["channels_last"] is False and "batch_size" not in config
    with pytest.raises(SystemExit, match=r"allowed: .*resnet8"):
        main([*SMALL, "--model=resnet9", f"--folder={tmp_path}"])


def _two_processes(folder, name, *arguments):
    """The record of two processes that must agree in every bit."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def task(rank):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": "2"}
        if sys.platform == "linux":
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        with open(folder / f"{rank}.txt", "w") as sys.stdout:
            main([*arguments, f"--folder={folder}", f"--name={name}"])

    waits = [forked(partial(task, rank)) for rank in range(2)]
    assert [wait() for wait in waits] == [0, 0]
    said = [(folder / f"{rank}.txt").read_text() for rank in range(2)]
    first, second = (re.search(r"rank \d: .*?weights ([0-9a-f]{64})", text)[1] for text in said)
    record = records.load(folder / "records" / "train" / f"{name}.json")
    assert record.provenance["processes"] == 2 and record.provenance["weights_sha256"] == first == second
    assert "epoch 1/2" in said[0] and "epoch 1/2" not in said[1]
    return record


def test_the_imagenet_recipe_in_small_on_two_processes(tmp_path, monkeypatch):
    """JPEGs of several sizes, a teacher and what is distilled from it, as profile imagenet has it."""
    random = np.random.default_rng(0)
    for part, count in (("train", 13), ("val", 3)):
        for name in ("eel", "hen", "owl", "yak"):
            images = tmp_path / "wild" / part / name
            images.mkdir(parents=True)
            for index in range(count):
                size = (44 + index, 48, 3)
                Image.fromarray(random.integers(0, 256, size, np.uint8)).save(images / f"{index}.JPEG")
    monkeypatch.setenv("SBKIT_ROOT", str(tmp_path))
    shared = [
        f"--dataset=image_folder:{tmp_path / 'wild'}", "--image-size=35", "--train-images=0", "--batch-size=16",
        "--augment=resized_crop", "--epochs=2", "--progress=lines",
    ]  # fmt: skip
    teacher = [*shared, "--quantizer=full_precision", "--model=transformer", "--optimizer=sgd", "--learning-rate=0.1"]
    record = _two_processes(tmp_path, "teacher-s0", *teacher)
    assert record.config["image_size"] == 35 and len(list((tmp_path / "data" / "cache").glob("wild-*"))) == 4

    # Without batch norms, whose statistics are each process's own, two processes are one up to rounding.
    main([*teacher, f"--folder={tmp_path}", "--name=alone"])
    alone = records.load(tmp_path / "records" / "train" / "alone.json")
    assert (alone.id, alone.provenance["data_sha256"]) == (record.id, record.provenance["data_sha256"])
    ours, theirs = (state_of(tmp_path / "checkpoints" / f"{name}.pt") for name in ("teacher-s0", "alone"))
    initial = models.build_model(
        "transformer", quantizer=QuantizerConfig("full_precision"), classes=4, image_size=35, width=16
    ).state_dict()
    for name, value in ours.items():
        assert (value - theirs[name]).abs().max() < 1e-3 * (theirs[name] - initial[name]).abs().max(), name

    student = [*shared, "--model=resnet18", "--width=4", "--block=released"]
    checkpoint = tmp_path / "checkpoints" / "teacher-s0.pt"
    record = _two_processes(tmp_path, "student-s0", *student, "--schedule=linear", f"--distill-from={checkpoint}")
    assert record.config["distill_from"] == "teacher"
    codes = load_weights(tmp_path / "weights" / "student-s0.npz")
    assert len(codes) == 16 and record.metrics["quantized_weights"] == sum(w.codes.size for w in codes.values())
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["alone.pt", "student-s0.pt", "teacher-s0.pt"]


@pytest.mark.parametrize("trouble", ["torch has no convolutions in it for this CPU", "died of SIGILL in a trial"])
def test_bf16_is_refused_where_it_would_take_forever_or_kill_the_process(tmp_path, monkeypatch, trouble):
    monkeypatch.setattr(sys.modules["sbkit.training.setup"], "bf16_trouble", lambda: trouble)
    with pytest.raises(ValueError, match=f"precision = 'bf16': {trouble}; allowed here: fp32"):
        run(replace(TINY, precision="bf16"), SIGNED, tmp_path, **QUIET)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile itself calls
def test_a_compiled_network_trains_as_the_plain_one_does(monkeypatch):
    """Traced by torch.compile, but run by torch's own operators: to compile them takes a minute."""
    calls, compiler = [], torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda model, **o: calls.append(model) or compiler(model, backend="aot_eager", **o)
    )
    config = replace(TINY, block="released", train_images=128)
    plain, traced = (train(replace(config, compile=compile), SIGNED, **QUIET) for compile in (False, True))
    losses = [result.history["epochs"][0]["train_loss"] for result in (plain, traced)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert traced.model is calls[-1]


def test_a_network_with_fused_steps_trains_as_the_plain_one_does(monkeypatch):
    monkeypatch.setattr(activations, "_one_pass", lambda function: function)
    monkeypatch.setattr(sys.modules["sbkit.training.setup"], "_check_compiler", lambda: None)
    config = replace(TINY, activation_bits=6, outer_layers="integers", train_images=128)
    plain, fused = (train(replace(config, compile=compile), SIGNED, **QUIET) for compile in (False, True))
    losses = [result.history["epochs"][0]["train_loss"] for result in (plain, fused)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert [any(m.fused for m in r.model.modules() if isinstance(m, LearnedStep)) for r in (plain, fused)] == [0, 1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile itself calls
def test_two_processes_train_a_compiled_network(tmp_path, monkeypatch):
    compiler = torch.compile

    def traced(model, **options):
        (tmp_path / f"{type(model).__name__}-{os.environ['RANK']}").touch()
        return compiler(model, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", traced)
    _two_processes(tmp_path, "a-s0", *SMALL, "--compile", "--block=released", "--train-images=128")
    assert {"ResNet-0", "ResNet-1"} <= {path.name for path in tmp_path.iterdir()}


def test_with_integer_activations_the_learned_steps_alone_are_compiled():
    config = replace(TINY, activation_bits=6, compile=True)
    network = build(config, SIGNED, data.load("digits"))
    steps = [module for module in network.modules() if isinstance(module, LearnedStep)]
    assert steps and not any(step.fused for step in steps)
    assert compiled(network) is network and all(step.fused for step in steps)


def test_compile_is_refused_where_there_is_no_compiler(tmp_path):
    arguments = [*SMALL, "--compile", f"--folder={tmp_path}"]
    program = f"import sys; sys.argv[1:] = {arguments}; from sbkit.training.__main__ import main; sys.exit(main())"
    environment = os.environ | {"CXX": "absent", "PATH": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode and "compile = True: torch.compile does not work here (" in done.stderr
    assert "allowed here: False" in done.stderr and not (tmp_path / "records").exists()


@pytest.mark.skipif(not cpu.has_bf16(), reason="torch has no convolutions in bf16 for this CPU")
def test_bf16_trains(tmp_path, monkeypatch):
    """Without AMX, as conftest.py says, and in a process of its own: SIGILL would end this one."""
    monkeypatch.setattr(sys.modules["sbkit.training.setup"], "bf16_trouble", lambda: "")
    arguments = [*SMALL, "--precision=bf16", "--epochs=1", "--train-images=64", f"--folder={tmp_path}", "--name=a"]
    assert forked(lambda: main(arguments))() == 0
    assert records.load(tmp_path / "records" / "train" / "a.json").config["precision"] == "bf16"
