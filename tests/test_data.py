import gzip
import hashlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from sbkit import data
from sbkit.data import fashion_mnist, image_folder
from sbkit.data.__main__ import main
from sbkit.data.batches import _draw_resized_crop
from sbkit.data.dataset import with_margin, without_margin
from sbkit.data.torchvision import import_torchvision

PLAIN = {"mean": (0.0,), "std": (1.0,)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Digits, subsets, sizes


def test_digits_are_the_published_ones_and_split_disjointly():
    digits = data.load("digits")
    assert digits.sha256["x_train"] == "d4079b501350ffc3f72d723d6737417cfae6415ac77361c43a1e0f707dfb3a88"
    assert digits.sha256["y_test"] == "672b4cab99211aeda54943497bff58b0003e8bab31a5923cab6df2cd46a7c712"
    assert digits.x_train.shape == (1438, 1, 8, 8) and digits.x_test.shape == (359, 1, 8, 8)
    assert digits.x_train.dtype == torch.uint8 and digits.y_train.dtype == torch.int64
    assert digits.x_train.max() == 255 and set(digits.y_test.tolist()) == set(range(10))
    rows = {image.numpy().tobytes() for image in digits.x_train}
    assert not rows & {image.numpy().tobytes() for image in digits.x_test}
    ((x, _),) = data.batches(digits.x_train, digits.y_train, 1438, mean=digits.mean, std=digits.std, shuffle=False)
    assert x.mean().abs() < 1e-5 and (x.std(correction=0) - 1).abs() < 1e-5


def test_a_subset_is_drawn_from_the_seed():
    full, again, first, second = (
        data.load("digits", train_images=count, seed=seed) for count, seed in ((0, 0), (100, 1), (100, 1), (100, 2))
    )
    assert torch.equal(again.x_train, first.x_train) and not torch.equal(first.x_train, second.x_train)
    rows = {image.numpy().tobytes(): int(label) for image, label in zip(full.x_train, full.y_train, strict=True)}
    kept = zip(first.x_train, first.y_train, strict=True)
    assert all(rows[image.numpy().tobytes()] == label for image, label in kept)
    assert first.sha256 == full.sha256 and len(first.x_test) == len(full.x_test)


def test_resizing_averages_areas():
    native, small = data.load("digits"), data.load("digits", image_size=4)
    blocks = native.x_test.float().reshape(-1, 1, 4, 2, 4, 2).mean(dim=(3, 5))
    assert torch.equal(small.x_test, blocks.round().to(torch.uint8))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist", {}, "dataset = 'mnist'; allowed: digits, fashion_mnist"),
        ("image_folder:", {}, "allowed: .* image_folder:<path>"),
        ("digits", {"train_images": 1439}, "train_images = 1439; allowed: an integer from 0 to 1438"),
        ("digits", {"train_images": -1}, "train_images = -1"),
        ("digits", {"image_size": 9}, "image_size = 9; allowed: an integer from 0 to 8"),
        ("digits", {"image_size": 8, "margin": True}, "image_size = 8; allowed: an integer from 0 to 7"),
    ],
)
def test_bad_arguments_name_what_is_allowed(name, options, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, **options)


def test_a_new_source_is_one_row(monkeypatch):
    def find(root, path, image_size):
        x = torch.full((4, 1, image_size, image_size), 51, dtype=torch.uint8)
        return data.Dataset("", f"{path.name} in {root.name}", x, torch.arange(4), x, torch.arange(4), tuple("abcd"))

    monkeypatch.setitem(data.SOURCES, "grey:<path>", find)
    grey = data.load("grey:/somewhere/shades", root="here", image_size=14, margin=True)
    assert (grey.name, grey.label) == ("grey:/somewhere/shades", "shades in here")
    assert grey.x_train.shape[2:] == (16, 16) and grey.x_test.shape[2:] == (14, 14) and grey.mean == (0.2,)


# Batches


