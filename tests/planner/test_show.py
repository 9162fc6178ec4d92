"""What a plan shows is what is in it: pages, quanta by name, graphs that other programs read, Parquet; or damage."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import networkx as nx
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.batch import Cluster, Clustering
from loadmaster_planner import diagram, export, show, tables
from loadmaster_planner.plan import Plan, PlannedDataset
from loadmaster_planner.planner import make_plan
from loadmaster_registry.errors import PlanError
from night import REQUEST, make_night, pipeline

NASTY = (
    'Ω "q" <b>&amp;#35;`\\N\\\\;\'\t|]) {x}'  # what DOT, Mermaid, XML, file names must write in another way
)
TOGETHER = Clustering(clusters=(Cluster("both", ("isr", "stack"), ("detector",)),))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(tmp_path_factory.mktemp("nasty"), instrument=NASTY)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(tmp_path_factory.mktemp("clustered"), clustering=TOGETHER)


def planned(folder: Path, instrument: str = "I", clustering: Clustering | None = None) -> Plan:
    """Plan three exposures of two detectors, write the plan, and open it."""
    request = type(REQUEST)(REQUEST.inputs, "u/me/out", where=REQUEST.where, bind={"i": instrument})
    with make_night(folder / "registry", instrument=instrument) as registry:
        make_plan(registry, pipeline(), request, clustering).write(folder / "plan")
    return Plan.open(folder / "plan")


def quanta(plan: Plan, label: str) -> list[tuple[object, ...]]:
    """Return what a page of quanta should be, from the jobs one by one."""
    found = [(job.index, q) for job in plan.jobs() for q in job.quanta if q.task == label]
    found.sort(key=lambda pair: list(pair[1].data_id.values()))
    return [(job, str(q.id), *q.data_id.values()) for job, q in found]


def datasets(plan: Plan) -> dict[str, PlannedDataset]:
    """Return all datasets by id, from the jobs one by one."""
    sides = (side for job in plan.jobs() for q in job.quanta for side in (q.inputs, q.outputs))
    return {str(d.id): d for side in sides for files in side.values() for d in files}


def edges(plan: Plan) -> set[tuple[str, str]]:
    found = set()
    for job in plan.jobs():
        for q in job.quanta:
            found |= {(str(d.id), str(q.id)) for files in q.inputs.values() for d in files}
            found |= {(str(q.id), str(d.id)) for files in q.outputs.values() for d in files}
    return found


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 9), length=st.integers(0, 9))
def test_a_page_holds_the_quanta_of_its_rows(plan: Plan, start: int, length: int) -> None:
    assert show.quanta_page(plan, "isr", start, start + length).rows() == quanta(plan, "isr")[start:][:length]


@pytest.mark.parametrize("kind", ["plan", "nasty", "clustered"])
def test_pages_say_what_jobs_say(kind: str, request: pytest.FixtureRequest) -> None:
    plan = request.getfixturevalue(kind)
    for task in plan.header.tasks:
        assert show.quanta_page(plan, task.label).rows() == quanta(plan, task.label)
    known = datasets(plan)
    for t in plan.header.types:
        for row in show.datasets_page(plan, t.name).iter_rows(named=True):
            one = known.pop(row["id"])
            assert {d: row[d] for d in one.data_id} == one.data_id
            assert (row["exists"], row["run"], row["path"] or "", row["url"] or "") == (
                one.exists,
                one.run,
                one.path,
                one.url,
            )
            assert (row["size_bytes"], row["checksum"] or "") == (
                one.size_bytes if one.exists else None,
                one.checksum,
            )
    assert not known


@pytest.mark.parametrize("kind", ["plan", "nasty", "clustered"])
def test_every_quantum_is_found_by_its_data_id_and_by_its_uuid(
    kind: str, request: pytest.FixtureRequest
) -> None:
    plan = request.getfixturevalue(kind)
    for job in plan.jobs():
        for q in job.quanta:
            words = " ".join(f"{d}={value}" for d, value in q.data_id.items() if d != "instrument")
            for text in (f"{q.task} {words}", str(q.id)):
                place = show.find_quantum(plan, text)
                assert plan.quantum(place.task, place.row) == q
                assert show.job_of(plan, place) == job.index
                assert place in show.places_of(plan, job.index)


def test_a_value_with_spaces_is_quoted(nasty: Plan) -> None:
    quoted = "'" + NASTY.replace("'", "'\"'\"'") + "'"
    assert show.find_quantum(nasty, f"stack detector=1 instrument={quoted}") == show.Place("stack", 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("irs exposure=1", "did you mean 'isr'"),
        ("isr exposre=1", "did you mean 'exposure'"),
        ("isr exposure=one", "exposure is a whole number"),
        ("isr exposure", "is not DIMENSION=VALUE"),
        ("isr exposure=1", "instrument=I detector=0 exposure=1; instrument=I detector=1 exposure=1"),
        ("isr exposure=9", "no quantum of isr has exposure=9"),
        ("isr exposure=1 detector=7", "no quantum of isr has detector=7 beside exposure=1"),
        ("isr exposure='1", "no closing quotation"),
        ("", "nothing is named"),
        ("3f0c8a56-0000-4000-8000-000000000000", "no quantum of the plan has this id"),
        ("99", "there is no job 99"),
    ],
)
def test_a_name_that_fits_no_single_quantum_is_refused_with_words(plan: Plan, text: str, reason: str) -> None:
    with pytest.raises(PlanError, match=re.compile(re.escape(reason), re.IGNORECASE)):
        show.find_quantum(plan, text)


def test_a_job_with_several_quanta_is_no_name_of_one(clustered: Plan) -> None:
    with pytest.raises(PlanError, match="job 0 has 4 quanta"):
        show.find_quantum(clustered, "0")
    facts = show.job_facts(clustered, 0)
    assert [q["task"] for q in facts["quanta"]] == ["isr"] * 3 + ["stack"]
    assert (facts["cluster"], facts["name"]) == ("both", "both_0")


def test_facts_are_json_and_say_what_jobs_say(plan: Plan) -> None:
    whole = json.loads(json.dumps(show.plan_facts(plan)))
    assert (whole["n_quanta"], whole["n_jobs"], whole["digest"]) == (8, 8, plan.digest)
    assert {t["name"]: (t["existing"], t["to_be_made"]) for t in whole["dataset_types"]} == {
        "bias": (2, 0),
        "raw": (6, 0),
        "post_isr": (0, 6),
        "stack": (0, 2),
    }
    (quantum,) = json.loads(json.dumps(show.job_facts(plan, 0)))["quanta"]
    (raw,) = quantum["inputs"]["raw"]
    assert (raw["size_bytes"], raw["checksum"], raw["url"]) == (10, "sha256:10", f"raw/{raw['id']}")
    (made,) = quantum["outputs"]["out"]
    assert made["path"].startswith("u/me/out/post_isr/")
    assert made["size_bytes"] is None


def drawn(plan: Plan) -> diagram.Diagram:
    return diagram.quantum_diagram(plan, diagram.all_quanta(plan))


@pytest.mark.parametrize("kind", ["plan", "nasty", "clustered"])
def test_graphml_is_read_by_networkx_as_the_graph_that_jobs_are(
    kind: str, request: pytest.FixtureRequest
) -> None:
    plan = request.getfixturevalue(kind)
    graph = nx.parse_graphml(diagram.as_graphml(drawn(plan)))
    ids = nx.get_node_attributes(graph, "id")
    assert {(ids[a], ids[b]) for a, b in graph.edges()} == edges(plan)
    known = datasets(plan)
    for facts in graph.nodes.values():
        if facts["kind"] == "dataset":
            assert facts["name"] == known[facts["id"]].dataset_type
            assert {d: facts[d] for d in known[facts["id"]].data_id} == known[facts["id"]].data_id


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.text(alphabet=st.sampled_from([*NASTY, "\n", "\x00", "\x0b", "\ud800", "a"])),
        min_size=1,
        max_size=3,
    )
)
def test_any_text_survives_every_language(lines: list[str]) -> None:
    one = diagram.Diagram([diagram.Node("n", False, tuple(lines), {"fact": lines[0]})], [], has_counts=False)
    plain = [re.sub(r"[\x00-\x1f]", " ", line) for line in lines]
    (dot,) = re.findall(r'label=("(?:[^"\\]|\\.)*")\];$', diagram.as_dot(one), re.MULTILINE)
    assert re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], dot[1:-1]).split("\n") == plain
    (mermaid,) = re.findall(r'^    n\["([^"]*)"\]$', diagram.as_mermaid(one), re.MULTILINE)
    assert [re.sub(r"#(\d+);", lambda m: chr(int(m[1])), line) for line in mermaid.split("<br/>")] == plain
    xml = nx.parse_graphml(diagram.as_graphml(one)).nodes["n"]["fact"]
    assert xml == re.sub("[\x00\x0b\ud800]", "\N{REPLACEMENT CHARACTER}", lines[0])


def test_the_graph_of_tasks_has_counts_whatever_the_size(plan: Plan) -> None:
    found = diagram.task_diagram(plan)
    assert {node.lines for node in found.nodes} == {
        ("isr", "6 quanta"),
        ("stack", "2 quanta"),
        ("raw", "6 existing"),
        ("bias", "2 existing"),
        ("post_isr", "6 to be made"),
        ("stack", "2 to be made"),
    }
    assert sorted(link.count for link in found.links) == [2, 6, 6, 6, 6]
    assert diagram.as_mermaid(found).count("-->|6|") == 4


def test_mermaid_of_many_links_is_of_tasks_only(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagram, "MERMAID_EDGES", 3)
    assert diagram.as_mermaid(diagram.task_diagram(plan)).splitlines()[1:] == [
        '    t0["isr<br/>6 quanta"]',
        '    t1["stack<br/>2 quanta"]',
        "    t0 -->|6| t1",
    ]
    with pytest.raises(PlanError, match="Mermaid draws up to 3"):
        diagram.as_mermaid(drawn(plan))


def test_a_graph_of_too_many_quanta_is_refused_unless_it_is_filtered(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagram, "NODES_AT_MOST", 7)
    with pytest.raises(PlanError, match="8 quanta and datasets is too large"):
        drawn(plan)
    with pytest.raises(PlanError, match="20 quanta and datasets is too large"):
        diagram.quantum_diagram(plan, diagram.all_quanta(plan, ["isr"]))
    few = diagram.quantum_diagram(plan, diagram.some_quanta([show.find_quantum(plan, "stack detector=1")]))
    assert [node.lines[0] for node in few.nodes] == ["stack", "post_isr", "post_isr", "post_isr", "stack"]


@pytest.mark.parametrize("kind", ["plan", "nasty", "clustered"])
def test_parquet_holds_the_whole_plan(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_ROWS", 4)
    plan = request.getfixturevalue(kind)
    export.write_parquet(plan, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for task in plan.header.tasks:
        assert pl.read_parquet(tmp_path / "out" / "quanta" / task.label).rows() == quanta(plan, task.label)
    types = [pl.read_parquet(folder)["id"] for folder in (tmp_path / "out" / "datasets").iterdir()]
    assert set(pl.concat(types)) == set(datasets(plan))
    found = pl.concat(pl.read_parquet(folder) for folder in (tmp_path / "out" / "edges").iterdir())
    rows = found.select("quantum", "dataset", "is_output").rows()
    assert {(q, d) if is_output else (d, q) for q, d, is_output in rows} == edges(plan)
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["digest"] == plan.digest


def test_parquet_overwrites_nothing(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(PlanError, match="is there already"):
        export.write_parquet(plan, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[bytes, object]]:
    """Yield the bytes of a plan file of many small chunks, and its content."""
    folder = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CHUNK_ROWS", 2)
        planned(folder)
        yield (folder / "plan").read_bytes(), content(folder / "plan")


def content(path: Path) -> object:
    """Return all that a plan file says."""
    plan = Plan.open(path)
    show.verify(plan)
    return plan.header, {name: plan.rows(name, 0, n).rows() for name, n in plan.table_sizes()}


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_says_the_very_same(
    written: tuple[bytes, object], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole, said = written
    path = tmp_path_factory.getbasetemp() / "damaged"
    place = st.integers(0, len(whole) - 1)
    match data.draw(st.sampled_from(["cut", "bit", "zeros", "noise", "gap"])):
        case "cut":
            broken = whole[: data.draw(place)]
        case "bit":
            broken = bytearray(whole)
            broken[data.draw(place)] ^= 1 << data.draw(st.integers(0, 7))
        case kind:
            start, length = data.draw(place), data.draw(st.integers(1, 600))
            stop = min(start + length, len(whole))
            noise = Random(data.draw(st.integers(0, 99))).randbytes(stop - start)
            middle = {"zeros": bytes(stop - start), "noise": noise, "gap": b""}[kind]
            broken = whole[:start] + middle + whole[stop:]
    path.write_bytes(broken)
    try:
        found = content(path)
    except PlanError:
        return
    assert found == said


def test_every_flipped_byte_of_the_directory_is_noticed_or_harmless(
    written: tuple[bytes, object], tmp_path: Path
) -> None:
    """The end of the file, where all the rest is found by: byte for byte, not by chance."""
    whole, said = written
    tail = np.arange(len(whole) - 400, len(whole))
    for place in tail.tolist():
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        (tmp_path / "plan").write_bytes(broken)
        try:
            found = content(tmp_path / "plan")
        except PlanError:
            continue
        assert found == said, place


def test_one_job_is_read_from_a_few_chunks_of_however_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    read: list[str] = []
    original = tables.FileTables._read_chunk

    def counted(self: tables.FileTables, name: str, k: int) -> pl.DataFrame:
        read.append(f"{name}/{k}")
        return original(self, name, k)

    monkeypatch.setattr(tables.FileTables, "_read_chunk", counted)
    with make_night(tmp_path / "registry", exposures=60) as registry:
        make_plan(registry, pipeline(), REQUEST).write(tmp_path / "plan")
    plan = Plan.open(tmp_path / "plan")
    show.plan_facts(plan)
    assert not read
    show.job_facts(plan, 77)
    assert {name for name in read if not name.startswith("axes/")} <= {
        f"{table}/{k}"
        for table in ("quanta/isr", "edges/isr/raw", "edges/isr/bias", "edges/isr/out", "datasets/raw")
        for k in range(38, 41)
    } | {f"datasets/post_isr/{k}" for k in range(38, 41)} | {"datasets/bias/0", "edges/isr/bias/38"}
