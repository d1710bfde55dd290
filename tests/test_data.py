import errno
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import re
import signal
import struct
import subprocess
import tarfile
import threading
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from forked import forked
from PIL import Image

from sbkit import data
from sbkit.data import cifar10, fashion_mnist, image_folder, published
from sbkit.data.__main__ import main
from sbkit.data.batches import _draw_resized_crop
from sbkit.data.dataset import with_margin, without_margin

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


def test_validation_images_are_the_same_for_every_seed_and_no_training_images():
    whole = data.load("digits")
    first, second = (data.load("digits", validation_images=100, train_images=50, seed=seed) for seed in (0, 1))
    assert torch.equal(first.x_test, second.x_test) and torch.equal(first.y_test, second.y_test)
    assert len(first.x_test) == 100 and not torch.equal(first.x_train, second.x_train)
    rest = data.load("digits", validation_images=100)
    together = torch.cat([rest.x_train, rest.x_test]).flatten(1)
    assert sorted(together.tolist()) == sorted(whole.x_train.flatten(1).tolist())
    assert first.sha256 == whole.sha256 and rest.mean != whole.mean


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
    options = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    orders = []
    for augment in data.AUGMENTATIONS:
        generator = seeded(3)
        for _ in range(2):
            epoch = data.batches(x, torch.arange(40), 8, **options, augment=augment, generator=generator)
            orders.append(torch.cat([y for _, y in epoch]).tolist())
    assert orders[:2] == orders[2:4] == orders[4:] and orders[0] != orders[1]


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


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "folder", "gz"])
def test_a_damaged_file_gives_way_to_the_next_source_and_then_all_are_named(
    clothes, tmp_path, monkeypatch, caplog, harm
):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(fashion_mnist.shutil, "which", lambda tool: None)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    whole = data.load("fashion_mnist", root=tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    content = file.read_bytes()
    packed = bytearray(gzip.compress(content))
    packed[len(packed) // 2] ^= 255  # a good header and a broken body
    file.unlink()
    if harm == "folder":
        file.mkdir()
    elif harm == "gz":
        file.with_name(f"{file.name}.gz").write_bytes(packed)
    else:
        flipped = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
        file.write_bytes({"flip": flipped, "cut": content[:500], "empty": b""}[harm])
    if harm != "folder":
        assert data.load("fashion_mnist", root=tmp_path).sha256 == whole.sha256 and file.read_bytes() == content
        assert (f"{file} is written from {clothes}" in caplog.text) == (harm != "gz")
        file.write_bytes(b"damaged again")
    for damaged in clothes.iterdir():
        damaged.write_bytes(packed)
    named = (
        r"(?s)FashionMNIST/raw: .*datasets/fashion-mnist: .*apt-get is not installed.*http://.*no network.*into .*raw"
    )
    with pytest.raises(FileNotFoundError, match=named):
        data.load("fashion_mnist", root=tmp_path)


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
    contents = fashion_mnist._debian_package()
    assert {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()} == fashion_mnist.SHA256


# CIFAR-10, from files made here


@pytest.fixture
def batches_of_ten(monkeypatch):
    """Contents of seven small files that stand for the real ones."""
    random = np.random.default_rng(0)
    contents = {"batches.meta": {"label_names": [f"class {index}" for index in range(10)]}}
    for name in list(cifar10.SHA256)[1:]:
        labels = random.integers(0, 10, 4).tolist()
        contents[name] = {"data": random.integers(0, 256, (4, 3072), np.uint8), "labels": labels}
    contents = {name: pickle.dumps(content) for name, content in contents.items()}
    monkeypatch.setattr(cifar10, "SHA256", {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()})
    return contents


def test_cifar10_is_unpacked_from_its_archive_and_unpickled_only_when_verified(batches_of_ten, tmp_path):
    with tarfile.open(tmp_path / cifar10.ARCHIVE, "w:gz") as tar:
        for name, content in batches_of_ten.items():
            entry = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    cifar = data.load("cifar10", root=tmp_path)
    assert cifar.x_train.shape == (20, 3, 32, 32) and cifar.x_test.shape == (4, 3, 32, 32)
    for name, part, index in (("data_batch_2", "train", slice(4, 8)), ("test_batch", "test", slice(None))):
        batch = pickle.loads(batches_of_ten[name])
        assert np.array_equal(getattr(cifar, f"x_{part}")[index].numpy().reshape(4, 3072), batch["data"])
        assert getattr(cifar, f"y_{part}")[index].tolist() == batch["labels"]
    assert cifar.classes[3] == "class 3"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run by a pickle"),)

    (tmp_path / cifar10.FOLDER / "test_batch").write_bytes(pickle.dumps(Hostile()))
    assert data.load("cifar10", root=tmp_path).sha256 == cifar.sha256  # from the archive again
    (tmp_path / cifar10.FOLDER / "batches.meta").write_bytes(pickle.dumps(Hostile()))
    (tmp_path / cifar10.ARCHIVE).write_bytes(b"no archive")
    with pytest.raises(FileNotFoundError, match=r"(?s)batches.meta is damaged.*tar\.gz: .*https://.*into .*batches-py"):
        data.load("cifar10", root=tmp_path)
    assert not (tmp_path / "run by a pickle").exists()


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
        patch.setattr(image_folder, "_blocks", None)
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


def test_folders_of_one_name_and_listing_have_caches_of_their_own(tree, tmp_path):
    copy = tmp_path / "b" / "pets"
    for file in tree.rglob("*.png"):
        other = copy / file.relative_to(tree)
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.asarray(Image.open(file))).save(other, compress_level=0)
        Image.open(file).save(file, compress_level=0)  # uncompressed files of one shape have one size
        for path in (file, other):
            os.utime(path, ns=(0, 0))
    first, second = (data.load(f"image_folder:{folder}", root=tmp_path) for folder in (tree, copy))
    assert torch.equal(first.x_train, 255 - second.x_train) and first.sha256 != second.sha256


@pytest.mark.parametrize(
    "change",
    [
        lambda index: [],
        lambda index: index | {"std": ["a"]},
        lambda index: index | {"x_test": {"shape": [2, 3, 10, 12]}},
        lambda index: index | {"x_train": index["x_train"] | {"shape": [3, 6, 10, 12]}},
        lambda index: index | {"x_train": index["x_train"] | {"shape": [2**40, 3, 2**40, 12]}},
    ],
)
def test_an_index_that_fits_its_checksum_and_nothing_else_is_made_again(tree, tmp_path, change, caplog):
    pets = data.load(f"image_folder:{tree}", root=tmp_path)
    (path,) = (tmp_path / "cache").glob("*.json")
    content = json.dumps(change(json.loads(path.read_bytes().split(b"\n", 1)[1]))).encode()
    path.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    assert data.load(f"image_folder:{tree}", root=tmp_path).sha256 == pets.sha256 and "is damaged" in caplog.text


def test_what_is_written_to_images_stays_in_memory(tree, tmp_path):
    for options in ({}, {"image_size": 6}, {"train_images": 2}, {"image_size": 5, "margin": True}):
        pets = data.load(f"image_folder:{tree}", root=tmp_path, **options)
        before = pets.x_train.clone(), pets.x_test.clone()
        pets.x_train.zero_()
        pets.x_test[0, 0, 0] += 1
        again = data.load(f"image_folder:{tree}", root=tmp_path, **options)
        assert torch.equal(again.x_train, before[0]) and torch.equal(again.x_test, before[1]) and not pets.x_train.any()


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def _png(color, pixels, *chunks):
    """A PNG file of 16 bits, of Pillow's own hand none but grey ones come."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return content


def _file_of(image, suffix="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera on its side: rows of the file are columns from the right
    return _file_of(Image.fromarray(np.rot90(COLOUR)), exif=exif)


PALETTE = Image.fromarray(COLOUR).quantize(16)
FLAT = np.asarray(PALETTE.convert("RGB"))
FIRST = PALETTE.getpixel((0, 0))
WIDE = 257 * np.uint16(1)
OPAQUE = np.full(GREY.shape, 255, np.uint8)
CONVERTED = {
    "grey of 16 bits": (_file_of(Image.fromarray(GREY * WIDE)), GREY),
    "grey of 16 bits, one level transparent": (
        _png(0, GREY * WIDE, (b"tRNS", b"\x0a\x0a")),
        np.where(GREY == 10, 255, GREY),
    ),
    "grey of 16 bits as PGM": (b"P5 8 6 65535\n" + (GREY * WIDE).astype(">u2").tobytes(), GREY),
    "grey of 16 bits as TIFF": (_file_of(Image.fromarray(GREY * WIDE), "tiff"), GREY),
    "colour of 16 bits": (_png(2, COLOUR * WIDE), COLOUR),
    "colour and transparency of 16 bits": (_png(6, np.dstack([COLOUR, OPAQUE]) * WIDE), COLOUR),
    "1 bit": (_file_of(Image.fromarray(GREY > 99)), np.where(GREY > 99, 255, 0)),
    "grey and transparency": (
        _file_of(Image.fromarray(np.dstack([GREY, np.where(GREY > 99, 255, 0).astype(np.uint8)]))),
        np.where(GREY > 99, GREY, 255),
    ),
    "grey, one level transparent": (_file_of(Image.fromarray(GREY), transparency=10), np.where(GREY == 10, 255, GREY)),
    "palette": (_file_of(PALETTE), FLAT),
    "palette, one colour transparent": (
        _file_of(PALETTE, transparency=FIRST),
        np.where(np.asarray(PALETTE)[:, :, None] == FIRST, 255, FLAT),
    ),
    "palette, all transparent": (_file_of(PALETTE, transparency=bytes(256)), np.full_like(FLAT, 255)),
    "turned": (_turned(), COLOUR),
    "an animation": (_file_of(PALETTE, "gif", save_all=True, append_images=[PALETTE.rotate(180)]), FLAT),
    "CMYK": (_file_of(Image.new("CMYK", (8, 6), (255, 0, 0, 0)), "tiff"), np.full_like(COLOUR, (0, 255, 255))),
}


def _folder(tree, **parts):
    """A folder of these files, {part: {path below it: content}}."""
    for part, files in parts.items():
        for name, content in files.items():
            path = tree / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return f"image_folder:{tree}"


@pytest.mark.parametrize("name", CONVERTED)
def test_every_kind_of_image_becomes_its_8_bits(tmp_path, name):
    content, expected = CONVERTED[name]
    wild = data.load(_folder(tmp_path / "wild", train={"a/0.png": content}, test={"a/0.png": content}), root=tmp_path)
    expected = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    assert wild.x_train.shape == (1, *expected.shape) and np.array_equal(wild.x_train[0], expected)


BOMB = _png(0, GREY).replace(struct.pack(">II", 8, 6), struct.pack(">II", 60000, 60000))


def _tiff(bits, meaning, levels):
    """A grey TIFF of one strip, of any bits a level and any photometric interpretation."""
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, bits), (259, 3, 1), (262, 3, meaning), (273, 4, 8), (277, 3, 1),
            (278, 3, 1), (279, 4, len(levels))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    start = 8 + len(levels) + len(levels) % 2
    return (
        struct.pack("<2sHI", b"II", 42, start)
        + levels.ljust(start - 8, b"\0")
        + struct.pack("<H", 9)
        + entries
        + bytes(4)
    )


REFUSED = {
    "levels of 12 bits": _tiff(12, 1, bytes.fromhex("fff800")),
    "16 bits, 0 for white": _tiff(16, 0, bytes(4)),
    "a transparent colour of 16 bits": _png(
        2, np.full((6, 8, 3), 2575), (b"tRNS", struct.pack(">HHH", 2575, 5140, 7710))
    ),
    "levels in floating point": _file_of(Image.fromarray(GREY.astype(np.float32)), "tiff"),
    "levels of 32 bits": _file_of(Image.fromarray(GREY.astype(np.int32)), "tiff"),
    "a program": _file_of(Image.fromarray(COLOUR), "eps"),  # Ghostscript would run it
    "a cut stream": _file_of(Image.fromarray(COLOUR))[:-40],
    "a damaged stream": _png(0, GREY)[:60] + b"?" + _png(0, GREY)[61:],
    "no image": b"",
    "oversized": BOMB[:29] + struct.pack(">I", zlib.crc32(BOMB[12:29])) + BOMB[33:],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_refused_by_its_name(tmp_path, name):
    good = _file_of(Image.fromarray(GREY))
    wild = _folder(tmp_path / "wild", train={"a/0.png": good}, test={"a/0.png": good, "a/1.png": REFUSED[name]})
    with pytest.raises(ValueError, match=r"test/a/1\.png is not a readable image: "):
        data.load(wild, root=tmp_path)


@pytest.mark.parametrize("place", ["train/a/0.png", "train/b/0.png", "test/a/0.png"])
def test_one_grey_image_leaves_a_coloured_set_its_colours(tmp_path, place):
    red = _file_of(Image.new("RGB", (8, 6), "red"))
    wild = _folder(tmp_path / "wild", train={"a/0.png": red, "b/0.png": red}, test={"a/0.png": red})
    (tmp_path / "wild" / place).write_bytes(_file_of(Image.fromarray(GREY)))
    found = data.load(wild, root=tmp_path)
    pixels = {"train/a/0.png": found.x_train[0], "train/b/0.png": found.x_train[1], "test/a/0.png": found.x_test[0]}
    for name, image in pixels.items():
        expected = torch.from_numpy(GREY).expand(3, 6, 8) if name == place else torch.tensor([255, 0, 0]).view(3, 1, 1)
        assert (image == expected).all(), name


def test_what_systems_leave_in_folders_is_left_out_and_said(tmp_path, caplog):
    red = _file_of(Image.new("RGB", (8, 6), "red"))
    left = [
        ".ipynb_checkpoints/0.png", "@eaDir/0.png", "__MACOSX/0.png", "#recycle/0.png", "loose.png", "a/@eaDir/0.png",
        "a/.ipynb_checkpoints/0.png", "a/._0.png", "a/notes.txt",
    ]  # fmt: skip
    kept = {"a/0.png": red, "a/below/0.JPG": red, "b/0.png": red}
    wild = _folder(tmp_path / "wild", train=kept | dict.fromkeys(left, b"?"), test={"a/0.png": red, ".DS_Store": b"?"})
    found = data.load(wild, root=tmp_path)
    assert found.classes == ("a", "b") and found.y_train.tolist() == [0, 0, 1]
    assert "left out 10 hidden or foreign files and folders: train/#recycle" in caplog.text
    assert "test has no images of: b" in caplog.text


def test_links_and_names_are_followed_or_refused(tmp_path):
    red = _file_of(Image.new("RGB", (8, 6), "red"))
    tree = tmp_path / ("wild" * 60)  # as long as a name may be
    wild = _folder(tree, train={"a/0.png": red}, test={"a/0.png": red}, elsewhere={"1.png": red})
    (tree / "train" / "a" / "linked").symlink_to(tree / "elsewhere")
    (tree / "train" / "b").symlink_to(tree / "elsewhere")
    Path(os.fsdecode(os.fsencode(tree / "train" / "a") + b"/\xff.png")).write_bytes(red)
    assert data.load(wild, root=tmp_path).y_train.tolist() == [0, 0, 0, 1]
    for text, message in (
        (b"\xff", r"label\.txt is not UTF-8"),
        (b"a\nb", r"label 'a\\nb' of .* not one line"),
    ):
        (tree / "label.txt").write_bytes(text)
        with pytest.raises(ValueError, match=message):
            data.load(wild, root=tmp_path)
    (tree / "label.txt").write_text("\n")
    assert data.load(wild, root=tmp_path).label == tree.name
    a = tree / "train" / "a"
    for name, message, make in (
        ("loop", "a/loop leads back to a folder", lambda path: path.symlink_to(a)),
        ("gone.png", r"a/gone\.png", lambda path: path.symlink_to("nowhere")),
        ("pipe.png", r"pipe\.png is not a file", os.mkfifo),
        ("../empty", "empty' is a class without images", os.mkdir),
        (os.fsdecode(b"../\xff"), r"not printable UTF-8", os.mkdir),
    ):
        make(a / name)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            data.load(wild, root=tmp_path)
        (a / name).rmdir() if (a / name).is_dir() and not (a / name).is_symlink() else (a / name).unlink()


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
    x = image_folder._mapped(tmp_path / "large", (count, 3, 576, 600))
    before = psutil.Process().memory_info().rss
    stream = data.batches(x, torch.arange(count), 2, mean=(0.5,) * 3, std=(0.2,) * 3, generator=seeded())
    first, _ = next(stream)
    assert first.shape == (2, 3, 576, 600)
    assert psutil.Process().memory_info().rss - before < 2**30


def test_a_mapping_that_takes_no_writes_says_so(tree, tmp_path, monkeypatch, caplog):
    """Strict overcommit refuses a private mapping that takes writes, of a file larger than the memory."""
    wanted = data.load(f"image_folder:{tree}", root=tmp_path)
    mapped = image_folder.mmap.mmap

    def strict(*size, prot, **options):
        if prot & image_folder.mmap.PROT_WRITE:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return mapped(*size, prot=prot, **options)

    monkeypatch.setattr(image_folder.mmap, "mmap", strict)
    found = data.load(f"image_folder:{tree}", root=tmp_path)
    assert torch.equal(found.x_train, wanted.x_train) and found.sha256 == wanted.sha256
    assert re.search(r"cache/pets-\w+\.x_test is too large to be mapped for writing here", caplog.text)


def test_processes_that_start_at_once_decode_once(tree, tmp_path, monkeypatch):
    write = image_folder._write_cache

    def noted(stem, *what):
        (tmp_path / f"decoded by {os.getpid()}").touch()
        write(stem, *what)

    monkeypatch.setattr(image_folder, "_write_cache", noted)
    waits = [forked(lambda: data.load(f"image_folder:{tree}", root=tmp_path)) for _ in range(4)]
    assert [wait() for wait in waits] == [0] * 4 and len(list(tmp_path.glob("decoded by *"))) == 1


def test_a_decoder_that_was_killed_hinders_nobody(tree, tmp_path):
    def killed():
        image_folder.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        data.load(f"image_folder:{tree}", root=tmp_path)

    assert forked(killed)() == -signal.SIGKILL
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == [".partial"]
    data.load(f"image_folder:{tree}", root=tmp_path)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock", ".json", ".x_train", ".x_test"}


# Command line


def test_the_command_line_reports_and_fails_plainly(capsys):
    main(["digits"])
    assert "x_train (1438, 1, 8, 8)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="allowed: digits"):
        main(["mnist"])


def test_torchvision_downloads_what_is_missing(tmp_path):
    """Beside a CPU torch, a torchvision built for CUDA needs the import guard of sbkit.data.torchvision."""
    (tmp_path / "there").write_bytes(b"published bytes")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = published.download(f"http://127.0.0.1:{server.server_port}/there")
        server.shutdown()
    assert found == b"published bytes"
