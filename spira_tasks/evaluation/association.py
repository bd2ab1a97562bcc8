"""How strongly a column goes with the classes: statistics of people, not of recordings.

What goes with the label can be learned in place of the illness.  A model is trained on one task,
so each task is looked at on its own: what differs in the sentences alone is not thinned by the
vowels.  Every statistic comes with what chance alone gives with so few people.

Of a person with several recordings of a task no level is passed over.  They count in part for each
level, by its share of their recordings, and as a whole for the set of their levels; the worse of
the two counts.  Sets alone would miss a device used for nine of ten recordings of patients and one
of ten of controls, shares alone one that every patient, and no control, was recorded with once.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

MAX_CATEGORIES = 10  # a number with more values than this is cut into quarters
CONFIDENCE = 0.999  # of what chance alone does not exceed; high, because many columns are looked at

Found = dict[str, list[dict[str, float]]]  # statistic to its values, what chance gives, and n


def of_task(values: pd.Series, ill: pd.Series, group: pd.Series) -> Found:
    """All statistics of a column among the recordings of one task.

    Parameters
    ----------
    values, ill, group : Series
        One row a recording: a missing value is a level as any other, ``ill`` is boolean.  Somebody
        with recordings of both classes counts in each.
    """
    person = ill.groupby([group, ill], dropna=False).ngroup()
    patient = ill.groupby(person).first()
    is_number = pd.api.types.is_numeric_dtype(values)
    levels = values
    if is_number and values.nunique() > MAX_CATEGORIES:
        levels = pd.qcut(values, 4, duplicates="drop")
    n_recordings = counted(person, levels)
    shares, heard = n_recordings.div(n_recordings.sum(axis=1), axis=0), n_recordings > 0
    several, together = heard.sum(axis=1) > 1, sets(heard)
    n_of_sets = counted(patient[several], together[several])
    n_heard = pd.concat([heard.groupby(patient).sum(), n_of_sets], axis=1).fillna(0)
    tables = [shares.groupby(patient).sum()]
    if several.any():
        tables.append(counted(patient, together))
    known = values.dropna()
    if is_number:
        numbers = known.astype(float).groupby(person).mean().to_frame()
    else:
        numbers = counted(person[known.index], known)
        numbers = numbers.div(numbers.sum(axis=1), axis=0)
    apart, apart_by_chance = difference(numbers, patient[numbers.index])
    n = len(patient)
    return {
        "association": [
            {"value": v, "chance": chance, "n": n} for v, chance in map(cramers_v, tables)
        ],
        "one_class": [{"value": one_class_share(n_heard, patient), "n": n}],
        "difference": [{"value": apart, "chance": apart_by_chance, "n": len(numbers)}],
        "unbalanced": [{"value": n_unbalanced(n_heard), "n": n_heard.shape[1]}],
    }


def counted(rows: pd.Series, columns: pd.Series) -> pd.DataFrame:
    """How often each pair occurs; a missing value of ``columns`` is one more value.

    As ``pandas.crosstab``, which takes most of the time of a check.
    """
    row, names = pd.factorize(rows, sort=True)
    column, values = pd.factorize(columns, use_na_sentinel=False)
    shape = len(names), len(values)
    pairs = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1])
    return pd.DataFrame(pairs.reshape(shape), index=names)


def sets(heard: pd.DataFrame) -> pd.Series:
    """A name for the set of each person's levels, from which of them (person, level) they have."""
    rows = np.packbits(heard.to_numpy(), axis=1)
    codes, _ = pd.factorize(np.array([row.tobytes() for row in rows], dtype=object))
    return pd.Series([f"set {code}" for code in codes], index=heard.index)


def cramers_v(table: pd.DataFrame) -> tuple[float, float]:
    """Strength of association of two categorical columns, and how strong chance makes it.

    Parameters
    ----------
    table : DataFrame of shape (class, level)
        How many people; who has several levels counts in part for each.

    Returns
    -------
    v : float
        Cramér's V, in [0, 1]; 0 when there is one level or one class.
    chance : float
        The value that independent columns of this size exceed with probability 1 - CONFIDENCE,
        by the chi-squared approximation; parts of people vary less than that.
    """
    from scipy.stats import chi2

    counts = table.to_numpy(dtype=float)
    if min(counts.shape) < 2:
        return 0.0, 1.0
    n = counts.sum()
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / n
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    scale = n * (min(counts.shape) - 1)
    chance = chi2.ppf(CONFIDENCE, freedom)
    return float(np.sqrt(statistic / scale)), float(min(1.0, np.sqrt(chance / scale)))


def one_class_share(n_heard: pd.DataFrame, patient: pd.Series) -> float:
    """The largest share of the people in a level of one class only, where that is not chance.

    Parameters
    ----------
    n_heard : DataFrame of shape (class, level)
        How many people have a level; somebody may have several.
    patient : Series
        Boolean, one row a person.
    """
    if patient.nunique() < 2:
        return 0.0
    share, n_patients, n_people = float(patient.mean()), n_heard.loc[True], n_heard.sum()
    of_class = np.where(n_patients > 0, share, 1 - share)
    by_chance = n_heard.shape[1] * of_class**n_people
    alone = (n_heard.min() == 0) & (by_chance < 1 - CONFIDENCE)
    return float((n_people[alone] / len(patient)).max()) if alone.any() else 0.0


def difference(numbers: pd.DataFrame, patient: pd.Series) -> tuple[float, float]:
    """Standardised mean difference of the classes, and what chance makes it.

    Parameters
    ----------
    numbers : DataFrame of shape (person, number)
        A number, or the shares of categories; no missing values.
    patient : Series
        Boolean, one row a person.

    Returns
    -------
    difference : float
        Of means, in pooled standard deviations; the largest of the columns.  0 where a class has
        fewer than two people.
    chance : float
        What classes that do not differ exceed with probability 1 - CONFIDENCE, by the normal
        approximation.
    """
    from scipy.stats import norm

    n_patients, n_controls = int(patient.sum()), int((~patient).sum())
    if min(n_patients, n_controls) < 2:
        return 0.0, 0.0
    ill, well = numbers[patient.to_numpy()], numbers[~patient.to_numpy()]
    pooled = np.sqrt((ill.var() + well.var()) / 2)
    apart = (ill.mean() - well.mean()).abs()
    largest = float((apart / pooled.where(pooled > 0, np.inf)).max())
    if ((pooled == 0) & (apart > 0)).any():  # all of one class have it, none of the other
        largest = 10.0
    z = norm.ppf(1 - (1 - CONFIDENCE) / 2 / numbers.shape[1])
    return largest, float(z * np.sqrt(1 / n_patients + 1 / n_controls))


def n_unbalanced(n_heard: pd.DataFrame, enough: int = 10) -> int:
    """How many levels have too few people of one class; fewer than ``enough``."""
    from scipy.stats import binom

    fewer = n_heard.reindex([False, True], fill_value=0).min()
    needed = binom.ppf(1 - CONFIDENCE, n_heard.sum(), 0.5)
    return int((fewer < np.minimum(enough, needed)).sum())