def test_shuffled_batches_hold_each_image_once_and_leave_out_the_rest():
    x = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    epoch = list(data.batches(x, torch.arange(20), 6, **PLAIN, generator=seeded()))
    assert [len(batch) for batch, _ in epoch] == [6, 6, 6]
    labels = torch.cat([y for _, y in epoch])
    assert len(set(labels.tolist())) == 18 and labels.tolist() != sorted(labels.tolist())
    assert torch.equal((torch.cat([batch for batch, _ in epoch]).flatten() * 255).round().long(), labels)
    ordered = data.batches(x, torch.arange(20), 6, **PLAIN, shuffle=False)
    assert torch.cat([y for _, y in ordered]).tolist() == list(range(20))
    for options, message in (({"augment": "cutout", "generator": seeded()}, "crop_flip"), ({}, r"torch\.Generator")):
        with pytest.raises(ValueError, match=message):
            next(data.batches(x, torch.arange(20), 2, **PLAIN, **options))


def test_a_generator_decides_the_order_and_augmentation_does_not_change_it():
    x = torch.randint(256, (40, 3, 8, 8), generator=seeded()).to(torch.uint8)
    orders = {}
    for augment in data.AUGMENTATIONS:
        generator = seeded(3)
        orders[augment] = [
            torch.cat([y for _, y in data.batches(
                x, torch.arange(40), 8, mean=(0.5,) * 3, std=(0.2,) * 3, augment=augment, generator=generator,
            )]).tolist()
            for _ in range(2)
        ]  # fmt: skip
    assert orders["none"] == orders["crop_flip"] == orders["resized_crop"] and orders["none"][0] != orders["none"][1]


@pytest.mark.parametrize(("size", "padding"), [(8, 2), (20, 4)])
def test_augmented_images_are_shifted_and_mirrored_windows(size, padding):
    x = torch.randint(1, 256, (64, 2, size, size), generator=seeded()).to(torch.uint8)
    options = {"mean": (0.0, 0.0), "std": (1.0, 1.0), "augment": "crop_flip", "generator": seeded(1)}
    ((found, y),) = data.batches(x, torch.arange(64), 64, **options)
    padded = torch.nn.functional.pad(x, (padding,) * 4).numpy()
    places = set()
    for image, index in zip((found * 255).round().to(torch.uint8).numpy(), y.tolist(), strict=True):
        candidates = {
            (row, column, flip): padded[index, :, row : row + size, column : column + size][:, :, :: -1 if flip else 1]
            for row in range(2 * padding + 1)
            for column in range(2 * padding + 1)
            for flip in (False, True)
        }
        place = [key for key, window in candidates.items() if np.array_equal(window, image)]
        assert len(place) == 1
        places.update(place)
    assert {flip for *_, flip in places} == {False, True} and len(places) > 20


@pytest.mark.parametrize("augment", data.AUGMENTATIONS)
def test_the_processes_of_a_group_share_the_batches_of_one(augment):
    x = torch.randint(256, (32, 1, 8, 8), generator=seeded()).to(torch.uint8)
    options = {"mean": (0.5,), "std": (0.2,), "augment": augment}
    alone = list(data.batches(x, torch.arange(32), 8, **options, generator=seeded(5)))
    shares = [
        list(data.batches(x, torch.arange(32), 8, **options, generator=seeded(5), rank=rank, world_size=2))
        for rank in range(2)
    ]
    for (whole_x, whole_y), *parts in zip(alone, *shares, strict=True):
        for rank, (part_x, part_y) in enumerate(parts):
            assert torch.equal(part_x, whole_x[rank::2]) and torch.equal(part_y, whole_y[rank::2])


