"""Ids that are looked up only if they are of this migration's containers: the platform has the mappings of a site's earlier migrations as well."""

import base64
import json

import pytest

from harness import Declaration

WITHIN = """
[[imports]]
label = "*"
natural_key = "/id"

[[imports.mappings]]
pointer = "/project"
namespace = "jira/classic:project"
within = "JiraProject"
"""

# The twin's migrations have projects from 10000 on, as many as their plan says.
FIRST_PROJECT = 10_000

# Who did not import everything: Forge's platform has no word for it but this.
NOT_ALL = {"connect": "INCOMPLETE", "forge": "FAILED"}


@pytest.fixture(params=["connect", "forge"])
def flavour(request):
    return request.param


@pytest.fixture
def app(make_app, flavour):
    return make_app(Declaration(imports=WITHIN, forge=flavour == "forge"))


def of_projects(label: str, *projects: int) -> dict:
    """A file with a record of each of these projects, whose ids are numbers and texts in turn."""
    records = ({"id": f"r{project}", "project": project if project % 2 else str(project)} for project in projects)
    content = "".join(json.dumps(record) + "\n" for record in records)
    return {"label": label, "content_base64": base64.b64encode(content.encode()).decode()}


def arrived(app, label: str) -> dict[str, str]:
    """The project of each record in the target, as text."""
    records = app.records_by_key().items()
    return {key: str(json.loads(record)["project"]) for (of, key), record in records if of == label}


def test_a_project_that_only_an_earlier_migration_had_is_rejected_although_the_platform_has_its_mapping(app, flavour):
    first = app.migrate(of_projects("first.ndjson", 10_000, 10_001, 10_002), containers=3, manifest=True)
    app.succeeded(first["transfer_id"])
    cloud_ids = arrived(app, "first.ndjson")
    assert len(cloud_ids) == 3 and not set(cloud_ids.values()) & {"10000", "10001", "10002"}

    # The next wave, whose export still names a project of the first one.
    plan = app.migrate(of_projects("second.ndjson", 10_000, 10_001, 10_002), containers=2, manifest=True)
    identifier = plan["transfer_id"]
    assert app.settled(identifier)["state"] == NOT_ALL[flavour], app.story(identifier)
    assert app.closed(identifier).counts == {"read": 3, "applied": 2, "unchanged": 0, "held": 0, "rejected": 1}
    assert arrived(app, "second.ndjson") == {key: cloud_ids[key] for key in ("r10000", "r10001")}
    [exception] = map(json.loads, app.stack.exceptions(app.tenant, identifier))
    assert {name: exception[name] for name in ("label", "record", "key", "outcome", "namespace", "reason")} == {
        "label": "second.ndjson",
        "record": 3,
        "key": "r10002",
        "outcome": "rejected",
        "namespace": "jira/classic:project",
        "reason": 'jira/classic:project is not asked for "10002", the id at "/project": it is the sourceId of no JiraProject of this migration',
    }


def test_containers_of_several_pages_are_read_and_a_platform_that_stumbles_loses_nothing(app, flavour):
    api = {"connect": "rest", "forge": "forge"}[flavour]
    app.twin.fault(target=f"{api}.container_page", kind="status", status=503, next=4, site=app.site)
    # 250 of them are a page.
    last = FIRST_PROJECT + 299
    plan = app.migrate(of_projects("a.ndjson", FIRST_PROJECT, last), containers=300, manifest=True)
    transfer = app.succeeded(plan["transfer_id"])
    assert transfer.counts == {"read": 2, "applied": 2, "unchanged": 0, "held": 0, "rejected": 0}
    assert arrived(app, "a.ndjson").keys() == {f"r{FIRST_PROJECT}", f"r{last}"}
