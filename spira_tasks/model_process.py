"""Load one version of the model without MLflow and without this project, and answer by it.

    python -P model_process.py FOLDER SOCKET

reads the bytes of an audio file, and writes the model's answer as JSON, until the other side
closes.  It imports nothing of this project: the code that came with the model's files is the only
code that it runs.
"""

import json
import sys
import time
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def load(folder: Path) -> Any:
    """As MLflow loads a model of this form, without its import: 50 MB and 3 s of CPU.

    Returns the model itself, with ``predict`` and ``classifier``.
    """
    import yaml

    form = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    sys.path.insert(0, str(folder / form.get("code", "code")))
    return import_module(form["loader_module"])._load_pyfunc(str(folder / form["data"]))


def main(folder: Path, socket: int) -> None:
    import pandas as pd

    model = load(folder)
    with Connection(socket) as asker:
        asker.send_bytes(b'{"n": 0}')  # it is loaded
        while True:
            try:
                number, audio = int(asker.recv_bytes()), asker.recv_bytes()
            except EOFError:
                break
            begun = time.process_time()
            try:
                (answer,) = model.predict(pd.DataFrame({"audio": [audio]})).to_dict("records")
            except Exception as error:  # the file, the weights or the code: the asker decides
                answer = {"error": type(error).__name__}
            answer |= {"n": number, "cpu_seconds": time.process_time() - begun}
            asker.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