def test_a_resized_crop_is_that_window_resized():
    """A picture of its own coordinates tells where each pixel of a window was taken from."""
    H, W = 40, 48
    down, across = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    x = torch.stack((4 * down, 4 * across)).to(torch.uint8).expand(500, -1, -1, -1)
    options = {"mean": (0.0, 0.0), "std": (1.0, 1.0), "augment": "resized_crop", "generator": seeded(1)}
    ((found, _),) = data.batches(x, torch.arange(500), 500, **options)
    assert found.shape == (500, 2, 35, 42)
    down, across = 255 * found[:, 0] / 4, 255 * found[:, 1] / 4
    # Inner pixels, whose neighbours are all there: equal steps, nothing in the other direction.
    for values, axis in ((down, 1), (across, 2)):
        steps = values[:, 1:-1, 1:-1].diff(dim=axis)
        assert (steps - steps.mean((1, 2), keepdim=True)).abs().max() < 1e-3
        assert values[:, 1:-1, 1:-1].diff(dim=3 - axis).abs().max() < 1e-3
    height, width = 35 * down[:, 1:-1, 1].diff(dim=1).mean(1), 42 * across[:, 1, 1:-1].diff(dim=1).mean(1)
    area, shape = height * width.abs() / (H * W), width.abs() / height
    assert 0.08 <= area.min() < 0.1 and 0.9 < area.max() <= 1.001
    assert 0.749 <= shape.min() < 0.8 and 1.25 < shape.max() < 1.334
    assert 200 < (width < 0).sum() < 300
    middle = (down[:, 17, 1] + 0.5) / H, (across[:, 1, 20:22].mean(1) + 0.5) / W
    for place, side in zip(middle, (height / H, width.abs() / W), strict=True):
        assert (place - side / 2).min() > -1e-3 and (place + side / 2).max() < 1.001
        at = ((place - side / 2) / (1 - side))[side < 0.8]
        assert at.min() < 0.05 and 0.4 < at.mean() < 0.6 and at.max() > 0.95
    _, _, height, width = _draw_resized_crop(torch.empty(1, 1, 16, 64), 500, seeded())
    shape = 64 * width.abs() / (16 * height)  # where few windows of the area drawn fit
    assert shape.min() >= 0.749 and shape.max() < 1.334 and height.max() == 1


def test_a_margin_is_an_eighth_of_the_training_images_and_cut_from_the_tests():
    native, whole, small = (
        data.load("digits", margin=margin, image_size=size) for margin, size in ((0, 0), (1, 0), (1, 5))
    )
    assert torch.equal(whole.x_train, native.x_train) and whole.sha256 == native.sha256
    assert torch.equal(whole.x_test, native.x_test[:, :, :7, :7])
    assert small.x_train.shape[2:] == (6, 6) and small.x_test.shape[2:] == (5, 5)
    assert [without_margin(with_margin(size)) for size in range(1, 500)] == list(range(1, 500))
    assert (with_margin(224), without_margin(256)) == (256, 224)


# Fashion-MNIST, from files made here


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.astype(np.uint8).tobytes()


@pytest.fixture
def clothes(monkeypatch, tmp_path):
    """Four small files that stand for the real ones, as .gz in a folder that stands for Debian's."""
    random = np.random.default_rng(0)
    shapes = ((30, 28, 28), (30,), (10, 28, 28), (10,))
    contents = {
        name: idx(random.integers(0, 10 if len(shape) == 1 else 256, shape))
        for name, shape in zip(fashion_mnist.SHA256, shapes, strict=True)
    }
    monkeypatch.setattr(fashion_mnist, "SHA256", {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()})
    package = tmp_path / "datasets" / "fashion-mnist"
    package.mkdir(parents=True)
    for name, content in contents.items():
        (package / f"{name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", package)
    return package


