"""Whole runs: planned, staged, run by real worker processes, harvested."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from loadmaster_executors.controller import Progress, execute
from loadmaster_executors.journal import Attempt, JobState
from loadmaster_executors.local import LocalExecutor
from loadmaster_executors.prepare import Manifests, check_runnable
from loadmaster_executors.report import report
from loadmaster_executors.run import RunFolder
from loadmaster_pipelines.batch import Clustering
from loadmaster_pipelines.resources import ResourceRequest
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.errors import RunError
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.manifest import Staging
from toy_survey import RAWS, RUN, Survey

DOUBLES = {1: "2", 2: "4", 3: "6", 4: "8"}


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, "this takes too long"
        time.sleep(0.01)


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of processes that work in a folder or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            cwd = str((process / "cwd").readlink())
        except OSError:
            continue
        if (str(folder) in words or cwd.startswith(str(folder))) and int(process.name) != os.getpid():
            found.append(words)
    return found


def test_a_run_makes_what_was_planned_and_leaves_nothing_else(survey: Survey) -> None:
    run = survey.begin(survey.plan("Total", "Negate"))
    found = survey.execute(run)
    assert found.is_good
    assert found.counts["done"] == found.n_jobs == 9
    assert survey.contents("doubled") == DOUBLES
    assert survey.contents("total") == {-1: "20"}
    assert survey.contents("negated") == {1: "-2", 2: "-4", 3: "-6", 4: "-8"}
    assert len(survey.files_of_run()) == 4 + 4 + 4 + 1
    assert survey.staged() == []
    assert not (run.path / "scratch").exists()
    assert processes_in(survey.folder) == []


def test_every_quantum_leaves_its_provenance(survey: Survey) -> None:
    plan = survey.plan("Total", config={"sleep_s": 0.0})
    survey.execute(survey.begin(plan))
    quanta = survey.registry.quanta(RUN)
    assert sorted(quanta["task"]) == ["Double"] * 4 + ["Total"]
    assert set(quanta["status"]) == {"succeeded"}
    assert set(quanta["attempt"]) == {1}
    assert quanta.null_count().pipe(lambda counts: counts.row(0)) == (0,) * quanta.width
    assert set(quanta.filter(task="Double")["code_digest"]) == {plan.pipeline.tasks["Double"].code_digest}
    total = survey.registry.datasets("total", [RUN])["dataset"]
    upstream = survey.registry.lineage(UUID(bytes=survey.registry.files(total)["id"][0]))
    assert sorted(upstream["dataset_type"]) == ["doubled"] * 4 + ["number"] * 4


def test_what_a_task_says_is_kept_in_its_log(survey: Survey) -> None:
    run = survey.begin(survey.plan())
    survey.execute(run)
    text = run.log(str(run.plan.job(0).quanta[0].id))
    assert "INFO toy_tasks: detector 1 has 1" in text
    assert "doubling 1" in text


def test_an_exception_ends_its_quantum_and_what_needs_it_and_nothing_else(survey: Survey) -> None:
    run = survey.begin(survey.plan("Negate", "Total", config={"raises": [2]}))
    found = survey.execute(run)
    assert {k: v for k, v in found.counts.items() if v} == {"done": 6, "failed": 1, "blocked": 2}
    assert survey.contents("negated") == {1: "-2", 3: "-6", 4: "-8"}
    (group,) = found.failures
    assert (group.task, group.class_, group.error, group.count, group.n_blocked) == (
        "Double",
        "code_error",
        "ValueError",
        1,
        2,
    )
    assert group.message == "detector <n> is bad at <n>"
    assert group.first_frame.startswith("toy_tasks:")
    assert group.first_frame.endswith(" in run")
    assert group.example_data_id == {"instrument": "Toy", "detector": 2}
    assert 'raise ValueError(f"detector {detector} is bad' in group.example.traceback
    assert "doubling 2" in run.log(group.example.quantum)


def test_a_missing_output_brings_the_rest_home_and_blocks_what_follows(survey: Survey) -> None:
    run = survey.begin(survey.plan("Negate", config={"omits": [3]}))
    found = survey.execute(run)
    assert {k: v for k, v in found.counts.items() if v} == {"done": 6, "partial": 1, "blocked": 1}
    assert set(survey.contents("doubled_note")) == {1, 2, 3, 4}
    assert set(survey.contents("doubled")) == {1, 2, 4}
    assert set(survey.contents("negated")) == {1, 2, 4}
    (group,) = found.failures
    assert (group.class_, group.n_blocked) == ("missing_output", 1)
    assert group.message == "the task ended well without writing doubled (doubled)"


def test_with_nothing_to_do_others_go_on_with_what_is_left(survey: Survey) -> None:
    run = survey.begin(survey.plan("Negate", "Total", config={"has_no_work": [1, 2]}))
    found = survey.execute(run)
    assert {k: v for k, v in found.counts.items() if v} == {"done": 7, "blocked": 2}
    assert found.failures == ()
    assert found.n_no_work == 4
    assert found.is_good
    assert survey.contents("total") == {-1: "14"}
    blocked = run.journal.in_state(JobState.BLOCKED)
    assert len(blocked) == 2


def test_where_nothing_is_left_nothing_runs(survey: Survey) -> None:
    found = survey.execute(survey.begin(survey.plan("Total", config={"has_no_work": [1, 2, 3, 4]})))
    assert {k: v for k, v in found.counts.items() if v} == {"done": 4, "blocked": 1}
    assert survey.files_of_run() == set()


@pytest.mark.parametrize(
    ("config", "class_", "errors"),
    [
        ({"dies": [1]}, "signal", ("SIGSEGV",)),
        ({"exits": [1]}, "code_error", ("exit status",)),
        (
            {"spoils_input": [1]},
            "overwrite_attempt",
            ("", "PermissionError"),
        ),  # root is noticed, others refused
    ],
)
def test_what_went_wrong_is_classed_by_evidence(
    survey: Survey, config: dict[str, object], class_: str, errors: tuple[str, ...]
) -> None:
    run = survey.begin(survey.plan(config=config))
    found = survey.execute(run)
    assert found.counts["failed"] == 1
    (group,) = found.failures
    assert group.class_ == class_
    assert group.error in errors
    assert "doubling 1" in run.log(group.example.quantum)
    assert survey.contents("doubled") == {2: "4", 3: "6", 4: "8"}
    assert survey.staged() == []


def test_an_input_that_is_spoilt_on_the_backbone_is_no_input(survey: Survey) -> None:
    path = survey.folder / "files" / "raw" / "1.txt"
    path.chmod(0o644)
    path.write_text("7")
    plan = survey.plan()
    (survey.folder / "files" / "raw" / "2.txt").chmod(0o644)
    os.truncate(survey.folder / "files" / "raw" / "2.txt", 0)
    found = survey.execute(survey.begin(plan))
    assert [(g.class_, g.count) for g in found.failures] == [("stage_in_failed", 1)] * 2
    assert survey.contents("doubled") == {3: "6", 4: "8"}


def test_the_same_command_tries_again_what_failed_and_what_it_blocked(survey: Survey) -> None:
    path = survey.folder / "files" / "raw" / "1.txt"
    path.rename(path.with_suffix(".hidden"))
    plan = survey.plan("Negate")
    run = survey.begin(plan)
    assert survey.execute(run).counts["blocked"] == 1
    before = {p: p.stat().st_ino for p in (survey.folder / "files" / RUN).rglob("*.txt")}
    path.with_suffix(".hidden").rename(path)
    found = survey.execute(survey.begin(plan))
    assert found.is_good
    assert found.failures == ()
    assert survey.contents("doubled") == DOUBLES
    assert all(p.stat().st_ino == inode for p, inode in before.items()), "what was done is not done again"
    quanta = survey.registry.quanta(RUN)
    assert sorted(quanta["attempt"]) == [1] * 7 + [2]


def test_a_run_that_is_done_has_nothing_to_do(survey: Survey) -> None:
    run = survey.begin(survey.plan())
    survey.execute(run)
    attempts = list(run.journal.attempts())
    assert survey.execute(run).is_good
    assert list(run.journal.attempts()) == attempts


def test_a_file_that_someone_put_under_an_output_name_since_planning_is_not_touched(survey: Survey) -> None:
    plan = survey.plan("Negate")
    path = survey.folder / "files" / plan.job(0).quanta[0].outputs["doubled"][0].path
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    found = survey.execute(survey.begin(plan))
    (group,) = found.failures
    assert (group.class_, group.n_blocked) == ("output_exists", 1)
    assert path.read_text() == "mine"
    assert len(survey.files_of_run()) == 3 * 3 + 1
    assert set(survey.contents("doubled_note")) == {2, 3, 4}


def test_two_controllers_cannot_have_one_run(survey: Survey) -> None:
    run = survey.begin(survey.plan())
    with run.lease(), pytest.raises(RunError, match=f"process {os.getpid()} on"):
        survey.execute(RunFolder.open(run.path))
    assert survey.execute(run).is_good


def test_a_folder_keeps_its_run(survey: Survey) -> None:
    survey.begin(survey.plan()).close()
    with pytest.raises(RunError, match="another run"):
        survey.begin(survey.plan(run="u/me/other"))
    with pytest.raises(RunError, match="there is no run"):
        RunFolder.open(survey.folder / "elsewhere")


def test_a_cancelled_run_can_be_taken_up_again(survey: Survey) -> None:
    run = survey.begin(survey.plan("Total"))
    assert run.cancel() == 5
    assert report(run).counts["cancelled"] == 5
    assert survey.execute(run).is_good


@pytest.mark.parametrize("transfer", ["direct", "copy"])
@pytest.mark.parametrize("is_far", [False, True])
def test_scratch_may_be_near_or_far(survey: Survey, transfer: str, is_far: bool) -> None:
    """/dev/shm is another file system, where hard links and renames fail."""
    root = Path("/dev/shm") if is_far else survey.folder / "near"
    if is_far and not root.is_dir():
        pytest.skip("needs a second file system: /dev/shm")
    run = survey.begin(survey.plan("Total"))
    executor = LocalExecutor(2, scratch=root)
    found = execute(run, executor, survey.registry, survey.backbone, staging=Staging(transfer=transfer))  # type: ignore[arg-type]
    assert found.is_good
    assert survey.contents("total") == {-1: "20"}
    assert not (root / f"loadmaster-{run.token}").exists()


def test_a_backbone_may_be_named_by_a_url(survey: Survey) -> None:
    survey.backbone = Backbone(f"file://{survey.folder}/files")
    assert survey.execute(survey.begin(survey.plan("Total"))).is_good
    assert survey.contents("total") == {-1: "20"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return where a file system of 1 MiB is mounted."""
    folder = tmp_path / "files"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_fails_jobs_and_with_more_space_the_same_command_finishes(
    small_disk: Path, survey: Survey
) -> None:
    run = survey.begin(survey.plan(config={"fills_bytes": 500_000}))
    found = survey.execute(run)
    assert {group.class_ for group in found.failures} == {"stage_out_failed"}
    assert 1 <= found.counts["failed"] <= 3
    assert set(survey.contents("doubled_note")) == set(survey.contents("doubled"))
    assert survey.staged() == []
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert survey.execute(run).is_good
    assert survey.contents("doubled") == DOUBLES


