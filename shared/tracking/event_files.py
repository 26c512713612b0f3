"""Writes runs as event files for TensorBoard: a folder per run, whose one file appears whole or not at all.

No other module uses the package tensorboard, which is imported at the first event.
"""

from __future__ import annotations

import hashlib
import struct
from importlib.util import find_spec
from pathlib import Path

from shared.artifacts.disk import whole_file
from shared.errors import ConfigError
from shared.names import path_below
from shared.settings import Settings
from shared.tracking.records import Curve, RunRecord, plain_name, plainly_named

VARIABLE = "TAILFILL_TENSORBOARD"


class EventFiles:
    """Writes runs into the folder that TAILFILL_TENSORBOARD names."""

    name = "TensorBoard"

    def __init__(self, settings: Settings, study: str) -> None:
        """Creates the folder; raises ConfigError if that is not possible, or the package tensorboard is not installed."""
        self._folder = _folder(settings) / study
        self._written = self._folder / ".logged"
        try:
            self._written.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"environment variable {VARIABLE}: {self._folder.parent} cannot be written ({error.strerror}); "
                "name a folder of yours, or unset it"
            ) from None

    def logged(self, identity: str, digest: str) -> bool:
        """Returns whether the run was written."""
        return self._mark(identity, digest).exists()

    def log(self, record: RunRecord) -> None:
        """Writes a run; raises UnavailableError if the disk is full, and ConfigError if the folder cannot be written."""
        target = path_below(self._folder, _run_name(record), f"{VARIABLE} {self._folder}", ConfigError)
        with whole_file(target / f"events.out.tfevents.{round(record.began)}.tailfill", private=False) as temporary:
            _write(temporary, record)
        with whole_file(self._mark(record.identity, record.digest), private=False):
            pass

    def _mark(self, identity: str, digest: str) -> Path:
        return self._written / _hashed(f"{identity} {digest}")


def _run_name(record: RunRecord) -> str:
    """Returns the name under which TensorBoard shows a run: experiment, for a trial its search, and the step with part of its digest."""
    leaf = plain_name(record.name.replace("/", "_")).replace(" ", "-")
    if record.parent is None:
        return f"{plain_name(record.experiment)}/{leaf}-{record.digest[:8]}"
    return f"{plain_name(record.experiment)}/search-{plain_name(record.parent[0])[-8:]}/{leaf}"


def _write(path: Path, record: RunRecord) -> None:
    """Writes the events by TensorBoard's own writer of records, as its SummaryWriter, which takes its time from the clock, uses it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("wb") as file:
        writer = RecordWriter(file)

        def write(summary: Summary, step: int = 0) -> None:
            writer.write(Event(wall_time=record.ended, step=step, summary=summary).SerializeToString())

        writer.write(Event(wall_time=record.ended, file_version="brain.Event:2").SerializeToString())
        curves: dict[str, Curve] = {name: [(0, value)] for name, value in record.metrics.items()} | dict(record.curves)
        for name, curve in plainly_named(curves).items():
            for step, value in curve:
                write(Summary(value=[Summary.Value(tag=_tag(name), simple_value=value)]), step)
        for name, content in plainly_named(record.images).items():
            encoded = content if isinstance(content, bytes) else content.read_bytes()
            if (size := image_size(encoded)) is not None:
                image = Summary.Image(height=size[1], width=size[0], colorspace=3, encoded_image_string=encoded)
                write(Summary(value=[Summary.Value(tag=_tag(name), image=image)]))
        if record.text:
            text = TensorProto(dtype="DT_STRING", string_val=[record.text.encode(errors="replace")])
            kind = create_summary_metadata(display_name="answer", description="")
            write(Summary(value=[Summary.Value(tag="answer", tensor=text, metadata=kind)]))
        if record.parameters:  # for the table of hyperparameters
            parameters = {_tag(name): value for name, value in plainly_named(record.parameters).items()}
            write(hparams_pb(parameters, trial_id=_hashed(record.identity), start_time_secs=record.began))


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _tag(name: str) -> str:
    return name.replace(" ", "_")


def image_size(encoded: bytes) -> tuple[int, int] | None:
    """Returns width and height of a PNG or a JPEG, from its header; None if it is neither."""
    if encoded.startswith(b"\x89PNG\r\n\x1a\n") and len(encoded) >= 24:
        width, height = struct.unpack(">II", encoded[16:24])
        return width, height
    if not encoded.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 <= len(encoded) and encoded[place] == 0xFF:
        marker, length = encoded[place + 1], int.from_bytes(encoded[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xC2:  # the header of a frame
            height, width = struct.unpack(">HH", encoded[place + 5 : place + 9])
            return width, height
        place += 2 + length
    return None


def _folder(settings: Settings) -> Path:
    """Returns the folder; raises ConfigError if it is an address, or the package tensorboard is not installed."""
    assert settings.tensorboard is not None
    if "://" in settings.tensorboard:
        raise ConfigError(
            f"environment variable {VARIABLE}: must be a folder on this machine, got an address; name a folder, or unset it"
        )
    if find_spec("tensorboard") is None:
        raise ConfigError(
            f"environment variable {VARIABLE}: needs the package tensorboard, which is not installed; "
            "run `make venv`, or pip install 'CHECKOUT[trackers]' with the path of a checkout of tailfill; or unset it"
        )
    return Path(settings.tensorboard).expanduser()
