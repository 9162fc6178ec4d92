"""A survey of one instrument whose raw data are numbers, in a real repository, with real plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

import polars as pl
from loadmaster_executors.controller import execute
from loadmaster_executors.local import LocalExecutor
from loadmaster_executors.report import RunReport
from loadmaster_executors.run import RunFolder
from loadmaster_pipelines.batch import Clustering
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.location import local_path, remote

RAWS = "toy/raw"
RUN = "u/me/run"
NAMESPACE = UUID("12345678-1234-5678-1234-567812345678")


@dataclass
class Survey:
    folder: Path
    registry: Registry
    backbone: Backbone

    @classmethod
    def create(cls, folder: Path, detectors: Sequence[int], backbone_url: str = "") -> "Survey":
        registry = Registry.create(str(folder / "registry.sqlite3"))
        (folder / "backbone").write_text(backbone_url or str(folder / "files"))
        survey = cls(folder, registry, Backbone(backbone_url or str(folder / "files")))
        keys = pl.DataFrame({"instrument": ["Toy"] * len(detectors), "detector": list(detectors)})
        raw = DatasetType("number", registry.universe.group(("instrument", "detector")), "Text")
        with registry.transaction() as t:
            t.insert_records("instrument", pl.DataFrame({"instrument": ["Toy"]}))
            t.insert_records("detector", keys.with_columns(full_name=pl.col("detector").cast(pl.String)))
            t.register_collection(Collection(RAWS, CollectionType.RUN))
            t.register_dataset_type(raw)
            t.insert_datasets("number", RAWS, survey._raws(keys))
        return survey

    @classmethod
    def open(cls, folder: Path) -> "Survey":
        backbone = Backbone((folder / "backbone").read_text())
        return cls(folder, Registry.open(str(folder / "registry.sqlite3")), backbone)

    def _raws(self, keys: pl.DataFrame) -> pl.DataFrame:
        rows = []
        for detector in keys["detector"]:
            staged = f"{self.backbone.staging_url(RAWS, 'made')}-{detector}"
            fs, inner = remote(staged)
            fs.makedirs(inner.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(inner, str(detector).encode())
            if (here := local_path(staged)) is not None:
                here.chmod(0o444)
            self.backbone.publish(staged, f"raw/{detector}.txt")
            self.backbone.remove_staged(staged)
            found = self.backbone.measure(f"raw/{detector}.txt")
            rows.append((uuid5(NAMESPACE, str(detector)).bytes, f"raw/{detector}.txt", *_pair(found)))
        columns = ("id", "url", "size_bytes", "checksum")
        return keys.hstack(pl.DataFrame(rows, schema=columns, orient="row"))

    def plan(
        self,
        *tasks: str,
        config: Mapping[str, object] | None = None,
        run: str = RUN,
        clustering: Clustering | None = None,
    ) -> Plan:
        """Plan Double and then `tasks` (of toy_tasks), Double with `config`."""
        settings = [f"Double:{key}={value}" for key, value in (config or {}).items()]
        return self.plan_yaml(
            "description: toy\ntasks:\n"
            + "".join(f"  {name}: {{class: toy_tasks.{name}}}\n" for name in ("Double", *tasks)),
            settings,
            run,
            clustering,
        )

    def plan_yaml(
        self,
        text: str,
        settings: Sequence[str] = (),
        run: str = RUN,
        clustering: Clustering | None = None,
    ) -> Plan:
        path = self.folder / "pipeline.yaml"
        path.write_text(text)
        pipeline = load_pipeline(path, universe=self.registry.universe, config=settings)
        return make_plan(self.registry, pipeline, Request(inputs=(RAWS,), output_run=run), clustering)

    def begin(self, plan: Plan) -> RunFolder:
        return RunFolder.create(self.folder / "run", plan)

    def execute(self, run: RunFolder, *, cpus: int = 2, **options: object) -> RunReport:
        return execute(run, LocalExecutor(cpus), self.registry, self.backbone, **options)  # type: ignore[arg-type]

    def contents(self, dataset_type: str, run: str = RUN) -> dict[int, str]:
        """Return what is registered, read from where the registry says, by detector (-1 for none)."""
        rows = self.registry.datasets(dataset_type, [run])
        files = self.registry.files(rows["dataset"])
        detectors = rows["detector"] if "detector" in rows.columns else [-1] * rows.height
        found = {}
        for detector, file in zip(detectors, files.iter_rows(named=True), strict=True):
            with self.backbone.open(file["url"]) as stream:
                content = stream.read()
            assert _pair(self.backbone.measure(file["url"])) == (file["size_bytes"], file["checksum"])
            found[detector] = content.decode()
        return found

    def files_of_run(self, run: str = RUN) -> set[str]:
        return set(self.backbone.staged_names(self.backbone.url(run)))

    def staged(self) -> list[str]:
        return self.backbone.staged_names(self.backbone.url(".staging"))


def _pair(measured: object) -> tuple[int, str]:
    return measured.size_bytes, measured.checksum  # type: ignore[attr-defined]