def test_progress_always_adds_up(survey: Survey) -> None:
    seen: list[Progress] = []
    survey.execute(survey.begin(survey.plan("Total", config={"sleep_s": 0.2})), progress=seen.append)
    assert len(seen) > 2
    assert {progress.n_jobs for progress in seen} == {5}
    over = [progress.n_over for progress in seen]
    assert over == sorted(over)
    assert over[-1] == 5


def test_tasks_for_planning_only_are_refused_by_name(survey: Survey) -> None:
    text = """
description: planning only
tasks:
  idle:
    dimensions: [instrument, detector]
    inputs: {number: {dataset_type: number, storage_class: Text, dimensions: [instrument, detector]}}
    outputs: {made: {dataset_type: made, storage_class: Text, dimensions: [instrument, detector]}}
"""
    with pytest.raises(RunError, match="idle"):
        survey.execute(survey.begin(survey.plan_yaml(text)))


def test_a_plan_that_would_overwrite_answers_a_question_and_is_refused(survey: Survey) -> None:
    made = survey.plan()
    survey.execute(survey.begin(made))
    plan = make_plan(survey.registry, made.pipeline, Request((RAWS,), RUN, clobber=True))
    assert plan.n_jobs == made.n_jobs
    with pytest.raises(RunError, match="nothing is ever overwritten"):
        check_runnable(plan)


