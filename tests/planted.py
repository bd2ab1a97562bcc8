"""A cohort whose rows hold values that occur nowhere else: wherever they are found, they leaked."""

from __future__ import annotations

import csv
import re
from pathlib import Path

# For a recording that is taken in.
TAKEN = {
    "record_id": "zqrecord77",
    "patient_rgh": "zqchart77",
    "session_id": "zqsession77",
    "hospital_id": "<b>zqsite77</b>",
    "collector_pid": "beadfacade77" * 5 + "beef",
    "collected_at": "2022-04-30T03:07:41-03:00",
    "ingested_at": "2022-04-30T03:07:43-03:00",
    "spo2_at": "2022-04-30T03:07:39-03:00",
    "app": "zqapp77",
    "app_version": "zqversion77",
    "device_model": "zqdevice77",
    "os": "zqsystem77",
    "cid10": "zqcode77",
    "ri_cause": "zqcause77",
    "consent_version": "zqconsent77",
    "consent_scope": "zqscope77",
    "retention_until": "2087-03-17",
    "heart_rate": "77.413927",
    "resp_rate": "17.413928",
    "temp": "36.413929",
    "bp_sys": "141.413931",
    "bp_dia": "81.413932",
    "pao2": "91.413933",
    "paco2": "41.413934",
    "ph": "7.4139351",
    "weight": "71.413936",
    "height": "171.413937",
    "fio2": "0.21413938",
    "label_confidence": "0.91413939",
    "x_note": "zqextra77",
}
# And for recordings that are refused, each for another reason.
REFUSED = (
    {"age": "7413942", "spo2": "7413943"},
    {"sex": "zqsex77", "mask_type": "zqmask77"},
    {"device_model": "zqmail77@example.org"},
    {"task": "zqtask77", "consent_status": "zqstatus77"},
    {"unit": "zqunit77", "ri_clinical": "7413944", "label_source": "zqsource77"},
    {"label_version": "7413941x"},
)
NO_VALUE = {  # columns of a few fixed words, with which nothing can be marked in a row that passes
    *("task", "unit", "prompt_version", "capture_ns", "capture_agc", "capture_aec"),
    *("codec_original", "sex", "mask_type", "on_oxygen", "sample_type", "ri_clinical"),
    *("label_source", "consent_status"),
    *("audio_uri", "sha256", "patient_pid"),  # of the first, see plant; hashes of what is marked
    *("age", "spo2", "label_version"),  # whole numbers of two digits
}
FILE = "zqfile77"  # the name of an audio file
MARKERS = [  # what a page would write otherwise, such as <b>, is left out
    re.sub(r"<.*?>", "", marker) for row in (TAKEN, *REFUSED) for marker in row.values()
] + [FILE]
# More recordings are refused than a gate accepts.
TOLERANT = {
    f"{step}.{key}": 0.9
    for step in ("ingest", "check_recordings")
    for key in ("max_quarantine_fraction", "max_site_quarantine_fraction")
}


def plant(cohort: Path) -> None:
    """Put the markers into a cohort, one row each; the audio of the first is renamed too."""
    table = cohort / "recordings.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row | {"x_note": ""} for row in rows]
    new = f"audio/{FILE}.wav"
    (cohort / rows[0]["audio_uri"]).rename(cohort / new)
    rows[0] |= TAKEN | {"audio_uri": new}
    for number, markers in enumerate(REFUSED):
        rows[10 + 7 * number] |= markers
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
