"""The networks that can be trained, by name: what maps features to a logit.

A network is a class ``Network(n_frames, n_bins, **options)`` of ``torch.nn.Module``.  It maps
(batch, frame, bin) features to (batch,) logits of respiratory insufficiency.  Where it has a method
``infer`` that gives the same numbers faster, without gradients, that scores recordings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from spira_tasks.errors import ConfigError
from spira_tasks.registry import Registry

if TYPE_CHECKING:
    from torch import nn

NETWORKS: Registry[Callable[..., nn.Module]] = Registry(
    "networks",
    {
        "spiraconv_v1": "spira_tasks.speech.model:spiraconv_v1",
        "spiraconv_v2": "spira_tasks.speech.model:spiraconv_v2",
        "spiraconv_v4": "spira_tasks.speech.model:spiraconv_v4",
        "cnn14": "spira_tasks.speech.cnn14:Cnn14",
        "mfcc_gram_transformer": "spira_tasks.speech.transformer:MfccGramTransformer",
        "logistic": "spira_tasks.speech.logistic:Logistic",
    },
)


def options_of(name: str, implementation: str = "") -> list[str]:
    """What may be set of a network, in the order of its parameters."""
    make = NETWORKS.find(name, implementation)
    fixed = getattr(make, "keywords", {})  # of a partial
    return [key for key in [*inspect.signature(make).parameters][2:] if key not in fixed]


def build(
    name: str, n_frames: int, n_bins: int, options: Mapping[str, Any], implementation: str = ""
) -> nn.Module:
    """Make a network for windows of ``n_frames`` frames of ``n_bins`` bins.

    Parameters
    ----------
    options : mapping of str to JSON value
        What the network's own parameters are set to; the others keep their defaults.
    implementation : str
        Of the package that the network has to be of; empty for ours.

    Raises
    ------
    ConfigError
        When nothing has this name, the package is another, an option is unknown or wrong, or the
        network cannot be made for features of this shape.
    """
    make, known = NETWORKS.find(name, implementation), options_of(name, implementation)
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(
            f"the network {name} has no option {', '.join(unknown)}. Its options are: "
            f"{', '.join(known) or 'none'}"
        )
    try:
        return make(n_frames, n_bins, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        settings = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ConfigError(
            f"the network {name} cannot be made for windows of {n_frames} frames of {n_bins} bins"
            f"{' with ' if settings else ''}{settings}: {error}. Change its options, or the "
            "feature and the windows of materialize"
        ) from error