def test_what_there_would_be_once_a_run_is_refused_before_anything_runs(survey: Survey) -> None:
    text = """
description: a schema for all quanta
tasks:
  copy:
    dimensions: [instrument, detector]
    command: cp {inputs.number.path} {outputs.made.path}
    inputs: {number: {dataset_type: number, storage_class: Text, dimensions: [instrument, detector]}}
    outputs: {made: {dataset_type: made, storage_class: Text, dimensions: [instrument, detector]}}
    init_outputs: {schema: {dataset_type: made_schema, storage_class: Text}}
"""
    with pytest.raises(RunError, match=r"copy\.schema"):
        survey.execute(survey.begin(survey.plan_yaml(text)))


COMMANDS = """
description: commands
tasks:
  copy:
    dimensions: [instrument, detector]
    command: {command}
    inputs: {{number: {{dataset_type: number, storage_class: Text, dimensions: [instrument, detector]}}}}
    outputs: {{copied: {{dataset_type: copied, storage_class: Text, dimensions: [instrument, detector]}}}}
"""


def test_a_command_runs_without_python_and_without_a_shell(survey: Survey) -> None:
    command = "cp {inputs.number.path} {outputs.copied.path}"
    found = survey.execute(survey.begin(survey.plan_yaml(COMMANDS.format(command=command))))
    assert found.is_good
    assert survey.contents("copied") == {1: "1", 2: "2", 3: "3", 4: "4"}


