"""Invents the committed results of a whole study, in their real form, for tests of the report."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shared.artifacts.keys import canonical_digest
from shared.artifacts.manifest import File, Manifest, Run
from shared.config.dataset import Fold, Rare, Split
from shared.config.generation import Accept
from shared.config.search import Verdict
from shared.config.stages import Arm, ReportConfig, ReportedExperiment
from shared.config.task import Input
from shared.config.training import Classifier, Synthetic, Training
from shared.data.dataset import describe, usual_counts
from shared.data.imageset import ImageSet, write_shards
from shared.data.schema import LabelGroup, LabelSchema
from shared.report.inputs import StageResult

GROUPS = {  # group → class → weight in the long tail
    "pattern": {
        "floral": 77,
        "graphic": 85,
        "striped": 33,
        "embroidered": 42,
        "pleated": 11,
        "solid": 240,
        "lattice": 10,
    },
    "sleeve": {"long_sleeve": 152, "short_sleeve": 86, "sleeveless": 261},
    "neckline": {"crew": 208, "v": 82, "square": 8, "no_neckline": 206},
    "fabric": {"denim": 31, "chiffon": 70, "cotton": 340, "leather": 11, "faux": 8, "knit": 43},
}
SCHEMA = LabelSchema(groups=tuple(LabelGroup(name=name, classes=tuple(c)) for name, c in GROUPS.items()))
MULTI_LABEL = LabelSchema(
    groups=(
        LabelGroup(name="kind", classes=("a", "b", "c")),
        LabelGroup(name="tags", kind="any", classes=("new", "worn", "sale")),
    )
)

TEMPERATURE = 0.9
"""Calibrates every label group of an invented final training."""


@dataclass
class StudyMaker:
    """Writes the files of each stage into `folder` and keeps the results by role."""

    folder: Path
    schema: LabelSchema = SCHEMA
    train: int = 600
    test: int = 400
    seed: int = 0
    source: str = "garments"
    manual_images: Literal["none", "rare", "all"] = "none"
    """Sets `training.manual_images` of all arms."""
    weights: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {name: tuple(c.values()) for name, c in GROUPS.items()}
    )
    """Holds the weight in the long tail of each class, by group."""
    folds: int = 0
    """Counts the folds, one per repetition; 0 if all repetitions share a test split."""
    results: dict[str, StageResult] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.labels = self._labels(self.train + 100 + self.test)
        self.split = np.array(["train"] * self.train + ["val"] * 100 + ["test"] * self.test)
        for repeat in range(max(self.folds, 1)):
            self.prepare(repeat)

    def split_of(self, repeat: int) -> np.ndarray:
        """Returns the split of each image in a repetition."""
        if not self.folds:
            return self.split
        fold = np.arange(len(self.labels)) % self.folds
        return np.where(fold == repeat, "test", np.where(np.arange(len(self.labels)) % 7 == 0, "val", "train"))

    def commit(
        self,
        role: str,
        files: dict[str, Path],
        summary: dict[str, Any],
        config: dict[str, Any],
        inputs: tuple[str, ...] = (),
    ) -> None:
        """Keeps a result under its role, as if it were committed."""
        stage = role.split("/")[0]
        sources = {
            name.split("/")[0]: Input(stage=m.stage, key=m.key, digest=m.digest)
            for name in inputs
            for m in [self.results[name].manifest]
        }
        device, gpu = ("NVIDIA H100", 1.0) if stage in ("finetune", "tune", "final") else ("cpu", 0.0)
        seconds = float(self.random.uniform(20, 900))
        manifest = Manifest(
            study="sample", stage=stage, key=canonical_digest([role, config]), version=1, config=config, inputs=sources,
            files=tuple(File(name=n, digest=canonical_digest(n), size=p.stat().st_size) for n, p in files.items()), summary=summary,
            run=Run(created="2026-11-24T08:00:00+00:00", seconds=seconds, device=device, device_seconds=gpu * seconds,
                    code="c0de", libraries={"torch": "2.14.1"}),
        )  # fmt: skip
        self.results[role] = StageResult(manifest, files)

    def prepare(self, repeat: int) -> None:
        role, split = f"prepare/{repeat}" if repeat else "prepare", self.split_of(repeat)
        images = ImageSet(
            self.schema,
            [self._png(row) for row in self.labels],
            [f"images/{i:05d}.png" for i in range(len(self.labels))],
            split,
            self.labels,
        )
        out = self._out(role)
        shards = write_shards(images, out, "images")
        info = describe(
            self.source,
            self.schema,
            32,
            self.labels,
            split,
            skipped={"truncated": 2},
            leaks={"train/test": 3},
            notes=("drawn, not photographed",),
            usual_counts=self._usual_counts(),
        )
        (out / "dataset.json").write_text(info.model_dump_json(by_alias=True))
        self.commit(
            role, {"dataset.json": out / "dataset.json", **{p.name: p for p in shards}}, {"sizes": info.sizes}, {}
        )

    def rare_by(self) -> np.ndarray:
        """Returns the numbers of training images by which a class is rare, `[C]`."""
        usual = self._usual_counts()
        return (self.labels[: self.train] == 1).sum(axis=0) if usual is None else np.array(list(usual.values()))

    def _usual_counts(self) -> dict[str, int] | None:
        whole = Fold(number=0, count=self.folds) if self.folds else None
        return usual_counts(self.schema, self.labels, Split(test="folds" if self.folds else 0.15), whole)

    def generate(self, experiment: str, rare: tuple[str, ...], each: int = 30, pools: int = 2) -> None:
        """Adds the results of `judge`, and of `finetune`, `generate` and `score` of each pool of an experiment's images."""
        self.commit(f"judge/{experiment}", {}, {}, {}, ("prepare",))
        for pool in range(pools):
            self._pool(experiment, rare, each, pool)

    def _pool(self, experiment: str, rare: tuple[str, ...], each: int, pool: int) -> None:
        out = self._out(f"generate/{experiment}/{pool}")
        steps = [{"step": s, "loss": 1 / (1 + s / 100), "seconds": s / 5} for s in range(0, 1000, 100)]
        (out / "curve.json").write_text(json.dumps(steps))
        self._sheet(out / "samples.png")
        self.commit(
            f"finetune/{experiment}/{pool}",
            {n: out / n for n in ("curve.json", "samples.png")},
            {"steps": 1000, "loss": 0.1},
            {},
            ("prepare",),
        )
        filled = [name for name in rare for _ in range(each)]
        columns = [self.schema.column(name) for name in filled]
        train = self.labels[self.split_of(pool) == "train"]
        source = np.array([self.random.choice(np.flatnonzero(train[:, c] == 1)) for c in columns], np.int64)
        n = len(filled)
        extra = pa.table({
            "index": np.arange(n), "pool": np.full(n, pool, np.int32), "filled": filled, "source": source,
            "prompt": ["a garment"] * n,
        })  # fmt: skip
        images = ImageSet(
            self.schema,
            [self._png(train[s], blur=2) for s in source],
            [f"generated/{i:06d}.png" for i in range(n)],
            np.array(["generated"] * n),
            train[source],
            extra,
        )
        shards = write_shards(images, out, "images")
        self.commit(
            f"generate/{experiment}/{pool}",
            {p.name: p for p in shards},
            {"images": n},
            {},
            ("prepare", f"finetune/{experiment}/{pool}"),
        )
        self._score(f"{experiment}/{pool}", out, n)

    def _score(self, images: str, out: Path, n: int) -> None:
        scores = pa.table({
            "index": np.arange(n), "plausibility": self.random.beta(2.2, 1.6, n).astype(np.float32),
            "neighbour_ratio": self.random.gamma(9, 0.12, n).astype(np.float32), "test_ratio": self.random.gamma(10, 0.12, n).astype(np.float32),
            "as_near": np.linspace(0, 1, n, dtype=np.float32), "copy_of": pa.nulls(n, pa.string()), "leak_of": pa.nulls(n, pa.string()),
        })  # fmt: skip
        pq.write_table(scores, out / "scores.parquet")
        judges = {
            "accuracy": {g.name: 0.8 for g in self.schema.groups},
            "cas": {
                "accuracy": 0.61,
                "macro_f1": 0.44,
                "rare_macro_f1": 0.31,
                "groups": {},
                "real": {"accuracy": 0.78, "macro_f1": 0.6, "rare_macro_f1": 0.4},
            },
            "kid": 0.0123,
            "precision": 0.71,
            "recall": 0.42,
            "density": 0.83,
            "coverage": 0.56,
            "neighbours": {
                "median_ratio": 1.06,
                "held_out_median_ratio": 1.1,
                "copies": 2,
                "leaks": 0,
                "near_copies": 3,
                "near_test_copies": 1,
            },
        }
        (out / "judges.json").write_text(json.dumps(judges))
        self._sheet(out / "copies.png")
        self.commit(
            f"score/{images}",
            {n: out / n for n in ("scores.parquet", "judges.json", "copies.png")},
            {},
            {},
            ("prepare", f"generate/{images}", f"judge/{images.partition('/')[0]}"),
        )

    def tune(
        self, experiment: str, trials: int = 15, ended: str = "complete", budget: dict[str, Any] | None = None
    ) -> None:
        out = self._out(f"tune/{experiment}")
        value = 0.5 + 0.1 * self.random.random(trials)
        state = np.where(self.random.random(trials) < 0.25, "pruned", "complete")
        lr = 10 ** self.random.uniform(-4, -2, trials)
        pq.write_table(
            pa.table(
                {
                    "step": ["joint"] * trials,
                    "number": np.arange(trials),
                    "state": state,
                    "value": value,
                    "training.lr": lr,
                }
            ),
            out / "trials.parquet",
        )
        best = int(np.where(state == "complete", value, 0).argmax())
        (out / "best.json").write_text(
            json.dumps(
                {"parameters": {"training.lr": lr[best]}, "value": value[best], "number": best, "direction": "maximize"}
            )
        )
        (out / "importance.json").write_text(
            json.dumps(
                {"training.lr": 0.62, "training.dropout": 0.21, "training.weight_decay": 0.12, "training.beta1": 0.05}
            )
        )
        summary = {
            "trials": trials,
            "complete": int((state == "complete").sum()),
            "pruned": int((state == "pruned").sum()),
            "failed": 1,
            "ended": ended,
        }
        self.commit(
            f"tune/{experiment}",
            {n: out / n for n in ("trials.parquet", "best.json", "importance.json")},
            summary,
            {"search": {"objective": "val_macro_f1", "budget": budget or {}}},
            ("prepare",),
        )

    def tune_for(self, experiment: str, towards: dict[str, str], values: list[list[float]], front: list[int]) -> None:
        """Adds a search with several objectives (name → direction), of which the first trial of the `front` was chosen."""
        out = self._out(f"tune/{experiment}")
        numbers = list(range(len(values)))
        columns = {
            f"value.{name}": list(column) for name, column in zip(towards, zip(*values, strict=True), strict=True)
        }
        common = {"step": [""] * len(values), "number": numbers, "state": ["complete"] * len(values)}
        pq.write_table(
            pa.table(
                {**common, **columns, "front": [n in front for n in numbers], "training.lr": [0.001] * len(values)}
            ),
            out / "trials.parquet",
        )
        rows = [
            {"number": n, "values": dict(zip(towards, values[n], strict=True)), "parameters": {"training.lr": 0.001}}
            for n in front
        ]
        best = {
            "parameters": {"training.lr": 0.001}, "value": values[front[0]][0], "number": front[0], "direction": next(iter(towards.values())),
            "objective": list(towards), "directions": towards, "front": rows,
        }  # fmt: skip
        (out / "best.json").write_text(json.dumps(best))
        summary = {"complete": len(values), "pruned": 0, "failed": 0}
        files = {name: out / name for name in ("trials.parquet", "best.json")}
        self.commit(f"tune/{experiment}", files, summary, {"search": {"objective": list(towards)}}, ("prepare",))

    def final(
        self, experiment: str, images: str, repeat: int, skill: float, rare_skill: float, rare: tuple[str, ...]
    ) -> None:
        """Adds one repetition, whose classifier recognises rare classes with `rare_skill` and the others with `skill`."""
        out = self._out(f"final/{experiment}/{repeat}")
        random = np.random.default_rng([self.seed, repeat])  # equal for the same repetition of each arm: they are pairs
        own = np.random.default_rng([self.seed, repeat, sum(experiment.encode())])
        tested = np.flatnonzero(self.split_of(repeat) == "test")
        y = self.labels[tested]
        columns: dict[str, Any] = {"path": [f"images/{i:05d}.png" for i in tested]}
        skills = np.array([rare_skill if name in rare else skill for name in self.schema.class_names])
        logits = np.where(y == 1, skills, 0.0) + random.normal(0, 1.2, y.shape) + own.normal(0, 0.5, y.shape)
        for name, where in self.schema.slices().items():
            kind = self.schema.group(name).kind
            for prefix, block in (("p_", logits[:, where]), ("c_", logits[:, where] / TEMPERATURE)):
                p = np.exp(block) / np.exp(block).sum(axis=1, keepdims=True)
                if kind == "any":
                    p = 1 / (1 + np.exp(1.5 - block))
                columns[f"{prefix}{name}"] = pa.array(p.astype(np.float32).tolist(), pa.list_(pa.float32()))
            columns[f"y_{name}"] = pa.array(y[:, where].tolist(), pa.list_(pa.int8()))
        pq.write_table(pa.table(columns), out / "predictions.parquet")
        self._validation(out / "validation.parquet", skills, repeat)
        curve = [
            {"epoch": e, "lr": 1e-3, "train_loss": 1.4 * 0.9**e + 0.02 * own.random(), "val_loss": 1.3 * 0.93**e + 0.3 + 0.03 * own.random(),
             "train_accuracy": 0.98 - 0.6 * 0.85**e, "val_accuracy": 0.75 - 0.4 * 0.85**e,
             "val_macro_f1": 0.6 - 0.4 * 0.88**e, "val_rare_macro_f1": 0.5 - 0.4 * 0.9**e + 0.02 * own.random(), "seconds": 2.0}
            for e in range(30)
        ]  # fmt: skip
        (out / "curve.json").write_text(json.dumps(curve))
        (out / "metrics.json").write_text(json.dumps({"loss": 0.9 + 0.05 * own.random()}))
        calibration = {"temperatures": {group.name: TEMPERATURE for group in self.schema.groups}, "thresholds": {}}
        (out / "calibration.json").write_text(json.dumps(calibration))
        files = {n: out / n for n in (
            "predictions.parquet", "validation.parquet", "curve.json", "metrics.json", "calibration.json",
        )}  # fmt: skip
        real = images == "real"
        arm = Arm(
            rare=Rare(below=40), accept=None if real else Accept(), classifier=Classifier(), augmentation="hard", images=images,
            training=Training(manual_images=self.manual_images), synthetic=None if real else Synthetic(),
        )  # fmt: skip
        inputs = ("prepare",) if real else ("prepare", f"generate/{experiment}/0", f"score/{experiment}/0")
        self.commit(
            f"final/{experiment}/{repeat}",
            files,
            {"parameters": {"training.lr": 2.5e-3 / (1 + repeat % 3)}},  # each repetition has a winner of its own
            {"arm": arm.model_dump(mode="json"), "repeat": repeat},
            inputs,
        )

    def _validation(self, path: Path, skills: np.ndarray, repeat: int) -> None:
        """Writes logits of the validation split, with the same skills."""
        own = np.random.default_rng([self.seed, repeat, 7])
        y = self.labels[self.split_of(repeat) == "val"]
        logits = np.where(y == 1, skills, 0.0) + own.normal(0, 1.2, y.shape)
        columns = {}
        for name, where in self.schema.slices().items():
            columns[f"l_{name}"] = pa.array(logits[:, where].astype(np.float32).tolist(), pa.list_(pa.float32()))
            columns[f"y_{name}"] = pa.array(y[:, where].tolist(), pa.list_(pa.int8()))
        pq.write_table(pa.table(columns), path)

    def _labels(self, n: int) -> np.ndarray:
        labels = np.zeros((n, self.schema.width), np.int8)
        for name, where in self.schema.slices().items():
            if self.schema.group(name).kind == "any":
                labels[:, where] = self.random.choice([-1, 0, 1], (n, where.stop - where.start), p=[0.1, 0.6, 0.3])
            else:
                weights = np.array(self.weights.get(name, [10, 5, 1]), float)
                labels[np.arange(n), where.start + self.random.choice(len(weights), n, p=weights / weights.sum())] = 1
        return labels

    def _png(self, labels: np.ndarray, blur: int = 0) -> bytes:
        columns = np.flatnonzero(labels == 1)
        hues = np.random.default_rng(columns[:1].sum() + blur).integers(60, 230, (2, 3))
        stripes = (np.arange(32) // (2 + columns[:1].sum() % 5) + blur) % 2
        pixels = hues[stripes][None].repeat(32, axis=0).astype(np.uint8)
        pixels[:, :6] = pixels[:, -6:] = 245
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        return out.getvalue()

    def _sheet(self, path: Path) -> None:
        Image.fromarray(self.random.integers(0, 255, (120, 480, 3), np.uint8)).save(path)

    def _out(self, role: str) -> Path:
        out = self.folder / role
        out.mkdir(parents=True, exist_ok=True)
        return out


def report_config(
    experiments: list[tuple[str, str]], provisional: bool = False, rare: Rare | None = None, **reported: Any
) -> ReportConfig:
    """Returns the config of a report on these (name, images) experiments, of which the first is the baseline."""
    return ReportConfig(
        study="sample", seed=0, verdict=Verdict(baseline=experiments[0][0], provisional=provisional), rare=rare or Rare(below=40),
        experiments=tuple(
            ReportedExperiment(name=name, title=None, paper_row=reported.get(name), images=images, augmentation="hard", parameters_from=None)
            for name, images in experiments
        ),
    )  # fmt: skip


def three_arms(
    folder: Path, seeds: int = 10, gain: float = 0.5, placebo_gain: float = 0.0, **options: Any
) -> tuple[ReportConfig, dict[str, StageResult]]:
    """Makes a real, a synthetic and a placebo arm; `gain` is how much generated images increase the skill at rare classes."""
    maker = StudyMaker(folder, **options)
    config = report_config(
        [("real", "real"), ("synthetic", "real+synthetic"), ("placebo", "real+copies")], real=11, synthetic=14
    )
    counts = maker.rare_by()
    rare = tuple(name for name, n in zip(maker.schema.class_names, counts, strict=True) if 0 < n < 40)
    maker.generate("synthetic", rare)
    maker.results["judge/placebo"] = maker.results["judge/synthetic"]
    for stage in ("finetune", "generate", "score"):
        for pool in range(2):
            maker.results[f"{stage}/placebo/{pool}"] = maker.results[f"{stage}/synthetic/{pool}"]
    for name, images, more in (
        ("real", "real", 0.0),
        ("synthetic", "real+synthetic", gain),
        ("placebo", "real+copies", placebo_gain),
    ):
        maker.tune(name)
        for repeat in range(seeds):
            maker.final(name, images, repeat, 3.0, 2.4 + more, rare)
    return config, maker.results
