"""01_quantizers: what each quantizer makes of a latent weight, and what share of a gradient it lets through."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit.evidence import runs
from sbkit.figures import layout, style

_RESPONSE = ("w", "forward", "gradient_start", "gradient_middle", "gradient_end")
_STAGES = {"start": 0.35, "middle": 0.65, "end": 1.0}  # of training, by how dark its line is


def response_table(train: DataFrame) -> DataFrame:
    """What the quantizers of recorded runs did to latent weights: the first run of each group.

    One row per group, kind of filter (`beta` is +1 or -1, empty where there is one kind) and latent weight `w`, with
    its `forward` value and the surrogate gradient at the start, in the middle and at the end of training.
    """
    rows = runs.from_history(
        train.drop_duplicates("label"),
        lambda history: (
            {"beta": curve["beta"]} | dict(zip(_RESPONSE, values, strict=True))
            for curve in history.get("response", [])
            for values in zip(*(curve[key] for key in _RESPONSE), strict=True)
        ),
    )
    return rows.drop(columns="seed", errors="ignore")


@style.drawn
def fig_quantizers(table: DataFrame) -> Figure:
    """Forward values and surrogate gradients of `response_table`, one column per scheme and kind of filter."""
    panels = [
        (label, beta, rows)
        for label, group in table.groupby("label", sort=False)
        for beta, rows in group.groupby("beta", dropna=False, sort=False)
    ]
    figure, axes = plt.subplots(2, len(panels), figsize=(style.PAGE, 2.5), sharex=True, sharey="row", squeeze=False)
    changes = False
    for (label, beta, rows), (forward, gradient) in zip(panels, axes.T, strict=True):
        look = style.LOOKS[rows["quantizer"].iloc[0]]
        sign = f"\nβ = {beta:+.0f}".replace("-", "\N{MINUS SIGN}") if beta == beta and beta is not None else ""
        forward.set_title(layout.short(label, 22 if len(panels) < 6 else 15, lines=2) + sign, fontsize=7)
        _line(forward, rows, "forward", look.color)
        moves = not np.allclose(rows["gradient_start"], rows["gradient_end"])
        changes |= moves
        for stage in _STAGES if moves else ("end",):
            _line(gradient, rows, f"gradient_{stage}", look.color, alpha=_STAGES[stage])
        for axis in (forward, gradient):
            axis.axhline(0, color="0.8", linewidth=0.5, zorder=0)
            axis.set_xticks([-1, 0, 1])
    axes[0, 0].set_ylabel("quantized")
    axes[1, 0].set_ylabel("gradient")
    figure.supxlabel("latent weight", fontsize=8)
    keys = [layout.handle(f"{stage} of training", linestyle="-", alpha=alpha) for stage, alpha in _STAGES.items()]
    layout.head(figure, "Quantized weight and surrogate gradient of each latent weight", keys if changes else ())
    return figure


def _line(axis: Axes, rows: DataFrame, column: str, color: str, **look) -> None:
    seaborn.lineplot(rows, x="w", y=column, color=color, estimator=None, ax=axis, **look)
    axis.set(xlabel="", ylabel="")


def threshold_table(delta_factor: float = 0.05, progress: float = 0.0, weights: int = 2000) -> DataFrame:
    """Signed-binary codes and gradients of a random latent filter under a threshold, for the sliders of the notebook.

    One row per weight w of a standard normal filter, in order, for a filter of each sign beta: its code
    beta [beta w >= Delta] with Delta = delta_factor max|w|, and the gradients that `ste` ([|w| <= 1]) and `sb_ede`
    (k t (1 - tanh(t (w - beta Delta))^2), t = 10^(2 progress - 1), k = max(1/t, 1)) pass on.
    `progress` is the share of training done, 0 to 1. `sbkit.quantizers` holds the definitions.
    """
    w = np.sort(np.random.default_rng(0).standard_normal(weights))
    delta, t = delta_factor * np.abs(w).max(), 10 ** (2 * progress - 1)
    tables = []
    for beta in (1, -1):
        slope = max(1 / t, 1) * t * (1 - np.tanh(t * (w - beta * delta)) ** 2)
        code = beta * (beta * w >= delta)
        columns = {"beta": beta, "w": w, "threshold": beta * delta, "code": code, "ste": abs(w) <= 1, "sb_ede": slope}
        tables.append(DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


@style.drawn
def fig_threshold(table: DataFrame) -> Figure:
    """Latent weights of `threshold_table` by their code, and both gradients, a column per sign of the filter."""
    look = style.LOOKS["signed_binary"]
    figure, axes = plt.subplots(2, 2, figsize=(style.PAGE, 2.8), sharex=True, sharey="row")
    for (beta, rows), (weights, gradient) in zip(table.groupby("beta", sort=False), axes.T, strict=True):
        kept = rows["code"] != 0
        seaborn.histplot(
            x=rows["w"], hue=kept, hue_order=(True, False), palette={True: look.color, False: "0.8"},
            multiple="stack", bins=40, linewidth=0.2, legend=False, ax=weights,
        )  # fmt: skip
        for axis in (weights, gradient):
            axis.axvline(rows["threshold"].iloc[0], color="black", linewidth=0.7, linestyle="--")
        seaborn.lineplot(x=rows["w"], y=rows["ste"].astype(float), color="0.5", ax=gradient, errorbar=None)
        seaborn.lineplot(x=rows["w"], y=rows["sb_ede"], color=look.color, ax=gradient, errorbar=None)
        weights.set_title(
            f"values {{0, {beta:+d}}}: density {kept.mean():.2f}".replace("-", "\N{MINUS SIGN}"), fontsize=7
        )
        weights.set(ylabel="weights")
        gradient.set(xlabel="latent weight", ylabel="gradient")
    keys = [
        layout.handle("effectual", color=look.color, marker="s"),
        layout.handle("zero", color="0.8", marker="s"),
        layout.handle("threshold", color="black", linestyle="--"),
        layout.handle("ste", color="0.5", linestyle="-"),
        layout.handle("sb_ede", color=look.color, linestyle="-"),
    ]
    layout.head(figure, "Codes, density and gradient under one threshold", keys)
    return figure
