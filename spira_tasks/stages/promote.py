"""Gate: a sound challenger that beats the champion becomes the champion."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira_tasks.config import StageConfig, StageSpec
from spira_tasks.contract.record import Outcome
from spira_tasks.contract.verdict import Verdict
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Directory, Store
    from spira_tasks.governance.applied import Decision
    from spira_tasks.tracking import Registered, Tracker
    from spira_tasks.work import PlatformWork

# it moves the champion
SPEC = StageSpec(
    outside=True,
    decisions=("erasures", "approvals", "refusals", "rollbacks", "waivers"),
    audit="promotion",
)


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet with the column ``split``
    registration: Directory  # registration.json
    report: Directory  # evaluation.json, predictions.parquet
    erasures: Directory  # people whom no model that is promoted may have learned from
    approvals: Directory
    refusals: Directory
    rollbacks: Directory
    waivers: Directory


@dataclass(frozen=True)
class Outputs:
    decision: Path  # decision.json: outcome, why, and every verdict


class Config(StageConfig):
    """No run may set anything: the rules are the policy, ``expectations/policy.yaml``."""


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from expectations import plan, policy
    from expectations.gates import decision, model, provenance
    from expectations.gates.plan import within_plan
    from spira_tasks.governance import applied, evidence, gates, moves
    from spira_tasks.tracking import CHAMPION, GONE, Tracker

    tracker = Tracker(work.store.tracking_uri)
    after = moves.settle(work.store, tracker)  # before anything is compared with what serves
    registration = json.loads(inputs.registration.path("registration.json").read_text())
    challenger = tracker.find_version(registration["classifier"])
    if challenger is None:  # the step before registered it
        raise ConfigError(f"MLflow no longer has version {registration['version']}; {GONE}")
    rules = policy.read().rules
    evaluation = json.loads(inputs.report.path("evaluation.json").read_text())
    verdicts = [
        *model.verdicts(evaluation, rules),
        provenance.nobody_erased(n_erased(challenger, inputs)),
    ]
    champion = tracker.champion()
    if verdicts[-1].status == "pass":  # an erasure takes away the table that these are read from
        verdicts += evidence.verdicts(
            challenger, evaluation, inputs.recordings, inputs.report, work
        )
        verdicts.append(written(inputs))
    made = gates.made_by(work.store)
    of_champion = champion.is_synthetic if champion else None
    verdicts.append(provenance.replaces_its_kind(challenger.is_synthetic, of_champion))
    verdicts.append(provenance.behind_its_gates(gates.missed_by(made, challenger.classifier)))
    seen = gates.label_in_noise(made, challenger.classifier)
    outside = plan.read().plan.outside(gates.settings_of(made, challenger.classifier))
    verdicts += [provenance.label_blind_augmentation(*seen), within_plan(outside)]
    refusal = applied.on_classifier(challenger.classifier, applied.read(inputs.refusals))
    if refusal:
        verdicts.append(refused(challenger, refusal))

    waivers = applied.read(inputs.waivers)
    verdicts = [waived(one, waivers, rules.firm) for one in verdicts]

    asked = [*gates.left_open_behind(made, challenger.classifier), *verdicts]
    if any(verdict.stops for verdict in verdicts):
        outcome = "blocked"
    elif CHAMPION in challenger.aliases:
        outcome = "promoted"
    else:
        rollback = applied.on_classifier(challenger.classifier, applied.read(inputs.rollbacks))
        last = [
            rolled_back(challenger, rollback)
            if rollback
            else beats_champion(challenger, champion, tracker, inputs, work)
        ]
        asked += last
        if decision.needs_approval(asked, rules):
            approvals = applied.read(inputs.approvals)
            last.append(approved(challenger, approvals, asked, inputs.report.digest, work.store))
        verdicts += last
        outcome = "kept" if any(one.status == "warn" for one in last) else "promoted"

    changed = carry_out(outcome, challenger, verdicts, work.store, after)
    content = {
        "outcome": outcome,
        "policy": {"version": rules.version, "digest": policy.read().digest},
        "owner_of_thresholds": policy.OWNER,
        "verdicts": [verdict.to_dict() for verdict in verdicts],
        "waivers": [
            {"suite": one.suite or applied.PROMOTION, "id": one.id, **asdict(one.waiver)}
            for one in asked
            if one.waiver
        ],
    }
    (outputs.decision / "decision.json").write_text(json.dumps(content, indent=1, sort_keys=True))
    return Outcome(
        {"promoted": outcome == "promoted", "kept": outcome == "kept"}, tuple(verdicts), changed
    )


def written(inputs: Inputs) -> Verdict:
    """Whether people wrote what only they can say, unless all people are invented."""
    import pandas as pd

    from expectations.gates.documents import documents_written
    from spira_tasks.reports import documents

    recordings = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    synthetic = "x_synthetic" in recordings and bool(recordings["x_synthetic"].eq("true").all())
    return documents_written(documents.missing(), synthetic)


def carry_out(
    outcome: str, challenger: Registered, verdicts: Sequence[Verdict], store: Store, after: int
) -> bool:
    """Tag the version with its outcome, and let it serve where it is promoted; say what changed.

    Raises ConfigError where its files are not as they were registered.
    """
    from spira_tasks import package
    from spira_tasks.governance import moves
    from spira_tasks.tracking import CHAMPION, Tracker

    tracker = Tracker(store.tracking_uri)
    if outcome == "promoted":
        package.check(challenger, tracker, store)
    blocking = ", ".join(verdict.id for verdict in verdicts if verdict.stops)
    tags = {"spira.outcome": outcome, "spira.blocked_by": blocking}
    if challenger.was_champion or outcome == "promoted":
        tags["spira.was_champion"] = "true"  # whatever becomes of it
    changed = any(challenger.tags.get(name, "") != value for name, value in tags.items())
    if outcome == "promoted" and CHAMPION not in challenger.aliases:
        replaced = tracker.replaced_by(challenger.version)
        moves.move(store, tracker, "promotion", challenger.version, replaced, after=after)
        changed = True
    if changed:  # afterwards: one that another act was faster than did not come into use
        tracker.tag(challenger.version, tags)
    return changed


def refused(challenger: Registered, refusal: Decision) -> Verdict:
    """A person refused the version; ``model approve`` lifts it."""
    from spira_tasks.governance.applied import REFUSED

    names = {"version": (challenger.version,)} | by_whom(refusal)
    return Verdict(REFUSED, "block", names=names, severity="critical")


def rolled_back(challenger: Registered, rollback: Decision) -> Verdict:
    """A person took the version out of use; only a rollback to it brings it back."""
    from spira_tasks.governance.applied import ROLLED_BACK

    names = {"version": (challenger.version,), "to": (rollback.about["to"],)} | by_whom(rollback)
    return Verdict(ROLLED_BACK, "warn", names=names)


def waived(verdict: Verdict, waivers: Iterable[Decision], firm: Collection[str]) -> Verdict:
    """The verdict as a person waived it, who may waive what the policy does not call firm."""
    from spira_tasks.governance import applied

    named = replace(verdict, suite=applied.PROMOTION, firm=verdict.id in firm)
    return replace(applied.waive(named, waivers), suite=verdict.suite)


def approved(
    challenger: Registered,
    given: Iterable[Decision],
    asked: Sequence[Verdict],
    report: str,
    store: Store,
) -> Verdict:
    """Whether a person approved the version with what is open now, where the policy wants that.

    ``asked`` holds the verdicts for which it does, among others.  An approval that was ``given``
    before another check was open, or was waived, or of another ``report`` (by its digest), or of
    other evidence of experiments, does not count.
    """
    from expectations import policy
    from expectations.gates.decision import asked_of, excluded, left_open, name_of
    from spira_tasks.governance import applied
    from spira_tasks.governance import approval as approvals

    opened = left_open(asked)
    # digests of what is stored: the last digits of a number may differ where it is computed again
    evidence = [digest for one in asked for digest in one.names.get("evidence", ())]
    digests = policy.read().digest, challenger.classifier, report, *evidence
    names = {
        "version": (challenger.version,),
        "classifier": (challenger.classifier,),
        "waived": tuple(one.id for one in opened if one.waiver),
        "insufficient": tuple(one.id for one in opened if not one.waiver),
        "asked": (asked_of(opened, *digests),),
    }
    involved = approvals.started_by(store, challenger.classifier)
    involved |= {one.waiver.by for one in opened if one.waiver}
    production = applied.in_production(store.url)
    names |= {"excluded": excluded(involved, policy.read().rules, production=production)}
    mine = [one for one in given if one.about["classifier"] == challenger.classifier]
    approval = next((one for one in mine if (one.about.get("asked"),) == names["asked"]), None)
    if approval is None:
        names |= {"outdated": tuple(one.by for one in mine)}
        return Verdict("approved_by_a_person", "warn", names=names)
    if name_of(approval.by) in names["excluded"]:
        return Verdict("approved_by_a_person", "warn", names=names | {"own": (approval.by,)})
    return Verdict("approved_by_a_person", "pass", names=names | by_whom(approval))


def by_whom(decision: Decision) -> dict[str, tuple[str, ...]]:
    return {"by": (decision.by,), "at": (decision.at[:10],), "why": (decision.why,)}


def n_erased(challenger: Registered, inputs: Inputs) -> int:
    """How many of the people that the challenger was made from have been erased since.

    An erasure marks the versions that are there, and takes their table away; where there is no mark
    the table is asked, for the version may have been registered meanwhile.
    """
    import pandas as pd

    from spira_tasks.governance import applied
    from spira_tasks.intake.pseudonyms import tombstone_tag

    if challenger.contains_erased:
        return int(challenger.tags["spira.n_erased"])
    tombstones = {one.about["tag"] for one in applied.read(inputs.erasures)}
    subjects = pd.read_parquet(inputs.recordings.path("recordings.parquet"))["subject_id"].unique()
    return sum(tombstone_tag(subject) in tombstones for subject in subjects)


def beats_champion(
    challenger: Registered,
    champion: Registered | None,
    tracker: Tracker,
    inputs: Inputs,
    work: PlatformWork,
) -> Verdict:
    """Compare with the champion on the test subjects of today, one pair of scores a person.

    And with the first version that served, where it is neither of them.
    """
    import pandas as pd

    from expectations import policy
    from expectations.gates.champion import compare
    from spira_tasks.evaluation import comparison, slices
    from spira_tasks.governance import approval, evidence
    from spira_tasks.governance.applied import REFUSED

    # one that a person stopped and approved after all was not replaced: it may compete again
    stopped = REFUSED in challenger.tags.get("spira.blocked_by", "")
    if challenger.was_champion and not stopped:
        return Verdict(
            "better_than_champion", "warn", names={"was_champion": (challenger.version,)}
        )
    if champion is None:
        return Verdict("better_than_champion", "pass")
    recordings = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    predictions = pd.read_parquet(inputs.report.path("predictions.parquet"))
    evaluation = json.loads(inputs.report.path("evaluation.json").read_text())
    mine = predictions[predictions["split"] == "test"].rename(columns={"clean": "challenger"})
    test = recordings[recordings["record_id"].isin(mine["record_id"])]
    groups = slices.categories(test, recordings).groupby(test["subject_id"]).first()
    own = mine.groupby("subject_id")[["label", "challenger"]].mean()
    own = own.assign(challenger_point=evaluation["operating_point"])
    rule = policy.read().rules.better_than_champion

    def against(other: Registered) -> dict[str, Any]:
        pairs = own.join(score(other, tracker, recordings, work), how="inner")
        found = comparison.compare(pairs, groups, rule.n_resamples, rule.seed, rule.min_cell)
        return {"champion": other.version, **found}

    first = approval.first_in_use(work.store, synthetic=challenger.is_synthetic)
    is_third = first is not None and first.version not in (champion.version, challenger.version)
    n_since = evidence.n_measured_since(
        work.store, champion.classifier, challenger.classifier, inputs.recordings.digest
    )
    of_first = against(first) if first is not None and is_third else None
    return compare(against(champion), rule, of_first, n_since)


def score(
    champion: Registered, tracker: Tracker, recordings: pd.DataFrame, work: PlatformWork
) -> pd.DataFrame:
    """What a version that serves or served says of every test subject, as serving asks it."""
    import pandas as pd

    from spira_tasks import package, scratch

    task = champion.tags["spira.task"]
    test = recordings[(recordings["split"] == "test") & (recordings["task"] == task)]
    if test.empty:
        return pd.DataFrame(columns=["champion", "champion_point"], dtype=float)
    with scratch.folder() as folder:
        model = package.load(champion, tracker, work.store, folder)
        rows = [package.score(model, work.blobs.read(digest)) for digest in test["waveform"]]
    scored = pd.concat(rows, ignore_index=True).assign(subject_id=test["subject_id"].to_numpy())
    # it answers no recording that a person released although it is useless
    scored = scored.rename(
        columns={"probability": "champion", "operating_point": "champion_point"}
    ).dropna(subset=["champion"])
    return scored.groupby("subject_id")[["champion", "champion_point"]].mean()
