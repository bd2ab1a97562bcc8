"""The site file: the Docker engines of one site, and what each step may use there.

``SPIRA_SITE`` names a TOML file.  Without one, every step has the resources of the pipeline and
runs on the engine of ``SPIRA_DOCKER_URL``::

    [engines.gpu]
    url = "tcp://gpu-1.example.org:2376"
    tls = "/run/keys/gpu-1"              # folder with ca.pem, cert.pem and key.pem
    hosts = {s3 = "10.0.0.5", mlflow = "10.0.0.5"}      # addresses of those names there

    [steps.train]
    engine = "gpu"
    memory_mib = [16384, 32768]          # the second after an out-of-memory
    cpus = 8
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spira_tasks.contract.access import STEP_ACCESS
from spira_tasks.contract.pipelines import PIPELINES
from spira_tasks.contract.step import Resources, Step

LOCAL_ENGINE = "unix:///var/run/docker.sock"


def number_of(variable: str, default: int, unit: str) -> float:
    """The number in a variable of the environment; ValueError says what to write instead."""
    text = os.environ.get(variable) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"{variable} is {text!r}: write a number of {unit}, such as {default}")
    return number


@dataclass(frozen=True)
class Place:
    """Where a Docker engine is."""

    url: str
    tls: str = ""  # folder of the client's certificate; empty for an engine without TLS
    # Name to address, for containers on an engine outside the platform's network.
    hosts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    engines: Mapping[str, Place]
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Site:
        """Read SPIRA_SITE, SPIRA_DOCKER_URL and SPIRA_DOCKER_TLS, by default of this process.

        Raises
        ------
        ValueError
            When the file is missing or wrong; names the place.
        """
        values = os.environ if environment is None else environment
        own = Place(
            values.get("SPIRA_DOCKER_URL") or LOCAL_ENGINE, values.get("SPIRA_DOCKER_TLS") or ""
        )
        file = values.get("SPIRA_SITE")
        if not file:
            return cls({"": own})
        try:
            content = tomllib.loads(Path(file).read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"SPIRA_SITE={file}: {error}") from None
        _known(content, ("engines", "steps"), file)
        engines = {"": own}
        for name, fields in _table(content, "engines", file).items():
            engines[name] = _place(fields, f"{file}, engines.{name}")
        steps = _table(content, "steps", file)
        names = [known.name for known in dataclasses.fields(Resources)]
        for name, fields in steps.items():
            _known(fields, names, f"{file}, steps.{name}")
            _typed(fields, f"{file}, steps.{name}")
            for engine in fields.get("engine", "").split():
                if engine not in engines:
                    raise ValueError(f"{file}, steps.{name}: there is no [engines.{engine}]")
        _known(
            steps,
            [step.name for pipeline in PIPELINES.values() for step in pipeline.all_steps],
            f"{file}, steps",
        )
        return cls(engines, steps)

    def resources(self, step: Step) -> Resources:
        """The resources of a step here: the pipeline's, with what the site file changes."""
        changes = dict(self.steps.get(step.name, {}))
        if "memory_mib" in changes:
            given = changes["memory_mib"]
            changes["memory_mib"] = tuple(given) if isinstance(given, list) else (given,)
        return dataclasses.replace(step.resources, **changes)

    def place(self, resources: Resources) -> Place:
        return self.places(resources)[0]

    def places(self, resources: Resources) -> list[Place]:
        """The engines that the shards of a step take turns on; the step itself has the first."""
        return [self.engines[name] for name in resources.engine.split() or [""]]


def network_of(access: str) -> str:
    """The Docker network of a step: those that act on the services have one of their own."""
    if access == "services":
        return os.environ.get("SPIRA_SERVICES_NETWORK", "spira_services")
    return os.environ.get("SPIRA_NETWORK", "spira_steps")


def platform_of(store: str, network: str) -> str:
    """The label that separates installations whose containers share an engine."""
    return f"{store} {network}"


def _place(fields: Mapping[str, Any], where: str) -> Place:
    _known(fields, ("url", "tls", "hosts"), where)
    texts = [value for name, value in fields.items() if name != "hosts"]
    if not all(isinstance(text, str) for text in texts) or "url" not in fields:
        raise ValueError(f"{where}: it has no url, or one that is no text")
    hosts = fields.get("hosts", {})
    if not isinstance(hosts, dict) or not all(isinstance(one, str) for one in hosts.values()):
        raise ValueError(f'{where}: write hosts = {{s3 = "<address>", mlflow = "<address>"}}')
    return Place(**fields)


def _table(content: Mapping[str, Any], name: str, file: str) -> Mapping[str, Mapping[str, Any]]:
    """A table of tables, such as ``[steps.train]``; empty when the file has none."""
    table = content.get(name, {})
    if not isinstance(table, dict) or not all(isinstance(one, dict) for one in table.values()):
        raise ValueError(f"{file}: write [{name}.<name>] and below it <key> = <value>")
    return table


def _typed(fields: Mapping[str, Any], place: str) -> None:
    """Refuse a value of a wrong type or size."""
    for name, value in fields.items():
        default = getattr(Resources, name)
        kind = type(default[0] if isinstance(default, tuple) else default)
        kinds = (int, float) if kind is float else (kind,)
        several = value if name == "memory_mib" and isinstance(value, list) else [value]
        wrong = not several or any(type(one) not in kinds for one in several)
        if not wrong and kind in (int, float):  # 0 would be no limit at all
            wrong = min(several) < 0 or (name != "n_gpus" and 0 in several)
        if wrong or (name == "access" and value not in STEP_ACCESS):
            raise ValueError(f"{place}: {name} = {value!r} is no value that a step can have")


def _known(fields: Mapping[str, Any], names: Sequence[str], place: str) -> None:
    unknown = sorted(set(fields) - set(names))
    if unknown:
        raise ValueError(
            f"{place}: {', '.join(unknown)} is not known; there are {', '.join(names)}"
        )