@pytest.mark.parametrize(
    ("command", "class_", "error", "tail"),
    [
        ("\"sh -c 'echo {data_id.detector} is wrong >&2; exit 3'\"", "code_error", "exit status", "is wrong"),
        ("\"sh -c 'echo now >&2; kill -9 $$'\"", "signal", "SIGKILL", "now"),
        ("no-such-program {inputs.number.path}", "code_error", "FileNotFoundError", "no-such-program"),
        ("'true'", "missing_output", "", ""),
    ],
)
def test_a_command_that_fails_says_how(
    survey: Survey, command: str, class_: str, error: str, tail: str
) -> None:
    found = survey.execute(survey.begin(survey.plan_yaml(COMMANDS.format(command=command))))
    (group,) = found.failures
    assert (group.class_, group.error, group.count) == (class_, error, 4)
    assert tail in group.example.traceback


def test_jobs_run_side_by_side_and_wide_ones_take_several_places(survey: Survey) -> None:
    text = "description: x\ntasks:\n  Double: {class: toy_tasks.Double, resources: {cpus: 2}}\n"
    plan = survey.plan_yaml(text, ["Double:sleep_s=0.3"])
    executor = LocalExecutor(3)
    most = 0

    def look(_: Progress) -> None:
        nonlocal most
        most = max(most, sum(worker.job is not None for worker in executor._workers))

    found = execute(survey.begin(plan), executor, survey.registry, survey.backbone, progress=look)
    assert found.is_good
    assert most == 1


def test_jobs_ask_for_what_the_plan_says_of_the_site(survey: Survey) -> None:
    farm = ResourceRequest(cpus=3)
    plan = survey.plan("Negate", clustering=Clustering(sites={"farm": farm}))
    run = survey.begin(plan)
    made = {
        site: Manifests(plan, survey.backbone, "staging", Staging(), run.journal.made, site)
        for site in ("farm", "elsewhere")
    }
    cpus = {site: manifests.of(Attempt(0, 1, "token")).cpus for site, manifests in made.items()}
    assert cpus == {"farm": 3, "elsewhere": 1}
    most = 0
    executor = LocalExecutor(3)

    def look(_: Progress) -> None:
        nonlocal most
        most = max(most, sum(worker.job is not None for worker in executor._workers))

    assert execute(run, executor, survey.registry, survey.backbone, site="farm", progress=look).is_good
    assert most == 1


