"""Stop the build of an image that got the other build of torch than it was asked for."""

import sys

import torch

asked, got = sys.argv[1], "cuda" if torch.version.cuda else "cpu"
if asked != got:
    sys.exit(
        f"DEVICE={asked}, but the {got} build of torch {torch.__version__} was installed. For the "
        "CPU build, give --build-arg TORCH_INDEX_URL=<PyTorch's index of CPU builds>, or a "
        "WHEELS_IMAGE that holds the wheel; for the CUDA build, leave both away."
    )
