"""How a step becomes a task of Airflow, and the governance site in Airflow's web interface.

Of our other packages this one imports ``spira_tasks.contract``, ``spira_tasks.s3_client`` and the
words of checks only; ``lint-imports`` checks it (ADR 18).
"""

import atexit
import gc

# Before it ends Python looks through all objects, for nothing: of Airflow's, three seconds of CPU.
atexit.register(gc.freeze)