def test_environment_and_random_numbers_are_each_jobs_own(survey: Survey, tmp_path: Path) -> None:
    (tmp_path / "own_tasks.py").write_text(
        "import os, random, tempfile\n"
        "import numpy as np\n"
        "from loadmaster_pipelines.connections import Input, Output\n"
        "from loadmaster_pipelines.task import Task\n"
        "class Draw(Task):\n"
        "    dimensions = ('instrument', 'detector')\n"
        "    number = Input('number', 'Text', dimensions)\n"
        "    drawn = Output('drawn', 'Text', dimensions)\n"
        "    def run(self, inputs, outputs):\n"
        "        with tempfile.NamedTemporaryFile() as temporary:\n"
        "            inside = os.path.dirname(temporary.name) == os.path.dirname(os.getcwd()) + '/tmp'\n"
        "        threads = os.environ['OMP_NUM_THREADS']\n"
        "        outputs.drawn.put(f'{random.random()} {np.random.random()} {inside} {threads}')\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        plan = survey.plan_yaml("description: x\ntasks: {Draw: {class: own_tasks.Draw}}\n")
        assert survey.execute(survey.begin(plan)).is_good
    finally:
        sys.path.remove(str(tmp_path))
    drawn = [text.split() for text in survey.contents("drawn").values()]
    assert len({words[0] for words in drawn}) == 4
    assert len({words[1] for words in drawn}) == 4
    assert {tuple(words[2:]) for words in drawn} == {("True", "1")}


def test_a_killed_worker_costs_its_job_and_the_run_goes_on(survey: Survey) -> None:
    gate = survey.folder / "gate"
    run = survey.begin(survey.plan(config={"until": str(gate)}))
    executor = LocalExecutor(2)
    victims: list[int] = []

    def kill(progress: Progress) -> None:
        busy = [worker for worker in executor._workers if worker.job is not None and worker.about]
        if busy and not victims:
            victims.append(busy[0].process.pid)
            os.kill(victims[0], signal.SIGKILL)
        if progress.counts["failed"]:
            gate.touch()

    found = execute(run, executor, survey.registry, survey.backbone, progress=kill)
    assert victims
    assert {k: v for k, v in found.counts.items() if v} == {"done": 3, "failed": 1}
    assert found.failures[0].class_ == "node_lost"
    assert processes_in(survey.folder) == []
    assert survey.execute(run).is_good
    assert survey.contents("doubled") == DOUBLES


def test_a_killed_job_is_told_by_its_signal(survey: Survey) -> None:
    gate = survey.folder / "gate"
    run = survey.begin(survey.plan(config={"until": str(gate)}))
    thread = threading.Thread(target=_kill_one_job, args=(run, gate))
    thread.start()
    found = survey.execute(run)
    thread.join()
    assert {k: v for k, v in found.counts.items() if v} == {"done": 3, "failed": 1}
    assert (found.failures[0].class_, found.failures[0].error) == ("signal", "SIGKILL")
    assert survey.execute(run).is_good


def _kill_one_job(run: RunFolder, gate: Path) -> None:
    def running() -> list[int]:
        return [
            int(process.name)
            for process in Path("/proc").glob("[0-9]*")
            if _cwd(process).startswith(str(run.path / "scratch"))
        ]

    wait_until(lambda: bool(running()))
    os.kill(running()[0], signal.SIGKILL)
    gate.touch()


def _cwd(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""


def test_ctrl_c_ends_all_processes_and_the_same_command_goes_on(survey: Survey) -> None:
    gate = survey.folder / "gate"
    run = survey.begin(survey.plan("Total", config={"until": str(gate)}))
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from toy_survey import Survey; from loadmaster_executors.run import RunFolder\n"
        "folder = Path(sys.argv[1]); survey = Survey.open(folder)\n"
        "survey.execute(RunFolder.open(folder / 'run'))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(survey.folder), str(Path(__file__).parent)], stderr=subprocess.PIPE
    )
    wait_until(lambda: run.journal.counts()["running"] == 2 and len(processes_in(run.path / "scratch")) == 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    wait_until(lambda: processes_in(survey.folder) == [])
    assert run.journal.counts()["running"] == 0
    assert sum(run.journal.counts().values()) == 5
    gate.touch()
    assert survey.execute(run).is_good
    assert survey.contents("total") == {-1: "20"}


def test_no_environment_is_written_down(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "correct-horse")
    run = survey.begin(survey.plan(config={"raises": [1]}))
    survey.execute(run)
    assert json.dumps(run.journal.facts())
    for path in run.path.rglob("*"):
        assert not path.is_file() or b"correct-horse" not in path.read_bytes()


def test_asking_whether_a_run_is_attended_keeps_nobody_from_it(survey: Survey) -> None:
    run = survey.begin(survey.plan())
    assert not run.is_attended
    with run.lease():
        assert RunFolder.open(run.path).is_attended
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            assert run.is_attended in (True, False)
            time.sleep(0.001)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(50):
        with run.lease():
            pass
    is_over.set()
    thread.join()


def test_what_a_killed_task_printed_is_in_its_log(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    run = survey.begin(survey.plan(config={"dies": [1]}))
    (group,) = survey.execute(run).failures
    assert "doubling 1" in run.log(group.example.quantum)
    assert "doubling 1" in group.example.traceback


def test_of_two_who_begin_one_run_at_once_both_get_the_same(survey: Survey) -> None:
    plan = survey.plan()
    tokens: list[str] = []
    gate = threading.Barrier(4)

    def begin() -> None:
        gate.wait()
        try:
            tokens.append(survey.begin(plan).token)
        except RunError:
            tokens.append("")

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 4
    assert len(set(tokens) - {""}) == 1
    assert survey.execute(survey.begin(plan)).is_good
