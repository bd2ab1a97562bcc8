"""What people are told differs by where the platform runs, and one setting says where that is."""

from __future__ import annotations

import os

LAPTOP = "python -m spira_tasks"
COMMAND = os.environ.get("SPIRA_COMMAND") or LAPTOP
"""How a person starts the command line here; the images set it to ``scripts/spira.sh``."""
