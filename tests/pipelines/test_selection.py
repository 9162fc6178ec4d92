"""Selections are sets: the laws of sets hold, and names mean one thing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Subset, TaskNode, task_graph_of
from loadmaster_pipelines.selection import labels_of_range, select
from loadmaster_registry.errors import PipelineError


def task(label: str, reads: str = "", writes: str = "", init: str = "") -> TaskNode:
    connections = [Connection(f"r{i}", "input", n, "Config", ("visit",)) for i, n in enumerate(reads.split())]
    connections += [
        Connection(f"w{i}", "output", n, "Config", ("visit",)) for i, n in enumerate(writes.split())
    ]
    connections += [Connection("s", "init_output", init, "Config")] if init else []
    return TaskNode(label, ("visit",), tuple(connections))


#  raw → isr → image → detect → stars → match → matched
#                 image → warp → warped → coadd → deep;  refs → match
TASKS = {
    t.label: t
    for t in [
        task("isr", "raw", "image"),
        task("detect", "image", "stars spares", "schema"),
        task("warp", "image", "warped"),
        task("match", "stars refs schema", "matched"),
        task("coadd", "warped", "coadd"),
        task("lone", "", "image2"),
    ]
}
SUBSETS = {"early": Subset("early", ("isr", "detect")), "late": Subset("late", ("match", "coadd"))}
EVERYTHING = set(TASKS)


def chosen(text: str) -> set[str]:
    return set(select(text, TASKS, SUBSETS))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("isr", "isr"),
        ("early", "isr detect"),
        ("S:late", "match coadd"),
        ("image", "isr"),  # a dataset type is its producer
        ("raw", ""),  # and nothing where there is none
        ("<match", "isr detect"),
        ("<=match", "isr detect match"),
        (">detect", "match"),
        (">=detect", "detect match"),
        ("<D:stars", "isr"),
        ("<=D:stars", "isr detect"),
        ("<raw", ""),
        (">raw", "isr detect warp match coadd"),
        (">image", "detect warp match coadd"),
        (">=image", "isr detect warp match coadd"),
        (">stars", "match"),
        (">spares", ""),
        (">schema", "match"),
        (">early", "detect warp match coadd"),
        ("~isr", "detect warp match coadd lone"),
        ("~early & ~late", "warp lone"),
        ("isr | detect & lone", "isr"),
        ("(isr | detect) & detect", "detect"),
        ("~isr & detect", "detect"),
        ("~(isr | detect)", "warp match coadd lone"),
        ("early&~<=detect|late", "match coadd"),
        ("~~isr", "isr"),
        ("T:coadd", "coadd"),
        ("D:coadd", "coadd"),
        ("coadd", "coadd"),  # a task and a dataset type, but the same tasks either way
        ("<coadd", "isr warp"),
    ],
)
def test_expressions_select(text: str, labels: str) -> None:
    assert chosen(text) == set(labels.split())


def test_labels_come_in_the_order_of_the_pipeline() -> None:
    assert select("late | early", TASKS, SUBSETS) == ["isr", "detect", "match", "coadd"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a name is missing"),
        ("isr |", "a name is missing"),
        ("isr detect", "'detect' is not expected there"),
        ("(isr", "a bracket is not closed"),
        ("isr)", "is not expected there"),
        ("isr + detect", r"'\+' means nothing here"),
        ("irs", "did you mean 'isr'"),
        ("T:image", "'T:image' names nothing here"),
        ("D:isr", "names nothing here"),
        ("< (isr)", "a name is missing"),
        ("<>isr", "a name is missing"),
        ("schema", "is written once a run"),
        ("<schema", "is written once a run"),
        (">=schema", "is written once a run"),
    ],
)
def test_expressions_that_mean_nothing_are_refused(text: str, words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        chosen(text)


def test_a_name_with_two_meanings_asks_which() -> None:
    tasks = TASKS | {"stars": task("stars", "", "other")}
    with pytest.raises(PipelineError, match="write T:stars or D:stars"):
        select("stars", tasks, SUBSETS)
    assert select("D:stars", tasks, SUBSETS) == ["detect"]
    assert select("T:stars", tasks, SUBSETS) == ["stars"]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("isr..match", "isr detect match"),
        ("..warp", "isr warp"),
        ("warp..", "warp coadd"),
        ("match..isr", ""),
        ("detect..coadd", ""),
        ("..", "isr detect warp match coadd lone"),
    ],
)
def test_ranges_are_what_lies_between(text: str, labels: str) -> None:
    assert labels_of_range(text, TASKS) == labels.split()


names = st.sampled_from(
    [*TASKS, "T:isr", "early", "S:late", "image", "D:stars", "<match", "<=coadd", ">isr", ">=warp", ">raw"]
)
expressions = st.recursive(
    names,
    lambda e: (
        st.builds("({} | {})".format, e, e) | st.builds("({} & {})".format, e, e) | e.map("~({})".format)
    ),
)


@given(expressions, expressions, expressions)
def test_the_laws_of_sets_hold(a: str, b: str, c: str) -> None:
    assert chosen(f"{a} | {b}") == chosen(a) | chosen(b) == chosen(f"{b} | {a}")
    assert chosen(f"{a} & {b}") == chosen(a) & chosen(b) == chosen(f"{b} & {a}")
    assert chosen(f"~{a}") == EVERYTHING - chosen(a)
    assert chosen(f"~({a} | {b})") == chosen(f"~{a} & ~{b}")
    assert chosen(f"{a} | {b} & {c}") == chosen(f"{a} | ({b} & {c})")
    assert chosen(f"~{a} & {b}") == chosen(f"(~{a}) & {b}")
    assert chosen(f"{a} & ({b} | {c})") == chosen(f"{a} & {b} | {a} & {c}")


@st.composite
def random_pipelines(draw: st.DrawFn) -> dict[str, TaskNode]:
    """Return tasks t0…tn, each of which reads outputs of some before it."""
    tasks = {}
    for i in range(draw(st.integers(2, 8))):
        reads = draw(st.sets(st.integers(0, i - 1))) if i else set()
        tasks[f"t{i}"] = task(f"t{i}", " ".join(f"d{r}" for r in reads), f"d{i}")
    return tasks


@given(random_pipelines(), st.data())
def test_before_and_after_agree_with_walking_the_graph(
    tasks: dict[str, TaskNode], data: st.DataObject
) -> None:
    label = data.draw(st.sampled_from(sorted(tasks)))
    edges = set(task_graph_of(tasks.values()).edges)

    def reach(start: str, step: dict[str, set[str]]) -> set[str]:
        found: set[str] = set()
        todo = [start]
        while todo:
            for other in step.get(todo.pop(), set()) - found:
                found.add(other)
                todo.append(other)
        return found

    down = {a: {y for x, y in edges if x == a} for a in tasks}
    up = {a: {x for x, y in edges if y == a} for a in tasks}
    assert set(select(f">{label}", tasks, {})) == reach(label, down)
    assert set(select(f"<{label}", tasks, {})) == reach(label, up)
    assert set(select(f">={label}", tasks, {})) == reach(label, down) | {label}
    other = data.draw(st.sampled_from(sorted(tasks)))
    assert labels_of_range(f"{label}..{other}", tasks) == select(f">={label} & <={other}", tasks, {})
