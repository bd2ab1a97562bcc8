"""Every error that is raised on purpose, and the exit status it ends the process with.

* SpiraError
  - ConfigError         78   the step, its configuration or the command is wrong
  - GateRejected        65   a gate refused the data or the model
  - ServiceUnavailable  75   storage or tracking did not answer; worth a retry
  - ArtifactCorrupt      1   a stored file no longer has the content its name promises

Anything else that escapes is a bug: it keeps its traceback and exits with 1.
"""

from spira_tasks.contract.exits import EXIT_BUG, EXIT_CONFIG, EXIT_REJECTED, EXIT_UNAVAILABLE


class SpiraError(Exception):
    """Base of the errors above.  The message says what happened, where, and what to do next."""

    exit_status = EXIT_BUG


class ConfigError(SpiraError):
    exit_status = EXIT_CONFIG


class GateRejected(SpiraError):
    """A gate refused the data or the model.

    Carries only counts and column names: the message reaches logs that people outside the
    study may read, so it never quotes a value of the data.
    """

    exit_status = EXIT_REJECTED


class ServiceUnavailable(SpiraError):
    exit_status = EXIT_UNAVAILABLE


class ArtifactCorrupt(SpiraError):
    pass
