"""Thresholds: what is impossible, what is unusual, how much of it is tolerated, and why.

Plain data and arithmetic, so that ingest can use it without loading Great Expectations.  All
numbers are engineering proposals, checked on synthetic cohorts only; a clinician has to sign those
of the first two tables before they are used on patients.
"""

from __future__ import annotations

from dataclasses import dataclass

CLINICAL = "clinical lead"  # pages add who signed, or that nobody did
DATA = "data engineering"
PRIVACY = "data protection officer"


@dataclass(frozen=True)
class Limit:
    """An inclusive range; None is an open end."""

    low: float | None
    high: float | None
    rationale: str
    owner: str = CLINICAL


# Outside these, a value is a slip of the pen or of the unit, never a patient.  A row that holds
# one goes into quarantine; the gate expects none.
IMPOSSIBLE = {
    "age": Limit(18, 110, "minors need another consent; nobody in a ward is older"),
    "spo2": Limit(50, 100, "percent; a fraction such as 0.93 is the usual slip"),
    "fio2": Limit(0.21, 1.0, "fraction of inspired oxygen; room air is 0.21"),
    "heart_rate": Limit(20, 250, "beats a minute"),
    "resp_rate": Limit(4, 70, "breaths a minute"),
    "temp": Limit(30, 43, "degrees Celsius; Fahrenheit starts above"),
    "bp_sys": Limit(50, 260, "mmHg"),
    "bp_dia": Limit(20, 160, "mmHg"),
    "pao2": Limit(20, 600, "mmHg"),
    "paco2": Limit(10, 150, "mmHg"),
    "ph": Limit(6.8, 7.8, "outside is not compatible with life"),
    "weight": Limit(25, 300, "kilograms, adults"),
    "height": Limit(120, 220, "centimetres, adults; metres are the usual slip"),
    "label_confidence": Limit(0, 1, "a probability", DATA),
    "label_version": Limit(0, None, "a counter", DATA),
}


@dataclass(frozen=True)
class Slip:
    """Where the values of a measurement lie when they come in another unit."""

    unit: str
    slip: str
    low: float
    high: float
    owner: str = CLINICAL


# Apart from what is impossible, because a share that is tolerated must never let these through.
UNIT_SLIPS = {
    "spo2": Slip("percent", "a fraction", 0, 1),
    "temp": Slip("degrees Celsius", "degrees Fahrenheit", 86, 113),
    "height": Slip("centimetres", "metres", 0.5, 2.5),
    "weight": Slip("kilograms", "grams", 25_000, 300_000),
    "fio2": Slip("a fraction", "percent", 21, 100),
}

# Outside these, a value is possible and rare.  When many are, a device or a form has changed.
UNUSUAL = {
    "spo2": Limit(70, 100, "below 70 % a patient is hardly recorded reading a sentence"),
    "heart_rate": Limit(40, 180, "adults at rest"),
    "resp_rate": Limit(8, 50, "adults at rest"),
}
UNUSUAL_FRACTION = 0.01

FIRST_DAY = "2020-04-01"  # SPIRA recorded nobody before
OLDEST_AGE = 90  # older people get this number: they are so few that their age identifies them
AGE_SPREAD_YEARS = 2  # between the years of birth that one person's ages lead to
SPO2_MINUTES = 30  # at most, between the saturation and the recording
SYNC_HOURS = 48  # after which a telephone has sent all that it will ever send

# How much of a column should be filled in, where the contract does not require it.
COMPLETE_FRACTION = {"spo2": 0.95, "on_oxygen": 0.95, "mask_type": 0.95, "device_model": 0.9}
# How a voice was recorded.  Empty throughout, nobody could see whether it goes with the label.
CAPTURE = (
    *("app", "prompt_version", "codec_original"),
    *("capture_ns", "capture_agc", "capture_aec"),
)


@dataclass(frozen=True)
class AudioLimit:
    """Where a recording is typical, and beyond which it is useless.  None is an open end.

    A useless recording goes into quarantine, and too many of them end the run; an atypical one is
    reported.
    """

    column: str
    limit: tuple[float | None, float | None]
    typical: tuple[float | None, float | None]
    tasks: tuple[str, ...]  # where the measure means something; none means everywhere
    rationale: str


