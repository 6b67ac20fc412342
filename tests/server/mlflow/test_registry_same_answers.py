"""Registered models, versions, aliases, tags and stages: the same answers as MLflow's own registry."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.server.mlflow.pair import Both, Pair


@pytest.fixture
def pair(client: MlflowClient, stock: MlflowClient) -> Pair:
    return Pair(client, stock)


def versions_of(pair: Pair, name: str, count: int) -> Both:
    """A model with versions on both sides; answers the run that made them."""
    pair("create_registered_model", name)
    run_id = pair("create_run", "0", run_name=name).info.run_id
    for number in range(count):
        source = Both(*(f"s3://bucket/{number}" for _ in range(2)))
        pair("create_model_version", name, source, run_id)
    return run_id


def test_models(pair: Pair) -> None:
    pair("create_registered_model", "boats", {"team": "blue"}, "what floats")
    pair("create_registered_model", "boats")
    pair("create_registered_model", "bad/name")
    pair("create_registered_model", "")
    pair("get_registered_model", "boats")
    pair("get_registered_model", "missing")
    pair("update_registered_model", "boats", "what still floats")
    pair("update_registered_model", "missing", "x")
    pair("set_registered_model_tag", "boats", "owner", "ann")
    pair("set_registered_model_tag", "missing", "owner", "ann")
    pair("delete_registered_model_tag", "boats", "team")
    pair("delete_registered_model_tag", "boats", "team")
    pair("rename_registered_model", "boats", "ships")
    pair("get_registered_model", "boats")
    pair("get_registered_model", "ships")
    pair("rename_registered_model", "ships", "")
    pair("delete_registered_model", "ships")
    pair("delete_registered_model", "ships")


def test_versions_aliases_and_stages(pair: Pair) -> None:
    versions_of(pair, "fleet", 3)
    pair("get_model_version", "fleet", "2")
    pair("get_model_version", "fleet", "9")
    pair("get_model_version", "fleet", "no")
    pair("get_model_version", "missing", "1")
    pair("update_model_version", "fleet", "2", "the second")
    pair("set_model_version_tag", "fleet", "2", "color", "red")
    pair("set_model_version_tag", "fleet", "9", "color", "red")
    pair("delete_model_version_tag", "fleet", "2", "color")
    pair("delete_model_version_tag", "fleet", "2", "color")
    pair("set_registered_model_alias", "fleet", "champion", "2")
    pair("set_registered_model_alias", "fleet", "champion", "3")
    pair("set_registered_model_alias", "fleet", "latest", "3")
    pair("set_registered_model_alias", "fleet", "v3", "3")
    pair("set_registered_model_alias", "fleet", "no good", "3")
    pair("set_registered_model_alias", "fleet", "champion", "9")
    pair("get_model_version_by_alias", "fleet", "champion")
    pair("get_model_version_by_alias", "fleet", "latest")
    pair("get_model_version_by_alias", "fleet", "nobody")
    pair("get_model_version_by_alias", "missing", "nobody")
    pair("get_registered_model", "fleet")
    pair("delete_registered_model_alias", "fleet", "champion")
    pair("delete_registered_model_alias", "fleet", "champion")
    pair("transition_model_version_stage", "fleet", "1", "production")
    pair("transition_model_version_stage", "fleet", "2", "Production", archive_existing_versions=True)
    pair("transition_model_version_stage", "fleet", "2", "Nowhere")
    pair("get_latest_versions", "fleet")
    pair("get_latest_versions", "fleet", ["Production"])
    pair("set_registered_model_alias", "fleet", "old", "1")
    pair("delete_model_version", "fleet", "1")
    pair("delete_model_version", "fleet", "1")
    pair("get_registered_model", "fleet")
    pair("get_model_version_download_uri", "fleet", "2")


@pytest.mark.parametrize(
    "filter",
    [
        "name = 'Search-a'",
        "name LIKE 'Search-%'",
        "name ILIKE 'search-%'",
        "name != 'Search-a' and name LIKE 'Search-%'",
        "tags.team = 'blue' and name LIKE 'Search-%'",
        "nothing = 'x'",
        "name =",
    ],
)
def test_search_of_models(pair: Pair, filter: str) -> None:
    for name in ("Search-a", "Search-b"):
        pair.run(partial(_ensured, name))
    order = ["name DESC"]
    pair("search_registered_models", filter_string=filter, order_by=order, max_results=1)


@pytest.mark.parametrize(
    "filter",
    [
        "name = 'Many'",
        "version_number > 1 and name = 'Many'",
        "tags.a = 'b'",
        "nothing = 'x'",
        "name IN ('Many')",
    ],
)
def test_search_of_versions(pair: Pair, filter: str) -> None:
    if pair.made(lambda client, _: client.search_model_versions("name = 'Many'")).ours == []:
        versions_of(pair, "Many", 3)
        pair("set_model_version_tag", "Many", "2", "a", "b")
    pair("search_model_versions", filter, order_by=["version_number ASC"], max_results=2)


def _ensured(name: str, client: MlflowClient, _: int) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, {"team": "blue" if name.endswith("a") else "red"})


def versions_in_order(client: MlflowClient, *given: Any) -> tuple[list[tuple[str, str]], bool]:
    page = client.search_model_versions(*given)
    return [(each.name, str(each.version)) for each in page], bool(page.token)


def models_in_order(client: MlflowClient, *given: Any) -> tuple[list[str], bool]:
    page = client.search_registered_models(*given)
    return [each.name for each in page], bool(page.token)


@pytest.mark.parametrize(
    "order",
    [
        [], ["name"], ["name ASC"], ["name DESC"], ["version_number DESC"], ["version_number"],
        ["creation_timestamp ASC"], ["creation_timestamp DESC", "name DESC"],
        ["name", "version_number"], ["run_id"], ["nothing"], ["tags.a"], ["name UP"], [""],
    ],
)  # fmt: skip
def test_versions_in_order_and_in_pages(pair: Pair, order: list[str]) -> None:
    if pair.made(lambda client, _: client.search_model_versions("name = 'order-a'")).ours == []:
        for name in ("order-b", "order-a"):
            versions_of(pair, name, 3)
    filter = "name IN ('order-a', 'order-b')"
    if order == ["nothing"]:
        filter = ""
    pair.run(lambda client, _: versions_in_order(client, "name LIKE 'order-%'", 100, order), str(order))
    pair.run(lambda client, _: versions_in_order(client, "name LIKE 'order-%'", 4, order), str(order))
    pair.run(lambda client, _: versions_in_order(client, filter, 4, order), str(order))


def test_pages_of_versions_follow_one_another(pair: Pair) -> None:
    versions_of(pair, "paged", 5)

    def walked(client: MlflowClient, _: int) -> list[str]:
        found: list[str] = []
        token = None
        while True:
            page = client.search_model_versions("name = 'paged'", 2, ["version_number ASC"], token)
            found += [str(each.version) for each in page]
            token = page.token
            if not token:
                return found

    assert pair.run(walked).ours == ["1", "2", "3", "4", "5"]
    pair.run(lambda client, _: versions_in_order(client, "", 2, [], "nonsense"))


@pytest.mark.parametrize("size", [0, -1, 1, 200_000, 200_001])
def test_sizes_of_pages_of_versions(pair: Pair, size: int) -> None:
    pair.run(lambda client, _: versions_in_order(client, "name = 'none'", size))


@pytest.mark.parametrize("size", [1, 1000, 1001])
def test_sizes_of_pages_of_models(pair: Pair, size: int) -> None:
    pair.run(lambda client, _: models_in_order(client, "name = 'none'", size))


@pytest.mark.parametrize(
    "order",
    [
        [], ["name DESC"], ["creation_timestamp DESC"], ["last_updated_timestamp"], ["timestamp DESC"],
        ["last_updated_timestamp DESC"], ["nothing"], ["name DOWN"], ["tags.team"],
    ],
)  # fmt: skip
def test_models_in_order_and_in_pages(pair: Pair, order: list[str]) -> None:
    if pair.made(lambda client, _: client.search_registered_models("name = 'rank-a'")).ours == []:
        for name in ("rank-c", "rank-a", "rank-b", "rank-d"):
            versions_of(pair, name, 1)
        pair("update_registered_model", "rank-a", "looked at last but one")
        pair("transition_model_version_stage", "rank-c", "1", "Staging")
    for size in (100, 2):
        asked = ("name LIKE 'rank-%'", size, order)
        pair.run(lambda client, _, a=asked: models_in_order(client, *a), str(order))  # type: ignore[misc]


@pytest.mark.parametrize(
    "filter",
    [
        "", "name = 'odd-1'", "name != 'odd-1'", "name LIKE '%dd%'", "name ILIKE 'ODD%'", "name LIKE 'odd-_'",
        "run_id = 'none'", "run_id IN ('a', 'b')", "run_id IN ('a')", "run_id IN ()", "run_id IN 'a'",
        "source_path = 's3://bucket/1'", "source_path LIKE 's3://%/1'", "source_path IN ('s3://bucket/1')",
        "version_number = 1", "version_number <= 2", "version_number != 1",
        "version_number = 1.5", "version_number LIKE '1'", "version = 1", "creation_timestamp > 0",
        "tags.stage = 'x'", "tags.stage != 'x'", "tags.stage LIKE 'X'", "tags.stage ILIKE 'X'",
        "tags.`a b` = 'c'", "tags.version = 'x'",
        "tags.stage > 'x'", "tag.stage = 'x'", "attribute.name = 'odd-1'",
        "name = 'odd-1' AND tags.stage = 'x'",
        "name = 'odd-1' OR name = 'odd-2'", "name = \"odd-1\"", "name = odd-1", "name", "= 'x'",
        "tags.stage = 'x' AND tags.stage = 'y'", "current_stage = 'None'", "user_id = 'a'",
    ],
)  # fmt: skip
def test_filters_of_versions(pair: Pair, filter: str) -> None:
    if pair.made(lambda client, _: client.search_model_versions("name = 'odd-1'")).ours == []:
        for name in ("odd-1", "odd-2"):
            versions_of(pair, name, 2)
        pair("set_model_version_tag", "odd-1", "2", "stage", "x")
        pair("set_model_version_tag", "odd-2", "1", "stage", "y")
        pair("set_model_version_tag", "odd-2", "1", "a b", "c")
    order = ["name ASC", "version_number ASC"]
    narrow = filter if filter in {"", "="} else f"{filter} AND name LIKE 'odd%'"
    for asked in {filter, narrow} - {""}:
        pair.run(lambda client, _, f=asked: versions_in_order(client, f, 3, order), asked)  # type: ignore[misc]


@pytest.mark.parametrize(
    "filter",
    [
        "name LIKE 'kin%'", "name ILIKE 'KIN%'", "name = 'kin-a'", "name != 'kin-a'", "name IN ('kin-a')",
        "tags.team = 'b'", "tags.team != 'b'", "tags.team LIKE 'B'", "tags.team ILIKE 'B'", "tag.team = 'b'",
        "tags.`mlflow.prompt.is_prompt` != 'true'", "tags.`mlflow.prompt.is_prompt` = 'true'",
        "name > 'a'", "name = 'kin-a' AND tags.team = 'b'", "name = 'kin-a' OR name = 'b'", "run_id = 'x'",
        "description = 'x'", "name = 5", "name LIKE 5", "attribute.name = 'kin-a'",
    ],
)  # fmt: skip
def test_filters_of_models(pair: Pair, filter: str) -> None:
    if pair.made(lambda client, _: client.search_registered_models("name = 'kin-a'")).ours == []:
        pair("create_registered_model", "kin-a", {"team": "b"})
        pair("create_registered_model", "kin-b", {"team": "c", "x": "1"})
        pair("create_registered_model", "kin-c")
    for asked in (filter, f"{filter} AND name LIKE 'kin%'"):
        pair.run(lambda client, _, f=asked: models_in_order(client, f, 3), asked)  # type: ignore[misc]


def test_tags(pair: Pair) -> None:
    run_id = versions_of(pair, "tagged", 1)
    for key, value in (
        ("k", "v"), ("k", "w"), ("", "v"), ("k", ""), ("a/b.c-d e", "v"), ("k" * 250, "v"), ("k" * 251, "v"),
        ("k", "v" * 5000), ("k", "v" * 100_000), ("k", "v" * 100_001), ("ключ", "значение"), ("../x", "v"),
        ("k", 5), ("k", None), ("a:b", "v"),
    ):  # fmt: skip
        pair("set_registered_model_tag", "tagged", key, value)
        pair("set_model_version_tag", "tagged", "1", key, value)
        pair("set_model_version_tag", "tagged", None, key, value, "None")
        pair("delete_registered_model_tag", "tagged", "none")
    pair("get_registered_model", "tagged")
    pair("get_model_version", "tagged", "1")
    pair("set_model_version_tag", "tagged", None, "by", "stage", stage="None")
    pair("delete_model_version_tag", "tagged", "1", "k")
    pair("delete_model_version_tag", "tagged", None, "by", stage="None")
    pair("delete_model_version_tag", "tagged", "2", "k")
    pair("delete_model_version_tag", "none", "1", "k")
    pair("get_model_version", "tagged", "1")
    source = Both("s3://b/x", "s3://b/x")
    pair("create_model_version", "tagged", source, run_id, {"a": "1", "b": "2"}, None, "told")
    pair("create_model_version", "tagged", source, run_id, {"": "1"})
    pair("get_model_version", "tagged", "2")
    pair("create_registered_model", "tagged too", {"": "x"})
    pair("create_registered_model", "tagged too", {"x": "y"}, "d" * 5000)
    pair("get_registered_model", "tagged too")


def test_descriptions(pair: Pair) -> None:
    versions_of(pair, "told", 1)
    for text in ("one", "", "ünï\n\tcode", "d" * 5000):
        pair("update_registered_model", "told", text)
        pair("update_model_version", "told", "1", text)
        pair("get_registered_model", "told")
        pair("get_model_version", "told", "1")
    pair("update_model_version", "told", "9", "x")
    pair("update_model_version", "none", "1", "x")


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "üñí",
        "a.b-c_d",
        "100%",
        "a&b=c?d#e",
        "a+b",
        "..",
        ".",
        "a/b",
        "a:b",
        " ",
        "",
        "x" * 250,
        "'q'",
    ],
)
def test_names_of_models(pair: Pair, name: str) -> None:
    pair("create_registered_model", name)
    pair("get_registered_model", name)
    pair("create_model_version", name, Both("s3://b/x", "s3://b/x"))
    pair("get_model_version", name, "1")
    pair("set_registered_model_alias", name, "best", "1")
    pair("get_model_version_by_alias", name, "best")
    pair("get_latest_versions", name)
    pair("delete_registered_model", name)


def test_aliases(pair: Pair) -> None:
    versions_of(pair, "named", 2)
    for alias in (
        "a", "A", "a-b_c", "a.b", "a b", "", "x" * 255, "x" * 256, "Latest", "V12", "v", "vx", "é", "1",
        "v1.0",
    ):  # fmt: skip
        pair("set_registered_model_alias", "named", alias, "1")
        pair("get_model_version_by_alias", "named", alias)
    pair("get_registered_model", "named")
    pair("get_model_version", "named", "1")
    pair("set_registered_model_alias", "named", "a", "2")
    pair("set_registered_model_alias", "named", "a", "2")
    pair("set_registered_model_alias", "none", "a", "1")
    pair("get_latest_versions", "named")
    pair("get_latest_versions", "named", ["None"])
    pair("set_registered_model_alias", "named", "a", "x")
    pair("search_model_versions", "name = 'named'", order_by=["version_number ASC"])
    for alias in ("a", "a", "never", "no good", ""):
        pair("delete_registered_model_alias", "named", alias)
    pair("delete_registered_model_alias", "none", "a")
    pair("delete_model_version", "named", "1")
    pair("get_registered_model", "named")
    pair("get_model_version_by_alias", "named", "A")


def test_stages(pair: Pair) -> None:
    versions_of(pair, "staged", 4)
    pair("get_model_version_stages", "staged", "1")
    for version, stage, archive in (
        ("1", "Staging", False), ("2", "staging", True), ("3", "PRODUCTION", False),
        ("4", "Production", True),
        ("4", "Production", True), ("1", "None", False), ("1", "Archived", False),
        ("2", "nowhere", False), ("9", "Staging", False), ("x", "Staging", False),
    ):  # fmt: skip
        pair("transition_model_version_stage", "staged", version, stage, archive)
        pair("get_latest_versions", "staged")
        pair("get_registered_model", "staged")
    pair("transition_model_version_stage", "none", "1", "Staging")
    for stages in (["None"], ["none", "Archived"], [], None, ["nowhere"], ["Production", "Staging"]):
        pair("get_latest_versions", "staged", stages)
    pair("get_latest_versions", "none")


def test_renaming_keeps_versions_aliases_and_tags(pair: Pair) -> None:
    versions_of(pair, "before", 2)
    pair("set_registered_model_alias", "before", "a", "1")
    pair("set_registered_model_tag", "before", "k", "v")
    pair("set_model_version_tag", "before", "2", "k", "v")
    pair("transition_model_version_stage", "before", "1", "Staging")
    pair("rename_registered_model", "before", "after")
    pair("get_registered_model", "after")
    pair("get_model_version", "after", "2")
    pair("get_model_version", "before", "2")
    pair("get_model_version_by_alias", "after", "a")
    pair("get_model_version_by_alias", "before", "a")
    pair("search_model_versions", "name = 'before'")
    pair("search_model_versions", "name = 'after'", order_by=["version_number ASC"])
    pair("rename_registered_model", "none", "x")
    pair("rename_registered_model", "after", "a/b")
    pair("rename_registered_model", "after", "after")
    pair("create_registered_model", "taken")
    pair("rename_registered_model", "after", "taken")


def test_deleting_takes_all_of_a_model(pair: Pair) -> None:
    versions_of(pair, "doomed", 2)
    pair("set_registered_model_alias", "doomed", "a", "1")
    pair("delete_model_version", "doomed", "2")
    pair("get_latest_versions", "doomed")
    pair("set_model_version_tag", "doomed", "2", "k", "v")
    pair("update_model_version", "doomed", "2", "x")
    pair("transition_model_version_stage", "doomed", "2", "Staging")
    pair("set_registered_model_alias", "doomed", "b", "2")
    pair("get_model_version_download_uri", "doomed", "2")
    pair("delete_model_version", "doomed", "x")
    pair("delete_registered_model", "doomed")
    for method in ("get_registered_model", "get_latest_versions", "delete_registered_model"):
        pair(method, "doomed")
    pair("get_model_version", "doomed", "1")
    pair("search_model_versions", "name = 'doomed'")
    pair("search_registered_models", "name = 'doomed'")


def test_copies(pair: Pair) -> None:
    versions_of(pair, "origin", 2)
    pair("set_model_version_tag", "origin", "2", "k", "v")
    pair("update_model_version", "origin", "2", "told")
    pair("set_registered_model_alias", "origin", "best", "2")
    pair("copy_model_version", "models:/origin/2", "copy")
    pair("copy_model_version", "models:/origin@best", "copy")
    pair("copy_model_version", "models:/copy/1", "copy of it")
    pair("copy_model_version", "models:/origin/9", "copy")
    pair("copy_model_version", "models:/none/1", "copy")
    pair("copy_model_version", "models:/origin@never", "copy")
    pair("copy_model_version", "models:/origin/2", "bad/name")
    pair("copy_model_version", "s3://bucket/x", "copy")
    pair("get_registered_model", "copy")
    pair("get_model_version", "copy", "1")
    pair("get_model_version_download_uri", "copy", "1")
