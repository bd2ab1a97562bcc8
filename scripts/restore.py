#!/usr/bin/env python3
"""Put a backup back: databases, the store, and MLflow's artifacts where it has them.

    scripts/compose.sh up -d bootstrap             Postgres and S3, and empty databases and buckets
    scripts/restore.py /backup/spira-2025-11-21
    scripts/restore.py --force /backup/...         over databases and a store that are not empty
    scripts/compose.sh up -d

The backup is verified before anything changes.  Databases are loaded beside the present ones, and
replace them once all are whole.  In the store nothing is deleted: objects of the backup overwrite
those of the same name.  Every DAG is paused, so that no run goes on before a person has looked.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.backup import OWNERS, Platform, Refused, command_line, read_manifest, run, say
from scripts.deployment import CONNECT

MAY_RUN = ("postgres", "s3", "redis")
ASIDE, BEFORE = "_restoring", "_before"


def restore(platform: Platform, folder: Path, force: bool) -> None:
    say("verifying the backup")
    manifest = read_manifest(folder)
    kind = "everything" if manifest["everything"] else "what cannot be computed again"
    say(f"{len(manifest['files'])} files as they were on {manifest['made_at']}: {kind}")
    check(platform, manifest, folder, force)
    for database in manifest["databases"]:
        say(f"loading database {database}")
        load(platform, database, folder / f"postgres/{database}.dump")
    everything = manifest["everything"]
    say("putting objects")
    failure = "the objects could not be put, and the databases are as they were"
    platform.objects("import", everything, folder, failure)
    say("reading the objects again")
    there = platform.objects("hash", everything, folder, "the objects could not be read again")
    wrong = sorted(
        name
        for name, file in manifest["files"].items()
        if not name.startswith("postgres/") and there.get(name) != file
    )
    if wrong:
        raise Refused(f"{len(wrong)} objects are not as in the backup: {wrong[:3]}")
    say(f"  {len(there)} objects, all of the backup among them")
    paused = pause(platform, "airflow" + ASIDE) if "airflow" in manifest["databases"] else []
    swap(platform, list(manifest["databases"]))
    say(f"restored. Now, with the secrets of that time in place: {platform.settings.compose} up -d")
    if paused:
        say(
            f"paused: {', '.join(paused)}. Runs that were under way at the time of the backup "
            "would go on by themselves: look at them in Airflow's page, then unpause there"
        )


def check(platform: Platform, manifest: dict[str, Any], folder: Path, force: bool) -> None:
    """Refuse while services or steps use the data, and where data would be replaced unasked."""
    platform.check()
    others = sorted(set(platform.running) - set(MAY_RUN))
    if others:
        stop = f"{platform.settings.compose} stop {' '.join(others)}"
        raise Refused(f"the platform works; stop it first: {stop}")
    network = platform.settings["SPIRA_NETWORK"]
    steps = platform.docker(
        *("ps", "--filter", "label=spira.step", "--filter", f"network={network}"),
        *("--format", "{{.Names}}"),
    )
    if names := steps.out.split():
        raise Refused(f"steps still work; wait, or stop them: docker stop {' '.join(names)}")
    theirs, ours = manifest["postgres"], platform.sql("SHOW server_version")
    if int(re.split(r"\D", ours)[0]) < int(re.split(r"\D", theirs)[0]):
        raise Refused(f"the backup is of Postgres {theirs}, and here is {ours}: take a newer image")
    unknown = set(manifest["databases"]) - set(OWNERS)
    if unknown:
        raise Refused(f"the platform has no database {', '.join(unknown)}")
    there = platform.sql("SELECT datname FROM pg_database").split()
    missing = set(manifest["databases"]) - set(there)
    if missing:
        fix = f"{platform.settings.compose} up -d --force-recreate bootstrap"
        raise Refused(f"there is no database {', '.join(sorted(missing))}; make it: {fix}")
    full = [f"database {name}" for name in manifest["databases"] if platform.n_tables(name)]
    failure = "S3 could not be looked at"
    filled = platform.objects("filled", manifest["everything"], folder, failure)
    full += [f"s3 {name}" for name in filled]
    if full and not force:
        raise Refused(f"not empty: {', '.join(full)}; --force puts the backup over it")


def load(platform: Platform, database: str, dump: Path) -> None:
    """Load a dump into a new database beside the one that it will replace."""
    aside, owner = database + ASIDE, OWNERS[database]
    platform.sql(
        f"DROP DATABASE IF EXISTS {aside};\n"
        f"CREATE DATABASE {aside} OWNER {owner};\n"
        f"REVOKE CONNECT ON DATABASE {aside} FROM PUBLIC;"
    )
    with dump.open("rb") as content:
        process = platform.postgres(
            *("pg_restore", *CONNECT, "--exit-on-error", "--single-transaction"),
            *("--no-owner", f"--role={owner}", f"--dbname={aside}"),
            stdin=content,
        )
        if process.wait():
            platform.sql(f"DROP DATABASE {aside};")
            raise Refused(f"database {database} could not be loaded; nothing was replaced")


def pause(platform: Platform, database: str) -> list[str]:
    """Pause every DAG of a database of Airflow; return the names of those that were not."""
    if not platform.sql("SELECT to_regclass('dag')", database):
        return []  # a backup of before the first start
    statement = "UPDATE dag SET is_paused = true WHERE NOT is_paused RETURNING dag_id;"
    return sorted(platform.sql(statement, database).split())


def swap(platform: Platform, databases: list[str]) -> None:
    """Replace all databases by the loaded ones in one transaction, then drop the old ones."""
    named = ", ".join(f"'{database}'" for database in databases)
    renames = "".join(
        f"ALTER DATABASE {name} RENAME TO {name}{BEFORE};\n"
        f"ALTER DATABASE {name}{ASIDE} RENAME TO {name};\n"
        for name in databases
    )
    drops = "".join(f"DROP DATABASE IF EXISTS {name}{BEFORE};\n" for name in databases)
    platform.sql(
        drops + "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname IN ({named}) AND pid <> pg_backend_pid();\n"
        f"BEGIN;\n{renames}COMMIT;\n{drops}"
    )


def main() -> int:
    parser = command_line(__doc__, "a folder that scripts/backup.py made")
    parser.add_argument(
        "--force", action="store_true", help="replace databases and objects that are there"
    )
    given = parser.parse_args()
    return run(lambda platform: restore(platform, given.folder, given.force), given.env_file)


if __name__ == "__main__":
    sys.exit(main())
