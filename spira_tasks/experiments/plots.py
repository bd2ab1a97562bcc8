"""Plots of a comparison; equal inputs give equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spira_tasks.plots import BLUE, GREY, ORANGE, SYNTHETIC, canvas


def comparison(found: dict[str, Any], folder: Path) -> list[Path]:
    """Write comparison.png and costs.png of what ``comparison.of_experiment`` returns."""
    arms = [arm for arm in found["arms"] if "conditions" in arm][::-1]
    metric = found["metric"]
    title = metric.upper() if metric in {"auc", "f1"} else metric.replace("_", " ")
    figures = {"comparison": canvas(f"{title} of each arm")}
    for shift, (condition, name, colour) in zip(
        (0.12, -0.12),
        (("clean", "as recorded", BLUE), ("noise", "ward noise", ORANGE)),
        strict=True,
    ):
        estimates = [arm["conditions"].get(condition, {}).get(metric) for arm in arms]
        rows = [(place, one) for place, one in enumerate(estimates) if one]
        values = np.array([one["value"] for _, one in rows])
        ends = np.array([[one["low"], one["high"]] for _, one in rows]).reshape(-1, 2).T
        figures["comparison"][1].errorbar(
            values,
            [place + shift for place, _ in rows],
            xerr=np.abs(ends - values),
            fmt="o",
            color=colour,
            capsize=3,
            label=name,
        )
    axes = figures["comparison"][1]
    for place, arm in enumerate(arms):
        seeds = list(arm["seeds"].values())
        axes.plot(seeds, [place] * len(seeds), "|", color=GREY)
    axes.set(xlabel="with 95 % interval; | each seed", xlim=(0, 1.02))
    figures["costs"] = canvas("Cost of each arm")
    axes = figures["costs"][1]
    for shift, name, colour in ((0.2, "cpu_seconds", BLUE), (-0.2, "gpu_seconds", ORANGE)):
        hours = [arm["costs"][name] / 3600 for arm in arms]
        places = np.arange(len(arms)) + shift
        axes.barh(places, hours, height=0.4, color=colour, label=name[:3].upper())
    axes.set(xlabel="hours")
    files = []
    longest = max((len(arm["name"]) for arm in arms), default=0)
    for name, (figure, axes) in figures.items():
        axes.set(yticks=range(len(arms)), yticklabels=[arm["name"] for arm in arms])
        axes.tick_params(axis="y", labelsize=8)
        figure.set_size_inches(5 + 0.07 * longest, max(4.6, 1.6 + 0.3 * len(arms)))
        figure.legend(loc="outside upper left", fontsize=8, frameon=False, ncols=2)
        if found["synthetic"]:
            figure.text(0.5, 0.01, SYNTHETIC, ha="center", fontsize=7, color=GREY)
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=120, metadata={"Software": None})
    return files
