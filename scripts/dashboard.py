"""Print the dashboard of the services for Grafana, as docker/monitoring/dashboard.json holds it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

REQUESTS = "spira_http_request_seconds"
# Row to its panels: title, unit, and queries with what names their lines.
PANELS: dict[str, list[tuple[str, str, list[tuple[str, str]]]]] = {
    "Answers": [
        (
            "Answers by decision",
            "cps",
            [("sum by (decision) (rate(spira_predictions_total[5m]))", "{{decision}}")],
        ),
        (
            "Share of positives by version",
            "percentunit",
            [
                (
                    'sum by (version) (rate(spira_predictions_total{decision="positive"}[1h])) / '
                    "sum by (version) (rate(spira_predictions_total[1h]))",
                    "version {{version}}",
                )
            ],
        ),
        (
            "From stored to answered",
            "s",
            [
                (
                    f"histogram_quantile({q}, sum by (le) (rate(spira_answer_seconds_bucket[5m])))",
                    name,
                )
                for q, name in ((0.5, "median"), (0.99, "99th percentile"))
            ],
        ),
        (
            "Time of a model, 95th percentile",
            "s",
            [
                (
                    "histogram_quantile(0.95, "
                    "sum by (le, version) (rate(spira_compute_seconds_bucket[5m])))",
                    "version {{version}}",
                )
            ],
        ),
        (
            "Since a version last answered",
            "s",
            [("time() - spira_prediction_last_timestamp_seconds", "version {{version}}, {{arm}}")],
        ),
        (
            "Ready in workers",
            "short",
            [("sum by (version, use) (spira_model_ready)", "{{version}}, {{use}}")],
        ),
        ("What people did", "cps", [("rate(spira_actions_total[1h])", "{{action}}")]),
    ],
    "Queue": [
        (
            "Messages",
            "short",
            [("spira_queue_messages", "{{state}}"), ("spira_outbox_unsent", "not yet sent")],
        ),
        (
            "The oldest",
            "s",
            [
                ("spira_queue_oldest_seconds", "on the queue"),
                ("spira_outbox_oldest_seconds", "not yet sent"),
            ],
        ),
        ("Without an answer", "short", [("spira_inferences_failed", "{{reason}}")]),
        (
            "Tried beside the champion",
            "percentunit",
            [("spira_route_share", "{{mode}} {{version}}")],
        ),
    ],
    "Requests": [
        ("By status", "reqps", [(f"sum by (status) (rate({REQUESTS}_count[5m]))", "{{status}}")]),
        (
            "By route, 95th percentile",
            "s",
            [
                (
                    f"histogram_quantile(0.95, sum by (le, route) (rate({REQUESTS}_bucket[5m])))",
                    "{{route}}",
                )
            ],
        ),
        ("Refusals", "cps", [("sum by (error) (rate(spira_refusals_total[5m]))", "{{error}}")]),
        ("Memory", "bytes", [("process_resident_memory_bytes", "{{job}}")]),
    ],
}


def dashboard() -> str:
    """The dashboard as JSON; its data source is named at the import."""
    source = DataSourceRef(type_val="prometheus", uid="${source}")
    made = (
        Dashboard("SPIRA services")
        .uid("spira-services")
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .with_variable(DatasourceVariable("source").type("prometheus").label("Prometheus"))
    )
    for row, panels in PANELS.items():
        made = made.with_row(Row(row))
        for title, unit, queries in panels:
            panel = timeseries.Panel().title(title).unit(unit).datasource(source).min(0).span(8)
            for name, (expression, legend) in zip("ABC", queries, strict=False):
                query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(name)
                panel = panel.with_target(query)
            made = made.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


if __name__ == "__main__":
    print(dashboard(), end="")
