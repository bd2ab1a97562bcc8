"""The command line as a person starts it here: pages, messages and help show it."""

from __future__ import annotations

import os

LAPTOP = "python -m spira_tasks"
COMMAND = os.environ.get("SPIRA_COMMAND") or LAPTOP
"""SPIRA_COMMAND, which the images set to ``scripts/spira.sh``."""
