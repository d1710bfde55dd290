"""Corruptions and attacks: where they change nothing, what they change, how far, and that a seed decides it."""

import pytest
import torch
from torch import nn

from sbkit import robustness
from sbkit.data import Dataset, load
from sbkit.models import build_model
from sbkit.quantizers import QuantizerConfig
from sbkit.robustness import CORRUPTIONS, EPSILONS, fgsm, measure, pgd

NOTHING = {"contrast": 1.0, "gaussian_blur": 1e-3}  # the amounts that change nothing, of the others 0
NAMES = [corrupt.__name__ for corrupt in CORRUPTIONS]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(count=6, channels=3, size=14):
    return torch.rand(count, channels, size, size, generator=generator(1))


def linear_model(pixels, classes=3):
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    with torch.no_grad():
        model[1].weight.normal_(generator=generator(2))
    return model


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def trained(digits):
    """A linear model by ridge regression: good on clean digits, and quick.

    Plain least squares would not do: some pixels are zero in every image, so that its answer is the machine's choice.
    """
    x = ((digits.x_train.double() / 255 - digits.mean[0]) / digits.std[0]).flatten(1)
    targets = torch.eye(10, dtype=x.dtype)[digits.y_train]
    weights = torch.linalg.solve(x.T @ x + torch.eye(64, dtype=x.dtype), x.T @ targets)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        model[1].weight.copy_(weights.T)
        model[1].bias.zero_()
    return model


# Corruptions


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=NAMES)
def test_a_corruption_of_no_amount_changes_nothing_and_the_severities_more_and_more(corrupt):
    x = random_images()
    untouched = corrupt(x, NOTHING.get(corrupt.__name__, 0.0), generator())
    torch.testing.assert_close(untouched, x, atol=1e-6, rtol=0)
    changed = [(corrupt(x, amount, generator()) - x).square().mean() for amount in CORRUPTIONS[corrupt]]
    assert 0 < changed[0] < changed[1] < changed[2] or corrupt is robustness.translation
    assert all(difference > 0 for difference in changed)


