"""The committed networks: their size, and the accuracy that their record says, where the data are at hand."""

import re
from pathlib import Path

import pytest
import torch

from sbkit import inference, records
from sbkit.__main__ import main
from sbkit.data import data_folder

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
RECORDS = {  # by network, the record of the run that trained it
    "fashion-random_signs_6_bits-s0.sbk": "fashion/records/train/random_signs_6_bits-s0.json",
}


def test_all_networks_are_listed():
    assert {path.name for path in (REFERENCE / "networks").glob("*.sbk")} == RECORDS.keys()


@pytest.mark.parametrize("name", RECORDS)
def test_a_network_has_the_accuracy_of_its_record(name, capsys):
    path = REFERENCE / "networks" / name
    assert path.stat().st_size < 100_000
    network = inference.load(path, tune=False)
    assert network(torch.zeros(network.shape)).shape == (1, len(network.source.classes))
    record = records.load(REFERENCE / RECORDS[name])
    if not (data_folder() / "FashionMNIST").is_dir():
        pytest.skip("Fashion-MNIST is not in the data folder: `python -m sbkit.data fashion_mnist` fetches it")
    main(["evaluate", str(path), "fashion_mnist"])
    found = re.search(r"top-1 (\d+\.\d\d) %", capsys.readouterr().out)[1]
    assert abs(float(found) - record.metrics["top1_percent"]) <= 0.05
