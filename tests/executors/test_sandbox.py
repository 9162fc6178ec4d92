"""Tasks try to get out of their sandbox: by all means that we know, from Python, from C, from a shell."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from hand_jobs import job, output, quantum, reads, run, staged, statuses
from loadmaster_executors.executor import RunPlace
from loadmaster_executors.local import LocalExecutor
from loadmaster_pipelines.connections import Connection
from loadmaster_staging.kernel import landlock_abi
from loadmaster_staging.manifest import (
    InputFile,
    Manifest,
    QuantumSpec,
    Report,
    SandboxMode,
    Staging,
    to_json,
)
from loadmaster_staging.software import READ, software

pytestmark = pytest.mark.skipif(landlock_abi() < 1, reason="this kernel has no Landlock: nothing is enforced")
HUSH = "not for your eyes"
C_PROGRAM = """
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int n, char **words) {
    char text[100];
    int file = syscall(SYS_openat, AT_FDCWD, words[1], O_RDONLY);
    ssize_t size = read(file, text, sizeof text);
    if (size > 0) write(1, text, size);
    return 0;
}
"""


class Box:
    """An executor with a file beside it that no job declares."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "data" / "secret.txt"
        self.secret.parent.mkdir()
        self.secret.write_text(HUSH)
        os.environ |= {"PLACE_TO_LOOK": str(self.secret), "LEFT_OPEN": str(self.secret)}
        self.executor = LocalExecutor(1)
        self.executor.prepare(RunPlace(folder, "t", ("leaky_tasks",)))
        self._number = 0

    def manifest(self, *quanta: QuantumSpec, **staging: object) -> Manifest:
        self._number += 1
        return job(self.folder, *quanta, number=self._number, staging=Staging(**staging))  # type: ignore[arg-type]

    def shell(self, script: str, **staging: object) -> tuple[Report, dict[str, str]]:
        """Run a script whose $1 is its output, and return the report and what was staged."""
        manifest = self.manifest(quantum(script, outputs=[output("a")]), **staging)
        return run(self.executor, manifest), staged(manifest)

    def task(self, name: str, **config: str) -> tuple[Report, dict[str, str]]:
        """Run a task of `leaky_tasks`."""
        spec = replace(
            quantum("", outputs=[output("a")]),
            command=None,
            task_class=f"leaky_tasks.{name}",
            config=config,
            connections=(Connection("a", "output", "a", "Text"),),
        )
        manifest = self.manifest(spec)
        return run(self.executor, manifest), staged(manifest)

    def log(self, report: Report, manifest_number: int | None = None) -> str:
        prefix = self.folder / "staging" / f"{manifest_number or self._number}.1-"
        return Path(f"{prefix}{report.quanta[0].log}").read_text() if report.quanta[0].log else ""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    made = Box(tmp_path_factory.mktemp("box").resolve())
    yield made
    made.executor.close()
    del os.environ["PLACE_TO_LOOK"], os.environ["LEFT_OPEN"]


READS = {
    "by its name": "cat SECRET",
    "in a child of a child": 'sh -c "cat SECRET | cat"',
    "quietly": "cat SECRET 2> /dev/null || true; echo fine > $1",
    "by a symbolic link": "ln -s SECRET link; cat link",
    "by a symbolic link to its folder": "ln -s FOLDER link; cat link/secret.txt",
    "by a hard link": "ln SECRET link; cat link",
    "by climbing": "cat ../../../data/secret.txt",
    "by way of the root of a process": "cat /proc/self/root/SECRET",
    "by way of the root of another process": f"cat /proc/{os.getpid()}/root/SECRET",
    "by way of its own folder in /proc": "cat /proc/self/cwd/../../../data/secret.txt",
    "by a variable of the environment": "cat $PLACE_TO_LOOK",
    "after a change of folder": "cd FOLDER; cat secret.txt",
    "by running it": "cp SECRET here; chmod +x here",
    "by sourcing it": ". SECRET",
}


