"""`python -m sbkit`: each command on a tiny network of digits, and what wrong command lines are told."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sbkit import inference, records
from sbkit.__main__ import main
from sbkit.data import load
from sbkit.models import build_model
from sbkit.quantizers import QuantizerConfig

ROOT = Path(__file__).parents[1]
OPTIONS = [
    "--dataset", "digits", "--image-size", "0", "--train-images", "0", "--width", "8", "--activation-bits", "4",
    "--epochs", "2",
]  # fmt: skip
COMMANDS = ("train", "save", "run", "evaluate", "bench", "compare")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run's record and checkpoint, both named `tiny`, and its network file."""
    folder = tmp_path_factory.mktemp("trained")
    main(["train", *OPTIONS, "--folder", str(folder), "--name", "tiny", "--progress", "none"])
    main(["save", str(folder / "checkpoints" / "tiny.pt"), str(folder / "net.sbk")])
    return folder


@pytest.fixture
def file(trained):
    return str(trained / "net.sbk")


def refused(capsys, *arguments) -> str:
    """The one line that a wrong command line gets."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    out, error = capsys.readouterr()
    assert stopped.value.code == 2 and out == "" and error.count("\n") == 1 and error.startswith("error: ")
    return error


def test_a_saved_network_has_what_its_data_set_is(file):
    data, source = load("digits"), inference.load(file, tune=False).source
    assert (source.classes, source.mean, source.std, source.image) == (data.classes, data.mean, data.std, (1, 8, 8))


def test_evaluate_finds_the_accuracy_of_the_record(trained, file, capsys):
    expected = records.load(trained / "records" / "train" / "tiny.json").metrics["top1_percent"]
    assert expected > 50  # of ten classes
    main(["evaluate", file, "digits"])
    found = re.fullmatch(r".*net\.sbk: top-1 (\d+\.\d\d) % of 359 images of Digits\n", capsys.readouterr().out)
    assert abs(float(found[1]) - expected) < 0.6  # two images: a float32 activation may round to the next step


def test_run_names_the_likeliest_classes(file, tmp_path, capsys):
    data = load("digits")
    network = inference.load(file, batch=4, tune=False)
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for path, pixels in zip(paths, data.x_test[:4, 0].numpy(), strict=True):
        Image.fromarray(pixels).save(path)
    x = (data.x_test[:4].float() / 255 - data.mean[0]) / data.std[0]
    shares, classes = (100 * network(x).softmax(1)).sort(1, descending=True)
    main(["run", file, *map(str, paths), "--threads", "1"])
    *lines, latency = capsys.readouterr().out.splitlines()
    assert lines[::6] == [str(path) for path in paths] and len(lines) == 24
    for image in range(4):
        shown = [line.split(" %  ") for line in lines[6 * image + 1 : 6 * image + 6]]
        assert [name for _, name in shown] == [str(index) for index in classes[image, :5].tolist()]
        assert np.allclose(
            [float(share) for share, _ in shown], shares[image, :5], atol=1
        )  # some steps round elsewhere
    assert re.fullmatch(r".*net\.sbk: \d[\d.e-]* ms an image, median of \d+ runs, threads 1", latency)


def test_images_of_any_size_and_colour_come_to_the_network(file, tmp_path, capsys):
    Image.new("RGB", (31, 17), "orange").save(tmp_path / "wide.png")
    main(["run", file, str(tmp_path / "wide.png")])
    assert capsys.readouterr().out.count(" %  ") == 5


def test_what_cannot_be_run_is_refused_by_its_name(file, tmp_path, capsys):
    Image.new("L", (8, 8)).save(good := tmp_path / "good.png")
    (damaged := tmp_path / "damaged.png").write_bytes(good.read_bytes()[:40])
    assert f"{damaged} is not a readable image" in refused(capsys, "run", file, good, damaged)
    assert f"{tmp_path / 'none.png'} is not a readable image" in refused(capsys, "run", file, tmp_path / "none.png")
    assert f"{good} is not a readable network file" in refused(capsys, "run", good, good)
    assert "none.sbk" in refused(capsys, "run", tmp_path / "none.sbk", good)
    assert "threads = 0; allowed: an integer from 1 to 1024" in refused(capsys, "run", file, good, "--threads", "0")


def test_a_network_without_its_statistics_is_refused(tmp_path, capsys):
    model = build_model("resnet8", quantizer=QuantizerConfig(), in_channels=1, image_size=8, width=4)
    bare = inference.lower(model.eval(), torch.zeros(1, 1, 8, 8), tune=False).save(tmp_path / "bare.sbk")
    assert f"{bare} lacks classes, mean, std; allowed:" in refused(capsys, "evaluate", bare, "digits")


def test_a_data_set_of_other_images_or_classes_is_refused(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SBKIT_ROOT", str(tmp_path))  # whose `data` keeps what is decoded
    assert "dataset = 'letters'; allowed: digits, " in refused(capsys, "evaluate", file, "letters")
    for name, size, colour in (("classes", 8, "L"), ("channels", 8, "RGB")):
        for part in ("train", "test"):
            (folder := tmp_path / name / part / "only").mkdir(parents=True)
            Image.new(colour, (size, size)).save(folder / "a.png")
    error = refused(capsys, "evaluate", file, f"image_folder:{tmp_path / 'classes'}")
    assert "classes = 'only'; allowed: 0" in error
    error = refused(capsys, "evaluate", file, f"image_folder:{tmp_path / 'channels'}")
    assert "= (3, 8, 8); allowed: (1, 8, 8)" in error


def test_save_refuses_what_is_no_checkpoint_and_writes_nothing(trained, tmp_path, capsys):
    checkpoint = trained / "checkpoints" / "tiny.pt"
    before = checkpoint.read_bytes()
    assert "allowed: .sbk" in refused(capsys, "save", trained / "net.sbk", checkpoint)
    assert checkpoint.read_bytes() == before
    for wrong in (trained / "net.sbk", tmp_path / "none.pt"):
        assert str(wrong) in refused(capsys, "save", wrong, tmp_path / "new.sbk")
    assert not (tmp_path / "new.sbk").exists()


def test_bench_writes_the_record_that_it_names(tmp_path, capsys):
    main(["bench", "operations", "--shapes", "tiny", "--folder", str(tmp_path)])
    path = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("record   "))
    assert path.parent == tmp_path / "records" / "bench" and records.load(path).config["study"] == "operations"
    assert "study = 'all'; allowed: layers, " in refused(capsys, "bench", "all", "--folder", tmp_path)


def test_compare_shows_verdicts_beside_each_other(capsys):
    main(["compare", "reference/quick", "reference/quick"])
    assert re.fullmatch(r"verdicts  (\d+) of \1 equal the reference/quick ones\n", capsys.readouterr().out)
    main(["compare", "reference/quick", "reference/fashion"])
    assert " equal the reference/fashion ones\n" in capsys.readouterr().out
    assert f"{ROOT / 'results' / 'nothing' / 'tables' / 'claims.csv'} is not there" in refused(
        capsys, "compare", "nothing"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert re.search(rf"example:\s+python\s+-m\s+sbkit[. ]{command}", capsys.readouterr().out)


def test_wrong_commands_get_one_line(capsys):
    assert "invalid choice: 'deploy'" in refused(capsys, "deploy")
    assert "required: NETWORK, IMAGE" in refused(capsys, "run")


def test_help_is_quick():
    """It imports neither torch nor pandas."""
    program = "import sys, sbkit.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"    {command} " in done.stdout for command in COMMANDS)
    assert not {"torch", "pandas", "numpy"} & set(done.stdout.splitlines()[-1].split())
