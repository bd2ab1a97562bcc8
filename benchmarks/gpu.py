"""What only a GPU can show, in minutes; the numbers go to benchmarks/gpu.json.

python benchmarks/gpu.py [--recordings 200] [--epochs 3]

One training of SPIRAConv on made recordings, in float32 twice, whose digests are compared, and with
mixed precision, whose losses are; for each the windows a second, the memory and the utilisation.
Without a GPU it ends with status 2.  It has not been run yet: nothing in the documents rests on it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

# cuBLAS gives the same bits twice only with a workspace of fixed size.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy  # noqa: E402

from spira_tasks.speech import cpu, memory  # noqa: E402
from spira_tasks.speech.augmentation import NoisePolicy  # noqa: E402
from spira_tasks.speech.batches import Batches  # noqa: E402
from spira_tasks.speech.examples import Example  # noqa: E402
from spira_tasks.speech.features import FeatureExtractor, FeatureSpec  # noqa: E402
from spira_tasks.speech.model import SpiraConv  # noqa: E402

OUT = Path(__file__).with_suffix(".json")
BATCH = 30  # recordings
SPEC = FeatureSpec(tail="drop")


def made(n: int, device: str) -> tuple[list[Example], list[torch.Tensor]]:
    """Recordings of 5 to 10 s, patients with more breath, and 16 ward noises of 30 s."""
    rng = np.random.default_rng(1)

    def sound(seconds: float, level: float) -> torch.Tensor:
        n_samples = int(seconds * SPEC.sample_rate_hz)
        tone = 0.2 * np.sin(2 * np.pi * rng.uniform(90, 220) * np.arange(n_samples) / 16_000)
        samples = 32_767 * (tone + rng.normal(0, level, n_samples)).clip(-1, 1)
        return torch.from_numpy(samples.astype(np.int16)).to(device)

    examples = [
        Example(f"r{i}", sound(rng.uniform(5, 10), 0.05 if i % 2 else 0.002), float(i % 2))
        for i in range(n)
    ]
    return examples, [sound(30, 0.05) for _ in range(16)]


class Utilisation:
    """Per cent of the time that the GPU was busy, asked five times a second where NVML is."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._over.wait(0.2):
            try:
                self.seen.append(torch.cuda.utilization())
            except (ModuleNotFoundError, RuntimeError):  # no pynvml, or a driver without it
                return

    def __enter__(self) -> Utilisation:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.seen)) if self.seen else None


def train(batches: Batches, n_epochs: int, device: str, *, amp: bool) -> dict[str, Any]:
    """Train anew from one seed; say what came out and what it took."""
    torch.manual_seed(7)
    network = SpiraConv(SPEC.n_frames, SPEC.n_bins, dropout=0.3).to(device)
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=0.01, fused=True)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    seconds: dict[str, float] = {"data": 0.0, "network": 0.0}
    losses, n_windows = [], 0
    with Utilisation() as utilisation:
        for epoch in range(n_epochs + 1):  # the first one warms up, and is not counted
            order = np.random.default_rng(epoch).permutation(len(batches.examples)).tolist()
            for start in range(0, len(order), BATCH):
                begun = _now()
                batch = batches.make(order[start : start + BATCH], epoch)
                between = _now()
                precision = torch.autocast(device, torch.bfloat16) if amp else nullcontext()
                with precision:
                    logits = network(batch.features)
                loss = cross_entropy(logits.float(), batch.labels)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
                if epoch:
                    seconds["data"] += between - begun
                    seconds["network"] += _now() - between
                    n_windows += len(batch.labels)
    weights = b"".join(w.detach().cpu().numpy().tobytes() for w in network.parameters())
    return {
        "digest": hashlib.sha256(weights).hexdigest(),
        "last_loss": float(np.mean(losses[-5:])),
        "windows_per_second": n_windows / sum(seconds.values()),
        "seconds": seconds,
        "peak_mib": torch.cuda.max_memory_allocated() / memory.MIB,
        "utilisation_percent": utilisation.mean,
    }


def _now() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "torch sees no GPU here: run it where one is, with the CUDA build of torch",
            file=sys.stderr,
        )
        return 2
    cpu.prepare(2)
    device = "cuda"
    examples, bank = made(arguments.recordings, device)
    extractor, policy = FeatureExtractor(SPEC).to(device), NoisePolicy(3, 3)
    batches = Batches(examples, extractor, bank, policy, windows="all", seed=1)
    need = memory.needed(
        SpiraConv(SPEC.n_frames, SPEC.n_bins),
        SPEC,
        n_windows=BATCH * 6,
        n_samples=BATCH * 160_000,
        n_noises=3,
    )
    memory.check(need, device)
    runs = {
        name: train(batches, arguments.epochs, device, amp=name == "mixed")
        for name in ("float32", "float32 again", "mixed")
    }
    results = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "n_recordings": arguments.recordings,
        "n_epochs": arguments.epochs,
        "estimated_mib": sum(need.values()) / memory.MIB,
        "digests_are_equal": runs["float32"]["digest"] == runs["float32 again"]["digest"],
        "mixed_is_faster": runs["mixed"]["windows_per_second"]
        / runs["float32"]["windows_per_second"],
        "runs": runs,
    }
    OUT.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    return 0 if results["digests_are_equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