@pytest.mark.parametrize("way", READS)
def test_what_is_not_declared_cannot_be_read(box: Box, way: str) -> None:
    script = READS[way].replace("SECRET", str(box.secret)).replace("FOLDER", str(box.secret.parent))
    report, files = box.shell(script)
    assert statuses(report) == ["undeclared_read"], report.quanta[0]
    assert report.quanta[0].message == f"it tried to read {box.secret}, which is none of its inputs"
    assert report.sandbox == "enforce"
    assert report.outcome == "failed"
    assert files == {}
    assert HUSH not in box.log(report)
    assert f"sandbox (enforce): was refused: read {box.secret}" in box.log(report)


def test_a_c_program_that_calls_the_kernel_itself_cannot_read_it_either(box: Box, tmp_path: Path) -> None:
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        pytest.skip("there is no C compiler here")
    (tmp_path / "peek.c").write_text(C_PROGRAM)
    subprocess.run([compiler, "-o", tmp_path / "peek", tmp_path / "peek.c"], check=True)
    seen = box.shell(f"{tmp_path}/peek {box.secret}", software=(str(tmp_path),), sandbox="off")
    assert HUSH in box.log(seen[0])
    report, _ = box.shell(f"{tmp_path}/peek {box.secret}", software=(str(tmp_path),))
    assert statuses(report) == ["undeclared_read"], report.quanta[0]
    assert str(box.secret) in report.quanta[0].message
    assert HUSH not in box.log(report)


def test_a_python_task_that_swallows_the_error_is_found_out(box: Box) -> None:
    report, files = box.task("ReadQuietly", path=str(box.secret))
    assert statuses(report) == ["undeclared_read"], report.quanta[0]
    assert str(box.secret) in report.quanta[0].message
    assert files == {}


def test_to_ask_for_what_is_not_there_is_no_offence(box: Box) -> None:
    report, files = box.task("ReadQuietly", path=str(box.folder / "nowhere"))
    assert statuses(report) == ["succeeded"]
    assert files == {"a.txt": "nothing"}


def test_what_a_worker_has_open_is_closed_to_tasks(box: Box) -> None:
    _, files = box.task("UseWhatIsOpen")
    assert HUSH not in files["a.txt"]
    assert box.secret.read_text() == HUSH


def test_folders_of_other_jobs_are_closed(box: Box) -> None:
    other = box.folder / "scratch" / "other.1" / "out"
    other.mkdir(parents=True, exist_ok=True)
    (other / "theirs.txt").write_text(HUSH)
    report, _ = box.shell(f"cat {other}/theirs.txt")
    assert statuses(report) == ["undeclared_read"], report.quanta[0]
    assert HUSH not in box.log(report)
    shutil.rmtree(other.parent)


WRITES = {
    "append": "echo more >> $2",
    "truncate": "truncate -s 0 $2",
    "overwrite": "chmod u+w $2; echo other > $2",
    "remove": "rm -f $2",
    "move": "mv $2 elsewhere",
    "put another in its place": "echo other > new; mv -f new $2",
    "by a symbolic link": "ln -s $2 link; echo more >> link",
    "quietly": "rm -f $2 || true; echo fine > $1",
}


@pytest.mark.parametrize("transfer", ["direct", "copy"])
@pytest.mark.parametrize("way", WRITES)
def test_an_input_cannot_be_written(box: Box, way: str, transfer: str) -> None:
    source = box.folder / "data" / f"{uuid4()}.txt"
    source.write_text("as it was")
    file = InputFile("b", str(uuid4()), "b", {}, str(source))
    spec = quantum(WRITES[way], [file], [output("a")], [reads("b")])
    report = run(box.executor, box.manifest(spec, transfer=transfer))
    assert statuses(report) == ["overwrite_attempt"]
    assert report.quanta[0].message == f"it tried to write or remove in/{source.name}, which is not its own"
    assert source.read_text() == "as it was"


