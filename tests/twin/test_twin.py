"""The planner beside Rubin's own builder: the same random surveys, pipelines and requests, the same answers.

The peer's packages live in an environment of their own: `tests/services/peer-up` makes one, and LOADMASTER_PEER may
name the Python of another. LOADMASTER_TWIN_CASES says how many surveys are drawn, LOADMASTER_TWIN_SEED from which
number on; a difference tells the number of its survey.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from our_answers import answer, make_registry
from random_question import random_question

ROOT = Path(__file__).parents[2]
MADE = ROOT / ".venv-peer" / ".installed"  # by tests/services/peer-up, last
PYTHON = Path(os.environ.get("LOADMASTER_PEER", MADE.with_name("bin") / "python"))
FIRST = int(os.environ.get("LOADMASTER_TWIN_SEED", "0"))
SURVEYS = int(os.environ.get("LOADMASTER_TWIN_CASES", "12"))
AT_ONCE = 4  # surveys a test

# What the peer raises for want of a feature, or before it sees that a quantum will be dropped: not compared then.
# Its SQL for some joins of three kinds of regions is broken, and it searches calibrations for quanta without inputs.
PEER_ONLY = {"KeyError", "OperationalError", "CalibrationLookupError", "ScalarError", "InvalidQueryError",
             "NotImplementedError", "TypeError"}  # fmt: skip


class Peer:
    """Rubin's builder in a process of its own, which stays: its imports take seconds."""

    def __init__(self) -> None:
        command = [str(PYTHON), str(Path(__file__).with_name("peer_server.py"))]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        """Return one answer a request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        stdout: IO[str] | None = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        assert line, f"the peer ended with {self._process.wait()}"
        found: list[dict[str, Any]] = json.loads(line)
        return found

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    if not PYTHON.exists() or not ("LOADMASTER_PEER" in os.environ or MADE.exists()):
        pytest.skip(f"no peer to compare with at {PYTHON}: make one with tests/services/peer-up")
    made = Peer()
    yield made
    made.close()


@pytest.mark.parametrize("first", range(FIRST, FIRST + SURVEYS, AT_ONCE))
def test_quanta_edges_and_refusals_are_those_of_the_peer(first: int, peer: Peer, tmp_path: Path) -> None:
    differences = []
    for seed in range(first, min(first + AT_ONCE, FIRST + SURVEYS)):
        question = random_question(seed)
        theirs = peer.ask(question)
        with make_registry(tmp_path / f"{seed}.sqlite3", question["survey"]) as registry:
            for i, (request, their) in enumerate(zip(question["requests"], theirs, strict=True)):
                our = answer(registry, question["pipelines"][request["pipeline"]], request)
                differences += [f"survey {seed}, request {i}: {d}" for d in difference(our, their)]
    assert not differences, "\n".join(differences)


def difference(our: dict[str, Any], their: dict[str, Any]) -> list[str]:
    """Say in what two answers differ, in a few words."""
    if "failure" in our or "failure" in their:
        if is_peers_own(their) or ("failure" in our) == ("failure" in their):
            return []
        return [f"ours: {summary(our)}\n    theirs: {summary(their)}"]
    found = []
    for label in sorted({*our["tasks"], *their["tasks"]}):
        mine, other = our["tasks"].get(label, []), their["tasks"].get(label, [])
        if mine != other:
            first = next((pair for pair in zip(mine, other, strict=False) if pair[0] != pair[1]), "")
            found.append(f"{label}: {len(mine)} quanta here, {len(other)} there {str(first)[:600]}")
    if our["existing"] != their["existing"]:
        for name in sorted({*our["existing"], *their["existing"]}):
            mine, other = our["existing"].get(name, []), their["existing"].get(name, [])
            if mine != other:
                found.append(f"existing {name}: {mine} here, {other} there")
    return found


def is_peers_own(their: dict[str, Any]) -> bool:
    """Whether a refusal says nothing of the request, or wants files that an earlier run of the peer would leave."""
    return their.get("failure") in PEER_ONLY or their.get("message", "").startswith("Init-output dataset")


def summary(answer: dict[str, Any]) -> str:
    if "failure" in answer:
        return f"{answer['failure']}: {answer['message']}"
    return ", ".join(f"{label} {len(quanta)}" for label, quanta in answer["tasks"].items()) or "nothing"