def test_fashion_mnist_is_unpacked_from_the_package_and_then_read_from_there(clothes, tmp_path):
    root = tmp_path / "data"
    first = data.load("fashion_mnist", root=root)
    (root / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte").unlink()  # a missing file is fetched again
    assert data.load("fashion_mnist", root=root).sha256 == first.sha256
    assert first.x_train.shape == (30, 1, 28, 28) and first.label == "Fashion-MNIST"
    for file in clothes.iterdir():
        file.unlink()
    again = data.load("fashion_mnist", root=root)
    assert torch.equal(first.x_test, again.x_test) and first.sha256 == again.sha256
    assert sorted(path.name for path in (root / "FashionMNIST" / "raw").iterdir()) == sorted(fashion_mnist.SHA256)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_file_is_refused_by_name(clothes, tmp_path, harm):
    data.load("fashion_mnist", root=tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes({"flip": content, "cut": content[:500], "empty": b""}[harm])
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte is damaged"):
        data.load("fashion_mnist", root=tmp_path)


def test_every_failed_source_is_named(clothes, tmp_path, monkeypatch):
    damaged = clothes / "train-labels-idx1-ubyte.gz"
    damaged.write_bytes(gzip.compress(b"something else"))
    monkeypatch.setattr(fashion_mnist.shutil, "which", lambda tool: None)
    monkeypatch.setattr(
        fashion_mnist, "_fetch_torchvision", lambda folder: (_ for _ in ()).throw(RuntimeError("no network"))
    )
    with pytest.raises(FileNotFoundError) as caught:
        data.load("fashion_mnist", root=tmp_path)
    for part in (
        "differs from the published",
        "apt-get is not installed",
        "no network",
        fashion_mnist.DEBIAN_PACKAGE,
        "raw",
    ):
        assert part in str(caught.value)


def test_the_debian_package_is_unpacked_without_root_rights(clothes, tmp_path, monkeypatch):
    """A stand-in for apt-get copies a package that dpkg-deb built here."""
    if fashion_mnist.shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN").chmod(0o755)  # as dpkg-deb asks, whatever the umask
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {fashion_mnist.DEBIAN_PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: t <t@t>\nDescription: t\n"
    )
    inside = tree / "usr/share/datasets/fashion-mnist"
    inside.parent.mkdir(parents=True)
    clothes.rename(inside)
    package = tmp_path / f"{fashion_mnist.DEBIAN_PACKAGE}_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", tree, package], check=True, capture_output=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "apt-get").write_text(f'#!/bin/sh\ncp "{package}" .\n')
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", Path("/usr/share/datasets/fashion-mnist"))
    folder = tmp_path / "fetched"
    folder.mkdir()
    assert sorted(fashion_mnist._verified(fashion_mnist._fetch_debian_package(folder))) == sorted(fashion_mnist.SHA256)


# CIFAR-10, from files made here


def test_cifar10_reads_and_checks_batches(tmp_path, monkeypatch):
    CIFAR10 = import_torchvision().datasets.CIFAR10
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)
    lists = {"train_list": [f"data_batch_{i}" for i in range(1, 6)], "test_list": ["test_batch"]}
    for attribute, names in lists.items():
        entries = []
        for name in names:
            batch = {"data": random.integers(0, 256, (4, 3072), np.uint8), "labels": random.integers(0, 10, 4).tolist()}
            (folder / name).write_bytes(pickle.dumps(batch))
            entries.append([name, hashlib.md5((folder / name).read_bytes()).hexdigest()])
        monkeypatch.setattr(CIFAR10, attribute, entries)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    digest = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": digest})

    cifar = data.load("cifar10", root=tmp_path)
    assert cifar.x_train.shape == (20, 3, 32, 32) and cifar.x_test.shape == (4, 3, 32, 32)
    last = pickle.loads((folder / "test_batch").read_bytes())
    assert np.array_equal(cifar.x_test.numpy().reshape(4, 3072), last["data"]) and len(cifar.classes) == 10
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes()[:-100])
    with pytest.raises(ValueError, match="Delete it and load again"):
        data.load("cifar10", root=tmp_path)