@pytest.mark.parametrize("script", ["echo more >> FILE", "rm FILE", "cp $1 FILE", "mv -f $1 FILE"])
def test_what_exists_elsewhere_cannot_be_written(box: Box, script: str) -> None:
    there = box.folder / "data" / "there.txt"
    there.write_text("as it was")
    report, _ = box.shell("echo mine > $1; " + script.replace("FILE", str(there)))
    assert statuses(report) == ["overwrite_attempt"]
    assert str(there) in report.quanta[0].message
    assert there.read_text() == "as it was"


@pytest.mark.parametrize("script", ["echo new > FILE", "mkdir FILE", "ln -s /etc FILE", "mkfifo FILE"])
def test_nothing_can_be_made_elsewhere(box: Box, script: str) -> None:
    new = box.folder / "data" / "new"
    report, _ = box.shell(script.replace("FILE", str(new)))
    assert statuses(report) == ["code_error"]
    assert not os.path.lexists(new)


def test_a_failure_tells_of_files_that_could_not_be_made(box: Box) -> None:
    report, _ = box.shell("echo new > /tmp/no-such-file-of-ours")
    assert report.quanta[0].message.endswith(
        "; it may write in its own folder only, and not /tmp/no-such-file-of-ours"
    )


def test_home_and_temporary_folder_are_the_jobs_own(box: Box) -> None:
    script = (
        "mkdir -p $XDG_CACHE_HOME; echo x > $HOME/x; echo y > $(mktemp); echo $HOME > $1; echo > /dev/stderr"
    )
    report, files = box.shell(script)
    assert statuses(report) == ["succeeded"], report.quanta[0]
    assert files["a.txt"].strip() == str(box.folder / "scratch" / f"{report.job}.1" / "tmp")


def test_a_task_can_share_its_work_with_processes_of_its_own(box: Box) -> None:
    report, files = box.task("Share")
    assert statuses(report) == ["succeeded"], report.quanta[0]
    assert files == {"a.txt": "[3, 2, 1, 0, 1, 2]"}


def talk(body: str) -> str:
    """Return a shell command that runs Python with a socket module."""
    return f'{sys.executable} -c "import socket as s; {body}"'