def test_noise_has_the_stated_deviation_and_contrast_keeps_the_mean():
    x = random_images(count=50)
    assert (robustness.gaussian_noise(x, 0.08, generator()) - x).std() == pytest.approx(0.08, rel=0.01)
    flat = robustness.contrast(x, 0.4, generator())
    torch.testing.assert_close(flat.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(flat.std((2, 3)), 0.4 * x.std((2, 3)))


def test_blur_keeps_a_constant_image_and_spreads_a_point_as_a_gaussian():
    flat = torch.full((1, 2, 14, 14), 0.3)
    torch.testing.assert_close(robustness.gaussian_blur(flat, 1.0, generator()), flat)
    point = torch.zeros(1, 1, 15, 15)
    point[..., 7, 7] = 1
    blurred = robustness.gaussian_blur(point, 0.7, generator())[0, 0]
    assert blurred.sum() == pytest.approx(1, abs=1e-6) and torch.equal(blurred, blurred.T)
    offsets = torch.arange(15) - 7
    assert (blurred.sum(1) * offsets**2).sum() == pytest.approx(0.7**2, rel=0.02)  # its variance


def test_translation_moves_every_image_and_lets_zeros_enter():
    x = random_images(count=64, channels=1) + 0.5
    moved = robustness.translation(x, 2 / 14, generator())
    shifts = [(rows, columns) for rows in (-2, 0, 2) for columns in (-2, 0, 2) if rows or columns]
    found = set()
    for image, original in zip(moved, x, strict=True):
        possible = [shift for shift in shifts if torch.equal(image[image > 0], _shifted(original, shift))]
        assert len(possible) == 1
        found |= set(possible)
    assert found == set(shifts)


def _shifted(image, shift):
    """The part of an image that is left when it moves by (rows, columns)."""
    rows, columns = (slice(max(0, -s), min(14, 14 - s)) for s in shift)
    return image[:, rows, columns].flatten()


def test_occlusion_greys_one_square_inside_each_image():
    x = random_images(count=32) + 1
    changed = robustness.occlusion(x, 0.375, generator()) == 0.5
    assert (changed.sum((1, 2, 3)) == 3 * 5 * 5).all()
    assert (changed.any(2).sum(2) == 5).all() and (changed.any(3).sum(2) == 5).all()
    assert len(changed.unique(dim=0)) > 10  # not all in one place


# Attacks


def test_fgsm_on_a_linear_model_is_the_formula():
    """The gradient of the cross-entropy by the pixels is W^T (softmax - one-hot)."""
    x, y = random_images(channels=1, size=4), torch.tensor([0, 1, 2, 0, 1, 2])
    model = linear_model(16)
    with torch.no_grad():
        residual = model(x).softmax(1) - torch.eye(3)[y]
        expected = (x + 0.1 * (residual @ model[1].weight).sign().reshape(x.shape)).clamp(0, 1)
    assert torch.equal(fgsm(model, x, y, 0.1, generator()), expected)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_attacks_stay_in_the_box_and_raise_the_loss(attack):
    x, y = random_images(channels=1, size=4), torch.tensor([0, 1, 2, 0, 1, 2])
    model = linear_model(16)
    losses = []
    for epsilon in (0, *EPSILONS):
        changed = attack(model, x, y, epsilon, generator())
        assert (changed - x).abs().max() <= epsilon + 1e-7 and changed.min() >= 0 and changed.max() <= 1
        losses.append(nn.functional.cross_entropy(model(changed), y).item())
    assert losses == sorted(losses) and losses[0] == nn.functional.cross_entropy(model(x), y).item()


def test_pgd_reaches_the_worst_corner_of_a_linear_model_of_two_classes():
    """There the gradient's sign is the same everywhere: ten steps of epsilon / 4 end in the corner from any start."""
    x, y = 0.5 + 0.2 * (random_images(channels=1, size=4) - 0.5), torch.tensor([0, 1, 0, 1, 0, 1])
    model = linear_model(16, classes=2)
    expected = fgsm(model, x, y, 8 / 255, generator())
    torch.testing.assert_close(pgd(model, x, y, 8 / 255, generator()), expected, atol=1e-6, rtol=0)


# Both, in a report


def test_the_report_is_that_of_the_model(digits, trained):
    found = measure(trained, digits, images=100)
    x, y = digits.x_test[:300:3], digits.y_test[:300:3]
    logits = trained((x.float() / 255 - digits.mean[0]) / digits.std[0])
    assert found["images"] == 100 and found["top1_percent"] == (logits.argmax(1) == y).double().mean() * 100 > 90
    corruptions = {(row["corruption"], row["severity"]): row["top1_percent"] for row in found["corruptions"]}
    assert list(corruptions) == [(name, severity) for name in NAMES for severity in (1, 2, 3)]
    assert corruptions["occlusion", 3] < corruptions["occlusion", 1] < found["top1_percent"]
    attacks = {(row["attack"], row["epsilon"]): row["top1_percent"] for row in found["attacks"]}
    assert list(attacks) == [(name, epsilon) for name in ("fgsm", "pgd") for epsilon in EPSILONS]
    for name in ("fgsm", "pgd"):
        falling = [found["top1_percent"], *(attacks[name, epsilon] for epsilon in EPSILONS)]
        assert falling == sorted(falling, reverse=True) and falling[-1] < falling[0]


def test_images_are_drawn_from_the_whole_set():
    """A folder's test images are sorted by class."""
    x, y = torch.zeros(400, 1, 4, 4, dtype=torch.uint8), torch.arange(4).repeat_interleave(100)
    data = Dataset("sorted", "Sorted", x, y, x, y, tuple("abcd"), (0.5,), (0.2,))
    model = linear_model(16, classes=4)
    assert measure(model, data, images=50)["top1_percent"] == pytest.approx(25, abs=1)
    assert measure(model, data)["images"] == 400, "all of a set that is not larger than 10,000"


def test_a_seed_decides_the_report(digits, trained):
    first, again, other = (measure(trained, digits, seed=seed, images=60) for seed in (0, 0, 1))
    assert first == again != other


def test_measuring_leaves_the_model_and_the_global_generator_alone(digits):
    model = build_model("resnet8", quantizer=QuantizerConfig(), in_channels=1, image_size=8, width=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    measure(model, digits, images=60)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
