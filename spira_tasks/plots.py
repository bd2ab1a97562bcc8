"""Plots of an evaluation; equal inputs give equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spira_tasks.speech.metrics import Array

mpl.use("agg")

BLUE, ORANGE, GREY = "#1b6ca8", "#d1603d", "#8a8f98"
CONDITION_NAMES = {
    "clean": "as recorded",
    "noise_all": "ward noise on everybody",
    "noise_controls": "… on controls only",
    "noise_patients": "… on patients only",
    "noise_swapped": "rooms of the other class",
}
PUSH = LinearSegmentedColormap.from_list("push", [BLUE, "white", ORANGE])
PART_COLOURS = {"speech": "#444a52", "pauses": "#b9bec6", "edges": "white"}
DOTTED: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": ":"}
SYNTHETIC = "synthetic cohort: shows that the platform works, says nothing of medicine"
IN_ALL_LANGUAGES = {"explanations": "SYNTHETIC · SINTÉTICO"}  # on pages, which say the rest


def evaluation(test: pd.DataFrame, report: dict[str, Any], folder: Path) -> None:
    """Write roc.png, calibration.png, confusion.png, ward_noise.png and explanations.png.

    ``test`` has the columns label in {0, 1}, clean and noise: probabilities of the test recordings.
    ``report`` is as ``evaluation.json`` holds it.
    """
    labels, clean = test["label"].to_numpy(float), test["clean"].to_numpy(float)
    noise = test["noise"].to_numpy(float) if "noise_all" in report["conditions"] else None
    figures = {
        "roc": roc(labels, clean, noise, report),
        "calibration": calibration(report),
        "confusion": confusion(report),
        "ward_noise": ward_noise(report),
    }
    if report["explanations"]:
        cells = pd.read_parquet(folder / "explanations.parquet")
        figures["explanations"] = explanations(cells, report["explanations"])
    for name, figure in figures.items():
        if report["synthetic"]:
            note = IN_ALL_LANGUAGES.get(name, SYNTHETIC)
            figure.text(0.5, 0.01, note, ha="center", fontsize=7, color=GREY)
        figure.savefig(folder / f"{name}.png", dpi=120, metadata={"Software": None})


def roc(labels: Array, clean: Array, noise: Array | None, report: dict[str, Any]) -> Figure:
    from sklearn.metrics import roc_curve

    figure, axes = canvas("ROC curve of the test subjects")
    for scores, condition, colour in ((clean, "clean", BLUE), (noise, "noise_all", ORANGE)):
        if scores is None:
            continue
        false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
        auc = interval(report["conditions"][condition]["auc"])
        style: dict[str, Any] = {"color": colour, "drawstyle": "steps-post"}
        label = f"{CONDITION_NAMES[condition]}: AUC {auc}"
        axes.plot(false_positive_rate, true_positive_rate, label=label, **style)
    point = report["conditions"]["clean"]
    axes.plot(
        1 - point["specificity"]["value"],
        point["sensitivity"]["value"],
        "o",
        color=BLUE,
        label=f"operating point: probability {report['operating_point']:.2f}",
    )
    axes.plot([0, 1], [0, 1], **DOTTED)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return figure


def calibration(report: dict[str, Any]) -> Figure:
    figure, axes = canvas("Calibration on the test subjects")
    found = report["calibration"]
    groups = found["reliability"]
    observed = np.array([[g["observed"][end] for end in ("value", "low", "high")] for g in groups])
    value, low, high = observed.T
    axes.errorbar(
        [group["predicted"] for group in groups],
        value,
        yerr=np.clip([value - low, high - value], 0, None),
        fmt="o-",
        color=BLUE,
        capsize=3,
        linewidth=1,
    )
    axes.plot([0, 1], [0, 1], **DOTTED)
    axes.set(
        xlabel="predicted probability", ylabel="share of patients", xlim=(0, 1), ylim=(-0.02, 1.02)
    )
    recalibrated = found.get("recalibration", {}).get("applied", False)
    text = (
        f"{len(groups)} groups of equal size, 95 % interval, n = {report['n_recordings']}\n"
        f"slope {interval(found['slope'])}, intercept {interval(found['intercept'])}\n"
        f"{'recalibrated' if recalibrated else 'not recalibrated'} on the validation subjects"
    )
    axes.text(0.03, 0.88, text, fontsize=8, transform=axes.transAxes)
    return figure


def confusion(report: dict[str, Any]) -> Figure:
    figure, axes = canvas("Confusion matrix of the test recordings")
    names = ("true_negatives", "false_positives", "false_negatives", "true_positives")
    matrix = np.array([report["confusion"][name] for name in names]).reshape(2, 2)
    axes.imshow(matrix / matrix.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        share = count / matrix[row].sum()
        style: dict[str, Any] = {"color": "white" if share > 0.5 else "black", "fontsize": 13}
        axes.text(column, row, f"{count}\n{share:.0%}", ha="center", va="center", **style)
    axes.set(
        xticks=[0, 1],
        xticklabels=["called control", "called patient"],
        yticks=[0, 1],
        yticklabels=["control", "patient"],
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def ward_noise(report: dict[str, Any]) -> Figure:
    figure, axes = canvas("Does ward noise change the answer?")
    conditions = [name for name in CONDITION_NAMES if name in report["conditions"]]
    for metric, colour, shift in (
        ("balanced_accuracy", BLUE, -0.2),
        ("sensitivity", ORANGE, 0.0),
        ("specificity", GREY, 0.2),
    ):
        estimates = [report["conditions"][name][metric] for name in conditions]
        values = np.array([estimate["value"] for estimate in estimates])
        below = values - [estimate["low"] for estimate in estimates]
        above = [estimate["high"] for estimate in estimates] - values
        axes.errorbar(
            values,
            np.arange(len(conditions)) + shift,
            xerr=np.clip([below, above], 0, None),
            fmt="o",
            color=colour,
            capsize=3,
            label=metric.replace("_", " "),
        )
    axes.axvline(0.5, **DOTTED)
    axes.set(
        yticks=range(len(conditions)),
        yticklabels=[CONDITION_NAMES[name] for name in conditions],
        xlim=(0, 1.02),
        xlabel="on the test subjects, with 95 % interval",
    )
    axes.invert_yaxis()
    axes.legend(loc="lower left", fontsize=8, frameon=False)
    return figure


def explanations(cells: pd.DataFrame, found: dict[str, Any]) -> Figure:
    """Draw which cells of a few test recordings pushed the answer, and which way.

    ``cells`` and ``found`` are as ``evaluation.explanations.explain`` makes them.  It has no words:
    the model card explains it below, in two languages.
    """
    edges_hz, cell_seconds = found["band_edges_hz"], found["cell_seconds"]
    n_bands, parts = len(edges_hz) - 1, [group for _, group in cells.groupby("number")]
    longest = cells["from_seconds"].max() + cell_seconds
    limit = max(1.0, float(cells["points"].abs().quantile(0.99)))
    size = (7.5, 1.1 + 1.75 * len(parts))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(rect=(0, 0.03, 1, 0.97)))
    many = figure.subplots(len(parts), squeeze=False, sharex=True)[:, 0]
    recordings = zip(many, parts, found["recordings"], strict=True)
    for number, (axes, rows, facts) in enumerate(recordings, start=1):
        seconds = rows["from_seconds"].max() + cell_seconds
        points = rows["points"].to_numpy().reshape(-1, n_bands).T
        place: dict[str, Any] = {"origin": "lower", "aspect": "auto"}
        colours: dict[str, Any] = {"cmap": PUSH, "vmin": -limit, "vmax": limit}
        image = axes.imshow(points, extent=(0, seconds, 0, n_bands), **place, **colours)
        strip = [to_rgb(PART_COLOURS[part]) for part in rows["part"][::n_bands]]
        axes.imshow([strip], extent=(0, seconds, n_bands + 0.15, n_bands + 0.55), **place)
        for band, push in enumerate(facts["bands"]):
            axes.text(seconds + 0.1, band + 0.5, signed(push), fontsize=7, va="center")
        axes.set_title(str(number), fontsize=8, loc="left")
        axes.set(xlim=(0, longest + 0.5), ylim=(0, n_bands + 0.55), yticks=range(n_bands + 1))
        axes.set_yticklabels([f"{edge:.0f}" for edge in edges_hz])
        axes.tick_params(labelsize=7)
        axes.spines[:].set_visible(False)
    # a decimal comma or point would be of one language
    many[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    many[-1].set_xlabel("s", fontsize=8)
    figure.supylabel("Hz", fontsize=8)
    place = {"ax": list(many), "shrink": 0.6, "aspect": 30, "extend": "both"}
    bar = figure.colorbar(image, ticks=MaxNLocator(integer=True), **place)
    bar.ax.tick_params(labelsize=7)
    return figure


def signed(points: float) -> str:
    return f"{round(points):+d}".replace("+0", "0").replace("-", "−")


def canvas(title: str) -> tuple[Figure, Axes]:
    below = (0, 0.04, 1, 0.96)  # room for the note on synthetic cohorts
    figure = Figure(figsize=(6, 4.6), layout=ConstrainedLayoutEngine(rect=below))
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.2f} ({estimate['low']:.2f}–{estimate['high']:.2f})"