def test_a_task_reaches_no_network_unless_it_says_so(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        script = talk(f"s.create_connection((s.inet_ntoa(bytes([127,0,0,1])), {server.getsockname()[1]}))")
        spec = quantum(script)
        report = run(box.executor, box.manifest(spec))
        assert statuses(report) == ["code_error"]
        assert "it may use no network unless the task says `network: true`" in report.quanta[0].message
        with pytest.raises(BlockingIOError):
            server.accept()
        report = run(box.executor, box.manifest(replace(spec, network=True)))
        assert statuses(report) == ["succeeded"]
        server.accept()[0].close()


@pytest.mark.parametrize(
    "body",
    [
        "s.socket(s.AF_INET, s.SOCK_DGRAM)",
        "s.socket(s.AF_INET6, s.SOCK_STREAM)",
        "s.socket(s.AF_UNIX, s.SOCK_DGRAM)",
        "s.socket(s.AF_NETLINK, s.SOCK_RAW)",
        "s.socket(s.AF_UNIX).connect(ABSTRACT)",
        "s.socket(s.AF_UNIX).connect(PATH)",
    ],
)
def test_no_other_kind_of_socket_leads_out(box: Box, body: str) -> None:
    path = str(box.folder / "data" / "socket")
    name = f"\0loadmaster-{uuid4()}"
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as by_name:
        for server, address in ((by_path, path), (by_name, name)):
            server.bind(address)
            server.listen()
            server.setblocking(False)
        words = {"PATH": path, "ABSTRACT": name}
        for word, address in words.items():
            body = body.replace(word, f"bytes({list(address.encode())})")
        report, _ = box.shell(talk(body))
        assert report.quanta[0].status in ("code_error", "undeclared_read")
        assert "PermissionError" in box.log(report)
        for server in (by_path, by_name):
            with pytest.raises(BlockingIOError):
                server.accept()


def test_no_process_of_others_can_be_killed(box: Box) -> None:
    if landlock_abi() < 6:
        pytest.skip("this kernel's Landlock knows nothing of signals")
    with subprocess.Popen(["sleep", "100"]) as bystander:
        box.shell(f"kill -9 {bystander.pid} || true; kill -9 $PPID")
        assert bystander.poll() is None
        bystander.kill()


def test_audit_allows_all_and_tells_what_would_have_been_refused(box: Box) -> None:
    report, files = box.shell(f"cat {box.secret} > $1", sandbox="audit")
    assert statuses(report) == ["succeeded"]
    assert report.sandbox == "audit"
    assert files == {"a.txt": HUSH}
    assert box.log(report) == f"sandbox (audit): would have been refused: read {box.secret}\n"


def test_off_is_off(box: Box) -> None:
    report, files = box.shell(f"cat {box.secret} > $1; test $HOME = {Path.home()}", sandbox="off")
    assert statuses(report) == ["succeeded"]
    assert report.sandbox == "off"
    assert files == {"a.txt": HUSH}
    assert box.log(report) == ""


IN_A_POOR_KERNEL = """
import sys
from pathlib import Path
from loadmaster_executors.job import run_job
from loadmaster_staging import kernel, sandbox, seccomp
from loadmaster_staging.manifest import manifest_from_json
lacks = sys.argv[3].split()
if "landlock" in lacks:
    sandbox.kernel.landlock_abi = lambda: 0
if "seccomp" in lacks:
    def tell_of_calls():
        raise OSError("busy")
    sandbox.tell_of_calls = tell_of_calls
report = run_job(manifest_from_json(sys.argv[1]), Path(sys.argv[2]))
print(report.sandbox, report.quanta[0].status)
"""


@pytest.mark.parametrize(
    ("lacks", "mode", "status"),
    [
        ("landlock", "audit", "succeeded"),
        ("landlock seccomp", "off", "succeeded"),
        ("seccomp", "enforce", "undeclared_read"),
    ],
)
def test_the_report_says_what_a_kernel_could_do(
    box: Box, tmp_path: Path, lacks: str, mode: SandboxMode, status: str
) -> None:
    spec = replace(
        quantum("", outputs=[output("a")]),
        command=None,
        task_class="leaky_tasks.ReadQuietly" if "landlock" in lacks else "leaky_tasks.ReadLoudly",
        config={"path": str(box.secret)},
    )
    words = [
        sys.executable,
        "-c",
        IN_A_POOR_KERNEL,
        to_json(box.manifest(spec)),
        str(tmp_path / "0.1"),
        lacks,
    ]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.stdout.split() == [mode, status]


def test_the_program_that_a_command_names_is_software_and_its_arguments_are_not(box: Box) -> None:
    scripts = box.folder / "scripts"
    scripts.mkdir()
    (scripts / "helper.py").write_text("WORD = 'helped'")
    (scripts / "table.txt").write_text(HUSH)
    (scripts / "run.py").write_text("import helper, sys; open(sys.argv[1], 'w').write(helper.WORD)")
    spec = quantum("", outputs=[output("a")])
    run_script = replace(spec, command=f"{sys.executable} -B {scripts}/run.py {{outputs.a.path}}")
    manifest = box.manifest(run_script)
    report = run(box.executor, manifest)
    assert statuses(report) == ["succeeded"], report.quanta[0]
    assert staged(manifest) == {"a.txt": "helped"}
    copy = replace(spec, command=f"cp {scripts}/table.txt {{outputs.a.path}}")
    assert statuses(run(box.executor, box.manifest(copy))) == ["undeclared_read"]


@pytest.mark.parametrize("kind", ["library", "own"])
def test_data_beside_the_software_stays_closed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "module.py").touch()
    (tmp_path / "repository").mkdir()
    added, before = (str(tmp_path),) if kind == "own" else (), list(sys.path)
    try:
        if kind == "library":
            sys.path.insert(0, str(tmp_path))
        rights = software.__wrapped__(added, (str(tmp_path / "repository"),)).rights
    finally:
        sys.path[:] = before
    assert rights[str(tmp_path / "package")] & READ == READ
    assert rights[str(tmp_path / "module.py")]
    assert str(tmp_path / "repository") not in rights
    assert not rights[str(tmp_path)] & ~(1 << 3)
