"""`python -m sbkit COMMAND`: the package from a shell. A command is a thin door and imports what it needs itself."""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from torch import Tensor

    from sbkit.inference import Network

TOP = 5  # classes shown of an image
RUNS = 25  # timed of a network, after one that is not
TEST_BATCH = 25  # images


class _Parser(argparse.ArgumentParser):
    """A wrong command line gets one line, and status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sbkit", description="Signed-binary networks from a shell.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(function, what: str, example: str) -> argparse.ArgumentParser:
        shown = f"example: {parser.prog} {function.__name__} {example}"
        added = commands.add_parser(function.__name__, help=what, description=what.capitalize() + ".", epilog=shown)
        added.set_defaults(function=function)
        return added

    command(train, "train one network", "--quantizer signed_binary --folder results/trial")  # for the list of commands
    door = command(
        save,
        "write the network of a finished run to one file, with its classes and the statistics of its images",
        "results/trial/checkpoints/trial.pt net.sbk",
    )
    door.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoints/<name>.pt of a finished run")
    door.add_argument("file", metavar="NETWORK", help="file to write, <name>.sbk")
    door = command(run, "classify images by a network file, and time it", "net.sbk shoe.png")
    door.add_argument("file", metavar="NETWORK", help="a network file, <name>.sbk")
    door.add_argument("images", metavar="IMAGE", nargs="+", help="its centre square is brought to the network's size")
    _add_threads(door)
    door = command(evaluate, "test a network file on the test images of a data set", "net.sbk fashion_mnist")
    door.add_argument("file", metavar="NETWORK", help="a network file, <name>.sbk")
    door.add_argument("dataset", metavar="DATASET", help="digits, fashion_mnist, cifar10 or image_folder:<path>")
    door.add_argument("--margin", action="store_true", help="test on the middle, as after augment = resized_crop")
    _add_threads(door)
    door = command(bench, "time a study and write its record", "network --shapes resnet20 --folder results/trial")
    door.add_argument("study", metavar="STUDY", help="layers, density, integers, network or another one")
    door.add_argument(
        "--shapes", default="resnet18", help="resnet18, resnet20, vgg_small, tiny or sizes (default: resnet18)"
    )
    door.add_argument(
        "--networks", default="", help="of runs that are timed: the profile's folder, as results/frontier"
    )
    door.add_argument("--folder", required=True, help="the record goes to records/bench in it")
    _add_threads(door)
    door = command(compare, "show the verdicts of two folders of results beside each other", "quick reference/quick")
    door.add_argument("yours", metavar="A", help="a folder in results/, such as quick")
    door.add_argument("theirs", metavar="B", nargs="?", help="another one; without it, reference/A")
    return parser


def _add_threads(door: argparse.ArgumentParser) -> None:
    door.add_argument("--threads", type=int, default=1, help="of the kernels and of torch (default: 1)")


def train(arguments: list[str]) -> None:
    """Hand over to the command line of training."""
    from sbkit.training.__main__ import main

    main(arguments)


def save(options: argparse.Namespace) -> None:
    """Write the network of a checkpoint to a file."""
    import torch

    from sbkit import inference
    from sbkit.checks import choice
    from sbkit.training.setup import finished

    choice(f"suffix of {options.file}", Path(options.file).suffix, (".sbk",))
    model, config, _, data = finished("CHECKPOINT", options.checkpoint)
    network = inference.lower(model, torch.zeros(1, *data.x_test.shape[1:]), tune=False)
    path = network.save(options.file, classes=data.classes, mean=data.mean, std=data.std)
    print(f"{path}: {path.stat().st_size:,} bytes, {config.model} for {data.label}")


def run(options: argparse.Namespace) -> None:
    """Print the likeliest classes of each image, and how long the network takes for one."""
    import numpy as np
    import torch

    from sbkit.checks import choice
    from sbkit.data.image_folder import pixels

    network = _loaded(options, 1, tune=True)
    channels, H, W = network.source.image
    choice(f"channels of the images of {options.file}", channels, (1, 3))
    choice(f"height of the images of {options.file}", H, (W,))
    images = [pixels(Path(path), {1: "L", 3: "RGB"}[channels], H) for path in options.images]
    x, labels = torch.from_numpy(np.stack(images)), torch.zeros(len(images), dtype=torch.int64)
    for path, (one, _) in zip(options.images, _normalized(network, x, labels, 1), strict=True):
        print(path)
        found = network(one)[0].softmax(0).topk(min(TOP, len(network.source.classes)))
        for share, index in zip(*(values.tolist() for values in found), strict=True):
            print(f"  {100 * share:5.1f} %  {network.source.classes[index]}")
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        network(one)
        seconds.append(time.perf_counter() - started)
    median = 1000 * statistics.median(seconds)
    print(f"{options.file}: {median:.3g} ms an image, median of {RUNS} runs, threads {options.threads}")


def evaluate(options: argparse.Namespace) -> None:
    """Print the share of a data set's test images whose class has the largest logit."""
    from sbkit.checks import choice
    from sbkit.data import load

    network = _loaded(options, TEST_BATCH, tune=False)
    image, classes = network.source.image, network.source.classes
    data = load(options.dataset, image_size=image[1] if image[1] == image[2] else 0, margin=options.margin)
    choice(f"shape of the images of {options.dataset}", tuple(data.x_test.shape[1:]), (image,))
    for found, due in itertools.zip_longest(data.classes, classes):
        choice(f"a class of {options.dataset}", found, (due,))
    right = 0
    for x, y in _normalized(network, data.x_test, data.y_test, TEST_BATCH):
        whole = x.new_zeros(network.shape)  # the last batch is filled up
        whole[: len(x)] = x
        right += int((network(whole)[: len(x)].argmax(1) == y).sum())
    print(f"{options.file}: top-1 {100 * right / len(data.y_test):.2f} % of {len(data.y_test)} images of {data.label}")


