"""With which status a step's process ends, and whether a scheduler tries it again."""

import os

EXIT_BUG = 1  # what Python exits with on an uncaught exception: mend the code, do not retry
EXIT_REJECTED = os.EX_DATAERR  # 65: a gate refused the data or the model; do not retry
EXIT_UNAVAILABLE = os.EX_TEMPFAIL  # 75: a service did not answer; retry
EXIT_CONFIG = os.EX_CONFIG  # 78: the step or its configuration is wrong; do not retry
