"""The prompts of SPIRA as phones of Brazilian Portuguese, with formants and durations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Colour = Literal["", "s", "ʃ", "f", "p", "k"]  # of frication noise; "" is none

# Broad transcription of the two prompts in use.  "." ends a syllable, a blank ends a word, and
# "|" the phrases after which a healthy reader breathes.
SENTENCES: Mapping[str, str] = {
    "coronavirus": "u a.moɾ aw pɾɔ.si.mu| a.ʒu.da a ẽ.fɾẽ.taɾ u ko.ɾo.na.vi.ɾus| "
    "kõ a foɾ.sa| ki a ʒẽ.tʃi pɾe.si.za",
    "essa_fase": "u a.moɾ aw pɾɔ.si.mu| a.ʒu.da a ẽ.fɾẽ.taɾ ɛ.sa fa.zi| "
    "kõ a foɾ.sa| ki a ʒẽ.tʃi pɾe.si.za",
}


class Segment(NamedTuple):
    """A stretch of speech with one articulation; formants in Hz of an adult man."""

    seconds: float
    formants_hz: tuple[float, float, float]
    voicing: float = 1.0
    colour: Colour = ""
    noise: float = 0.0
    f1_bandwidth_hz: float = 80.0


LABIAL, ALVEOLAR, VELAR = (300, 900, 2200), (300, 1700, 2600), (300, 1900, 2400)
PALATAL = (300, 1950, 2600)

# Oral vowels: F1 and F2 of Brazilian men after Escudero et al., JASA 126 (2009), table II.
PHONES: Mapping[str, tuple[Segment, ...]] = {
    "a": (Segment(0.115, (683, 1329, 2450)),),
    "ɛ": (Segment(0.110, (518, 1831, 2550)),),
    "e": (Segment(0.105, (357, 2028, 2600)),),
    "i": (Segment(0.095, (285, 2198, 2950)),),
    "ɔ": (Segment(0.115, (532, 927, 2450)),),
    "o": (Segment(0.105, (372, 804, 2400)),),
    "u": (Segment(0.095, (309, 761, 2300)),),
    "w": (Segment(0.060, (340, 750, 2300), 0.8),),
    "ẽ": (Segment(0.125, (420, 1950, 2550), 0.8, f1_bandwidth_hz=200),),
    "õ": (Segment(0.125, (430, 850, 2400), 0.8, f1_bandwidth_hz=200),),
    "m": (Segment(0.070, (260, 1000, 2200), 0.45, f1_bandwidth_hz=150),),
    "n": (Segment(0.065, (260, 1450, 2400), 0.45, f1_bandwidth_hz=150),),
    "ɾ": (Segment(0.030, (420, 1400, 2200), 0.35),),
    "v": (Segment(0.065, LABIAL, 0.35, "f", 0.05),),
    "z": (Segment(0.075, ALVEOLAR, 0.30, "s", 0.10),),
    "ʒ": (Segment(0.080, PALATAL, 0.30, "ʃ", 0.14),),
    "f": (Segment(0.095, LABIAL, 0.0, "f", 0.10),),
    "s": (Segment(0.100, ALVEOLAR, 0.0, "s", 0.22),),
    "ʃ": (Segment(0.075, PALATAL, 0.0, "ʃ", 0.25),),
    "p": (Segment(0.075, LABIAL, 0.0), Segment(0.012, LABIAL, 0.0, "p", 0.25)),
    "t": (Segment(0.070, ALVEOLAR, 0.0), Segment(0.014, ALVEOLAR, 0.0, "s", 0.25)),
    "k": (Segment(0.070, VELAR, 0.0), Segment(0.022, VELAR, 0.0, "k", 0.28)),
    "d": (Segment(0.050, ALVEOLAR, 0.10), Segment(0.010, ALVEOLAR, 0.2, "s", 0.15)),
}
PAUSE_FORMANTS_HZ = (500.0, 1500.0, 2500.0)  # a neutral tract
NOISE_BANDS_HZ: Mapping[Colour, tuple[float, float]] = {
    "s": (4200, 7600),
    "ʃ": (2200, 6000),
    "f": (1200, 7400),
    "p": (300, 1800),
    "k": (1200, 3200),
}


def syllables(prompt: str) -> list[tuple[str, str]]:
    """Split a prompt into syllables: phones, and the boundary ``"."``, ``" "`` or ``"|"``."""
    found = []
    phones = ""
    for character in SENTENCES[prompt].replace("| ", "|") + "|":
        if character in ". |":
            found.append((phones, character))
            phones = ""
        else:
            phones += character
    return found