SPOKEN = ("RHYME", "SENTENCE")  # with pauses between words
VOICED = ("VOWEL", "RHYME", "SENTENCE")

AUDIO = (
    AudioLimit("duration_seconds", (1, 60), (2, 40), ("VOWEL",), "a held /a/ lasts 5 to 25 s"),
    AudioLimit("duration_seconds", (2.5, 40), (4, 20), ("SENTENCE",), "31 syllables and pauses"),
    AudioLimit("duration_seconds", (2.5, 60), (3, 30), ("RHYME",), "two lines, or a prayer"),
    AudioLimit("duration_seconds", (2, 60), (3, 35), ("AMBIENT",), "up to 30 s in the newest app"),
    AudioLimit("level_dbfs", (-55, None), (-40, -10), VOICED, "voice near a telephone"),
    AudioLimit("clipping_fraction", (None, 0.02), (None, 0.001), (), "clipping sounds like effort"),
    AudioLimit("dc_offset", (-0.05, 0.05), (-0.01, 0.01), (), "a defective input"),
    AudioLimit("snr_db", (0, None), (8, None), SPOKEN, "below, the ward is louder than the voice"),
    AudioLimit(
        "bandwidth_hz", (4000, None), (7000, None), SPOKEN, "telephone lines end at 3.4 kHz"
    ),
    AudioLimit("speech_fraction", (0.1, None), (0.3, 0.97), ("SENTENCE",), "a reading with pauses"),
    AudioLimit(
        "longest_digital_silence_seconds", (None, 0.5), (None, 0.05), (), "gates and lost packets"
    ),
    AudioLimit("dropouts_per_second", (None, 2), (None, 0.2), (), "lost packets tear the voice"),
)
ATYPICAL_FRACTION = 0.10  # of the recordings that a limit is about; beyond, it is reported
NATIVE_RATES_HZ = (44_100, 48_000)  # of telephones that record as they can
SAME_RECORDING = 0.985  # cosine of two fingerprints: see spira_tasks.speech.probe

# The training set.
MIN_SUBJECTS_PER_CLASS = 50  # with fewer, no operating point is far from chance
CLASS_SHARE_LIMIT = (0.2, 0.8)  # of patients among subjects; beyond, accuracy says nothing
CLASS_SHARE_TYPICAL = (0.35, 0.65)
WEAK_ASSOCIATION = 0.2  # Cramér's V between the label and what is not the voice
STRONG_ASSOCIATION = 0.5  # the same; beyond, the label is predictable without any voice
ONE_CLASS_SHARE = 0.2  # of the people at one device, site, channel … that has one class only
SMALL_DIFFERENCE = 0.25  # of age or sex between the classes, in standard deviations
LARGE_DIFFERENCE = 0.5

# Labels.
WEAK_FRACTION = 0.5  # of the labels that are learned from, from rules of thumb
LEAST_CONFIDENCE = 0.8
UNSURE_FRACTION = 0.10  # of the labels, with less
MIN_AGREEMENT = 0.6  # Krippendorff's alpha of those who label
MIN_SESSIONS_TO_AGREE_ON = 20  # with two labels; with fewer, alpha may be anything
SECOND_OPINION_FRACTION = 0.5  # of the labels, resting on fewer than two clinicians

# Features.
MAX_PARITY_DIFFERENCE = 1e-3  # in standard deviations of the matrix; another machine gives 1e-5

# The bank of ward noises.
MIN_NOISE_PEAK = 1e-3  # full scale 1; below it is as good as silence
SPEECH_LIKE_DB = 2.0  # swing at syllable rate: wards with a babble reach 1, one voice begins at 2.3


def tolerated(n: int, fraction: float) -> int:
    """How many of ``n`` may be bad where the share ``fraction`` is acceptable in the long run.

    The smallest ``k`` with P(at most k of n are bad) at least 0.95 when each is bad with
    probability ``fraction``: a one-sided binomial test, so that a small cohort is not refused for
    one bad file, nor a large one let through for being large.

    Examples
    --------
    >>> tolerated(20, 0.05), tolerated(100, 0.05), tolerated(10_000, 0.05)
    (3, 9, 536)
    """
    from scipy.stats import binom

    return int(binom.ppf(0.95, n, fraction)) if n else 0
