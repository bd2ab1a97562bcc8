"""The model behind LitServe or mosec, for ``benchmarks/serving.py``, which starts this file.

Both start processes that import this module again, so what it serves is named in the environment.
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import pandas as pd

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from spira_tasks import model_process  # noqa: E402

FOLDER = Path(os.environ["RIVAL_FOLDER"])


class Model:
    def __init__(self) -> None:
        self.model = model_process.load(FOLDER)

    def probability(self, content: bytes) -> dict[str, float]:
        answered = self.model.predict(pd.DataFrame({"audio": [content]}))
        return {"probability": float(answered["probability"].iloc[0])}


if os.environ["RIVAL"] == "litserve":
    import litserve

    class Api(litserve.LitAPI):  # type: ignore[misc]
        def setup(self, device: str) -> None:  # noqa: ARG002
            self.model = Model()

        def decode_request(self, request: dict[str, str]) -> bytes:
            return base64.b64decode(request["audio"])

        def predict(self, content: bytes) -> dict[str, float]:
            return self.model.probability(content)

        def encode_response(self, answered: dict[str, float]) -> dict[str, float]:
            return answered

    def main() -> None:
        server = litserve.LitServer(Api(), accelerator="cpu")
        server.run(port=int(os.environ["RIVAL_PORT"]), generate_client_file=False)

else:
    import mosec

    class Worker(mosec.Worker):  # type: ignore[misc]
        def __init__(self) -> None:
            self.model = Model()

        def deserialize(self, data: memoryview) -> bytes:
            return bytes(data)

        def forward(self, data: bytes) -> dict[str, float]:
            return self.model.probability(data)

    def main() -> None:
        sys.argv[1:] = ["--port", os.environ["RIVAL_PORT"], "--timeout", "60000"]
        server = mosec.Server()
        server.append_worker(Worker)
        server.run()


if __name__ == "__main__":
    main()