def _loaded(options: argparse.Namespace, batch: int, *, tune: bool) -> Network:
    """The network of a file that says what its images and classes are."""
    import torch

    from sbkit import inference
    from sbkit.checks import whole

    whole("threads", options.threads, 1, 1024)
    torch.set_num_threads(options.threads)
    network = inference.load(options.file, batch=batch, threads=options.threads, tune=tune)
    if missing := [key for key in ("classes", "mean", "std") if not getattr(network.source, key)]:
        raise ValueError(f"{options.file} lacks {', '.join(missing)}; allowed: a file that was saved with them")
    return network


def _normalized(network: Network, x: Tensor, y: Tensor, batch: int):
    from sbkit.data import batches

    return batches(x, y, batch, mean=network.source.mean, std=network.source.std, shuffle=False)


def bench(options: argparse.Namespace) -> None:
    """Hand over to the benchmark, which prints a line per layer or network."""
    from sbkit.bench import BenchConfig
    from sbkit.bench import run as measured

    config = BenchConfig(options.study, options.shapes, threads=options.threads, networks=options.networks)
    record = measured(config, options.folder)
    print(f"record   {Path(options.folder) / 'records' / 'bench' / record.id}.json")


def compare(options: argparse.Namespace) -> None:
    """Print how many verdicts of two folders are equal, and each that is not."""
    from sbkit.notebook import find_root
    from sbkit.page import verdicts

    theirs = options.theirs or f"reference/{options.yours}"
    results = find_root() / "results"
    rows = verdicts.beside(results / options.yours, results / theirs)
    lines = verdicts.as_lines(rows, theirs) or [f"{options.yours} and {theirs} judge no claim that is the same"]
    print("\n".join(lines))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["train"]:
        return train(arguments[1:])
    options = parser().parse_args(arguments)
    try:
        options.function(options)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
