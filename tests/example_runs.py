"""Examples for tests of evidence and figures: the committed records, and tiny frames whose numbers fit in the head."""

from pathlib import Path

from pandas import DataFrame

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
_DEFAULTS = {
    "quantizer": "signed_binary",
    "model": "resnet8",
    "width": 16,
    "epochs": 3,
    "learning_rate": 0.01,
    "seed": 0,
}


def frame(*rows, **columns):
    """A frame like that of `records.read`: a row per (name, top1_percent, options that differ from their defaults)."""
    made = []
    for name, top1, config in rows:
        scalars = {
            "density": 1.0,
            "effectual_weights": 100.0,
            "total_parameters": 200,
            "quantized_weights": 100,
            "weight_bits": 1.0,
        }
        options = _DEFAULTS | scalars | columns | config
        made.append({"name": name, "path": f"{name}.json", "config": config, "top1_percent": top1} | options)
    return DataFrame(made)
