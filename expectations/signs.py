"""When vital signs speak against a label: for a check of a table, and for whom to ask again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# In room air.  The clinical lead has not signed them yet.
LOW_SPO2 = 90.0
NORMAL_SPO2 = 97.0
CALM_RESP_RATE = 20.0


def contradicted(
    label: pd.Series,
    spo2: pd.Series,
    on_oxygen: pd.Series,
    resp_rate: pd.Series,
    *,
    low_spo2: float = LOW_SPO2,
    normal_spo2: float = NORMAL_SPO2,
    calm_resp_rate: float = CALM_RESP_RATE,
) -> pd.Series:
    """Which labels look wrong in room air: a control below ``low_spo2``, or a patient at
    ``normal_spo2`` or more who breathes calmly.  What is missing contradicts nothing.
    """
    label, spo2, on_oxygen, resp_rate = (
        column.astype("Float64") for column in (label, spo2, on_oxygen, resp_rate)
    )
    room_air = on_oxygen == 0
    sick_control = (label == 0) & (spo2 < low_spo2) & room_air
    well_patient = (label == 1) & (spo2 >= normal_spo2) & room_air & (resp_rate < calm_resp_rate)
    return (sick_control | well_patient).fillna(False).astype(bool)