def test_cifar10_without_network_says_where_to_put_it(tmp_path, monkeypatch):
    def download(self):
        raise OSError("no network")

    monkeypatch.setattr(import_torchvision().datasets.CIFAR10, "download", download)
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python\.tar\.gz"):
        data.load("cifar10", root=tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


# Image folders


@pytest.fixture
def tree(tmp_path):
    """Six training and two test images of 12x10 pixels in two classes."""
    random = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 1)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(random.integers(0, 256, (10, 12, 3), np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "pets"


def test_an_image_folder_is_decoded_once(tree, tmp_path, monkeypatch):
    pets = data.load(f"image_folder:{tree}", root=tmp_path)
    assert pets.x_train.shape == (6, 3, 10, 12) and pets.y_train.tolist() == [0, 0, 0, 1, 1, 1]
    assert pets.classes == ("cat", "dog") and pets.label == "pets"
    expected = np.asarray(Image.open(tree / "val" / "dog" / "0.png")).transpose(2, 0, 1)
    assert np.array_equal(pets.x_test[1].numpy(), expected)
    (tree / "label.txt").write_text("Pets (made here)\n")
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "_decode", None)
        again = data.load(f"image_folder:{tree}", root=tmp_path)
    assert again.sha256 == pets.sha256 and again.label == "Pets (made here)"
    Image.new("RGB", (12, 10)).save(tree / "train" / "cat" / "new.png")
    assert len(data.load(f"image_folder:{tree}", root=tmp_path).x_train) == 7


@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
@pytest.mark.parametrize("suffix", [".x_train", ".x_test", ".json"])
def test_a_damaged_cache_is_decoded_again(tree, tmp_path, caplog, suffix, harm):
    pets = data.load(f"image_folder:{tree}", root=tmp_path)
    files = {path.suffix: path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"}
    assert files.keys() == {".x_train", ".x_test", ".json"}
    assert hashlib.sha256(files[".x_train"].read_bytes()).hexdigest() == pets.sha256["x_train"]
    content = bytearray(files[suffix].read_bytes())
    content[len(content) // 3] ^= 1
    files[suffix].unlink()  # where the first load's arrays are mapped from
    if harm != "gone":
        files[suffix].write_bytes(content if harm == "flip" else content[:-1])
    again = data.load(f"image_folder:{tree}", root=tmp_path)
    assert again.sha256 == pets.sha256 and (again.mean, again.std) == (pets.mean, pets.std)
    assert torch.equal(again.x_train, pets.x_train)
    assert ("is damaged" in caplog.text) == ((suffix, harm) != (".json", "gone"))


def test_a_cache_that_will_not_hold_is_given_up(tree, tmp_path, monkeypatch):
    write = image_folder._write_cache

    def write_and_lose(stem, *what):
        write(stem, *what)
        image_folder._file(stem, "x_test").unlink()

    monkeypatch.setattr(image_folder, "_write_cache", write_and_lose)
    with pytest.raises(OSError, match=r"cache/pets-\w+\.\* were written 3 times and damaged each time"):
        data.load(f"image_folder:{tree}", root=tmp_path)


def test_images_of_several_sizes_need_an_image_size_and_small_ones_are_enlarged(tree, tmp_path):
    native = data.load(f"image_folder:{tree}", root=tmp_path)
    Image.new("RGB", (30, 20), (9, 9, 9)).save(tree / "train" / "cat" / "large.png")
    with pytest.raises(ValueError, match="set image_size"):
        data.load(f"image_folder:{tree}", root=tmp_path)
    small, large = (data.load(f"image_folder:{tree}", root=tmp_path, image_size=size) for size in (5, 20))
    assert small.x_train.shape == (7, 3, 5, 5) and (small.x_train[3] == 9).all()
    middle = torch.nn.functional.avg_pool2d(large.x_test.float(), 2)
    assert (middle - native.x_test[:, :, :, 1:11]).abs().mean() < 20 < native.x_test.float().std()


def test_a_wrong_image_folder_is_refused_by_name(tree, tmp_path):
    def refused(error, message):
        with pytest.raises(error, match=message):
            data.load(f"image_folder:{tree}", root=tmp_path)
        assert [path for path in (tmp_path / "cache").glob("*") if path.suffix != ".lock"] == []

    victim = tree / "train" / "dog" / "1.png"
    victim.write_bytes(victim.read_bytes()[:60])
    refused(ValueError, r"dog/1\.png is not a readable image")
    (tree / "val" / "cow").mkdir()
    refused(ValueError, "cow")
    for file in (tree / "val").rglob("*.png"):
        file.rename(file.with_suffix(".txt"))
    (tree / "val" / "cow").rmdir()
    refused(FileNotFoundError, "holds no image")
    (tree / "val").rename(tree / "validation")
    refused(FileNotFoundError, "val does not exist")


def test_an_image_folder_is_decoded_in_blocks_and_normalized_by_all(tree, tmp_path, monkeypatch):
    whole = data.load(f"image_folder:{tree}", root=tmp_path / "whole")
    monkeypatch.setattr(image_folder, "DECODE_BLOCK", 4)
    parts = data.load(f"image_folder:{tree}", root=tmp_path / "parts")
    assert parts.sha256 == whole.sha256 and torch.equal(parts.x_train, whole.x_train)
    expected = [np.asarray(Image.open(path)) for path in sorted((tree / "train").rglob("*.png"))]
    assert whole.sha256["x_train"] == hashlib.sha256(np.stack(expected).transpose(0, 3, 1, 2).tobytes()).hexdigest()
    assert whole.mean == parts.mean == pytest.approx(np.stack(expected).mean((0, 1, 2)) / 255)
    assert whole.std == parts.std == pytest.approx(np.stack(expected).std((0, 1, 2)) / 255)
    some = data.load(f"image_folder:{tree}", root=tmp_path / "parts", train_images=3)
    assert (
        some.mean == pytest.approx((some.x_train.double().mean((0, 2, 3)) / 255).tolist()) and some.mean != parts.mean
    )


def test_batches_read_of_a_mapped_file_what_they_need_alone(tmp_path):
    """A set of 64 GB, zeros that take no place on the disk but would in memory."""
    count, pixels = 65536, np.prod((3, 576, 600))
    with open(tmp_path / "large", "wb") as file:
        file.truncate(count * int(pixels))
    x = image_folder._mapped(np.memmap(tmp_path / "large", np.uint8, "r", shape=(count, 3, 576, 600)))
    before = psutil.Process().memory_info().rss
    stream = data.batches(x, torch.arange(count), 2, mean=(0.5,) * 3, std=(0.2,) * 3, generator=seeded())
    first, _ = next(stream)
    assert first.shape == (2, 3, 576, 600)
    assert psutil.Process().memory_info().rss - before < 2**30


def test_processes_that_start_at_once_decode_once(tree, tmp_path):
    program = (
        "import logging, sys; from sbkit import data; logging.basicConfig(level=logging.INFO, stream=sys.stdout);"
        f"print(data.load('image_folder:{tree}', root='{tmp_path}').sha256['x_train'])"
    )
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sum(output.count("decoded 8 images") for output in outputs) == 1
    assert len({output.splitlines()[-1] for output in outputs}) == 1


def test_a_decoder_that_was_killed_hinders_nobody(tree, tmp_path):
    program = (
        "import os, signal; from sbkit import data; os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        f"data.load('image_folder:{tree}', root='{tmp_path}')"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == [".partial"]
    data.load(f"image_folder:{tree}", root=tmp_path)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock", ".json", ".x_train", ".x_test"}


# Command line, torchvision


def test_the_command_line_reports_and_fails_plainly(capsys):
    main(["digits"])
    assert "x_train (1438, 1, 8, 8)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="allowed: digits"):
        main(["mnist"])


def test_torchvision_imports_and_works():
    torchvision = import_torchvision()
    assert import_torchvision() is torchvision
    assert torchvision.transforms.functional.hflip(torch.arange(3)[None, None]).flatten().tolist() == [2, 1, 0]


def test_another_import_error_of_torchvision_is_not_hidden(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="pip install torchvision"):
        import_torchvision()
