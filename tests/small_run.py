"""The smallest run of the whole pipeline: its cohort and its settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

# 24 people of which both classes fall into every split, and as little training as there can be.
COHORT = {"subjects": 24, "seed": 31}
# The day is named, or runs before and after midnight would differ; tomorrow is not yet past then.
SETTINGS = {
    "ingest.as_of": (datetime.now(UTC) + timedelta(days=1)).date().isoformat(),
    "train.epochs": 2,
    "train.n_threads": 1,
    "evaluate.n_resamples": 200,
    "evaluate.n_explained": 1,
    "evaluate.n_threads": 1,
}
