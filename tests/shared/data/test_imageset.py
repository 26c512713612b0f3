from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shared.data.imageset import ImageSet, decode, from_tables, read_shards, to_table, unit_column, write_shards
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.errors import DataError

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="sleeve", classes=("long", "short", "none")),
        LabelGroup(name="tags", kind="any", classes=("new", "sale")),
    )
)


def png(size: tuple[int, int] = (8, 8), mode: str = "RGB", seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "png")
    return buffer.getvalue()


def image_set(labels: Labels, schema: LabelSchema = SCHEMA, extra: pa.Table | None = None) -> ImageSet:
    n = len(labels)
    return ImageSet(
        schema,
        [b"%d" % i for i in range(n)],
        [f"p/{i}.png" for i in range(n)],
        np.array(["train", "val"] * n)[:n],
        labels,
        extra,
    )


def test_units_are_products_or_else_single_images() -> None:
    labels = random_labels(SCHEMA, 4)
    assert image_set(labels).units() is None
    assert image_set(labels).unit_numbers().tolist() == [0, 1, 2, 3]
    assert unit_column([None, None]) is None
    images = from_tables([to_table(image_set(labels, extra=unit_column(["b", None, "a", "b"])))], SCHEMA)
    assert images.units() == ["b", "p/1.png", "a", "b"]
    assert images.take(np.array([3, 1])).units() == ["b", "p/1.png"]
    first, alone, other, last = images.unit_numbers().tolist()
    assert first == last
    assert len({first, alone, other}) == 3


def random_labels(schema: LabelSchema, n: int, seed: int = 0) -> Labels:
    random = np.random.default_rng(seed)
    labels = np.zeros((n, schema.width), np.int8)
    for group in schema.groups:
        where = schema.slices()[group.name]
        if group.kind == "one":
            labels[np.arange(n), where.start + random.integers(0, len(group.classes), n)] = 1
            labels[random.random(n) < 0.1, where] = -1
        else:
            labels[:, where] = random.integers(-1, 2, (n, len(group.classes)))
    return labels


def same(one: ImageSet, other: ImageSet) -> bool:
    return (
        list(one.encoded) == list(other.encoded)
        and list(one.paths) == list(other.paths)
        and one.split.tolist() == other.split.tolist()
        and bool((one.labels == other.labels).all())
        and one.labels.dtype == other.labels.dtype == np.int8
        and (one.extra is None if other.extra is None else one.extra is not None and one.extra.equals(other.extra))
    )


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 30), st.integers(0, 1000))
def test_tables_keep_everything(n: int, seed: int) -> None:
    extra = pa.table({"seed": pa.array(range(n), pa.int64()), "prompt": pa.array(["a"] * n, pa.string())})
    images = image_set(random_labels(SCHEMA, n, seed), extra=extra)
    assert same(from_tables([to_table(images)], SCHEMA), images)


def test_twenty_thousand_images_travel_fast(tmp_path: Path) -> None:
    groups = tuple(LabelGroup(name=f"g{i}", classes=tuple(f"c{j}" for j in range(5))) for i in range(6))
    schema = LabelSchema(groups=groups)
    random = np.random.default_rng(0)
    n = 20_000
    images = ImageSet(
        schema, [random.bytes(900) for _ in range(n)], [f"p/{i}.png" for i in range(n)], np.array(["train"] * n),
        random_labels(schema, n),
    )  # fmt: skip
    start = time.process_time()
    paths = write_shards(images, tmp_path, "images")
    back = read_shards(paths, schema)
    seconds = time.process_time() - start
    assert len(paths) == 10
    assert same(back, images)
    assert seconds < 5  # about one second on an idle core


def test_shards_are_reproducible_and_readable_by_others(tmp_path: Path) -> None:
    images = image_set(random_labels(SCHEMA, 10))
    (one,) = write_shards(images, tmp_path, "a")
    (two,) = write_shards(images, tmp_path, "b")
    assert one.read_bytes() == two.read_bytes()
    table = pq.read_table(one)
    assert table.column_names == ["image", "split", "sleeve", "tags"]
    assert table["image"][3].as_py() == {"bytes": b"3", "path": "p/3.png"}


def test_no_images(tmp_path: Path) -> None:
    images = image_set(np.zeros((0, 5), np.int8))
    assert len(read_shards(write_shards(images, tmp_path, "images"), SCHEMA)) == 0


def test_one_split_and_rows() -> None:
    images = image_set(random_labels(SCHEMA, 10), extra=pa.table({"seed": list(range(10))}))
    val = images.of("val")
    assert val.paths == [f"p/{i}.png" for i in (1, 3, 5, 7, 9)]
    assert val.extra is not None
    assert val.extra["seed"].to_pylist() == [1, 3, 5, 7, 9]
    assert list(images.take(np.array([4, 4, 0])).encoded) == [b"4", b"4", b"0"]


def damaged(tmp_path: Path, column: str, values: pa.Array | None) -> Path:
    table = to_table(image_set(random_labels(SCHEMA, 4)))
    position = table.column_names.index(column)
    table = table.remove_column(position) if values is None else table.set_column(position, column, values)
    pq.write_table(table, tmp_path / "images-00000.parquet")
    return tmp_path / "images-00000.parquet"


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("sleeve", None, "images-00000.parquet: has no column 'sleeve'; it has"),
        ("image", None, "has no column 'image'"),
        ("image", pa.array([b"a"] * 4), "column 'image' must be"),
        ("sleeve", pa.array([1, 2, 3, 4]), "column 'sleeve' must be string, got int64"),
        ("tags", pa.array(["a"] * 4), "column 'tags' must be struct"),
        ("sleeve", pa.array(["long", None, "lnog", "x"]), "row 2: 'lnog' is not a class of the group sleeve; it has"),
        (
            "tags",
            pa.array([{"new": 1, "sale": 0}, {"new": 2, "sale": 0}, None, None], pa.struct([("new", pa.int8()), ("sale", pa.int8())])),
            "row 1: tags/new must be 0, 1 or null, got 2",
        ),
        (
            "image",
            pa.array([{"bytes": b"", "path": None}] * 4, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "row 0: column 'image' has no path",
        ),
    ],
)  # fmt: skip
def test_damaged_tables(tmp_path: Path, column: str, values: pa.Array | None, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_shards([damaged(tmp_path, column, values)], SCHEMA)
    assert message in str(caught.value)


def test_a_truncated_shard(tmp_path: Path) -> None:
    (path,) = write_shards(image_set(random_labels(SCHEMA, 4)), tmp_path, "images")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"images-00000\.parquet: is not a readable Parquet file"):
        read_shards([path], SCHEMA)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_pixels_of_any_mode(mode: str) -> None:
    assert decode(png(mode=mode), 8, "x").shape == (8, 8, 3)
    assert decode(png((20, 10), mode), 8, "x").shape == (8, 8, 3)


def test_pixels_of_the_right_size_are_untouched() -> None:
    assert (decode(png(seed=3), 8, "x") == np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)).all()


@pytest.mark.parametrize("data", [b"", b"not an image", png()[:40]])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(DataError, match="image the/path: cannot be decoded"):
        decode(data, 8, "the/path")
