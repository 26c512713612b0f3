"""Defines the command `tailfill`; `jobs.cli` implements its subcommands.

A subcommand imports what it needs when it is run, so that `--help` answers at once.
"""

# ruff: noqa: E402
from __future__ import annotations

from shared.early_interrupt import command_of, end_at_signals, end_now, stopped_line

if __name__ == "__main__":
    end_at_signals()

from shared.isolation import leave_current_folder

leave_current_folder()  # before anything else is imported, which the current folder could replace

import itertools
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Literal

import click

STUDY = click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.yaml")
SET = click.option(
    "--set", "sets", multiple=True, metavar="PATH=VALUE", help="Replace a value of the study, e.g. --set final.seeds=3."
)
WORKDIR = click.option(
    "--workdir",
    type=click.Path(path_type=Path),
    help="Use this folder for the services' data and the report [work/<study name>].",
)
LATEST = click.option(
    "--workdir", type=click.Path(path_type=Path), help="Use the study of this work directory [the one used last]."
)
RELEASE = click.option(
    "--release",
    metavar="NAME",
    help="Ask a Helm release, named by its fullnameOverride if it has one, on the cluster that kubectl reaches.",
)
NAMESPACE = click.option("--namespace", "-n", metavar="NAME", help="Name the namespace of the release [kubectl's].")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
WHY = click.option(
    "--why", metavar="STAGE", help="Show which part of a stage's key changed since it was last committed."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tailfill", prog_name="tailfill")
@click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Choose the form of log lines on stderr.",
)
@click.pass_context
def cli(context: click.Context, log: str) -> None:
    """Would generated images of my rare classes make my classifier better, and which hyperparameters are best?

    Start with `tailfill run studies/demo.yaml`, or with your own images: `tailfill init DATA`.
    """
    context.obj = log


def _say(text: str) -> None:
    """Prints a result, without control characters: names and reasons in it come from data, databases and clusters."""
    from shared.terminal import escaped_lines

    click.echo(escaped_lines(text))


@cli.command()
@click.argument("data", metavar="DATA|hf://OWNER/NAME")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("study.yaml"),
    show_default=True,
    help="Name the study file to write.",
)
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    help="Write a study that takes about so many hours on this machine [1, or 8 with a GPU].",
)
@click.option(
    "--base",
    "bases",
    multiple=True,
    metavar="NAME",
    help="Take this text-to-image model (a hub name, a folder or s3://) as the generator; name several to compare them in one study.",
)
def init(data: str, out: Path, hours: float | None, bases: tuple[str, ...]) -> None:
    """Inspect DATA (class folders, a table with images, Parquet files, arrays, boxes …), and write a commented study, a contact sheet and a page.

    If the Hugging Face hub answers, it downloads up to four small networks, once, to find out which of them suits the images; HF_HUB_OFFLINE=1 prevents that.
    """
    from jobs.cli.init import init as write_study

    page = out.with_name(f"{out.stem}-look")
    _say("\n".join(write_study(data, out, page, hours, fits=True, bases=bases)))


@cli.command()
@click.argument("data", metavar="DATA|STUDY.yaml")
@SET
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("look"), show_default=True, help="Name the folder to write."
)
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Look at so many images at most, of each class equally many as far as it has so many.",
)
def look(data: str, sets: tuple[str, ...], out: Path, max_images: int) -> None:
    """Look at DATA, or at a study's data, before you train: write a page with counts, sizes, copies, leaks, look-alikes and suspicious labels."""
    from jobs.cli.look import look as write_page

    _say("\n".join(write_page(data, out, max_images, sets)))


@cli.command()
@STUDY
@SET
@click.option(
    "--plan", "show_plan", is_flag=True, help="Forecast what it would do: classes to fill, images, trials, hours, disk."
)
@JSON
def validate(study: Path, sets: tuple[str, ...], show_plan: bool, as_json: bool) -> None:
    """Check a study file, and with --plan forecast what it would do."""
    from jobs.cli.validate import validate as check

    _say(check(study, sets, show_plan, as_json))


@cli.command()
@STUDY
@SET
@WORKDIR
@click.option(
    "--workers", type=click.IntRange(min=1), help="Run this many workers per search [the study's search.workers]."
)
@click.option("--rerun", multiple=True, metavar="STAGE", help="Run this stage again even if it is committed.")
@JSON
@click.pass_obj
def run(
    log: str,
    study: Path,
    sets: tuple[str, ...],
    workdir: Path | None,
    workers: int | None,
    rerun: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a study on this machine, or continue it, and print the path of its report."""
    from jobs.cli.run import run_study

    _say(run_study(study, sets, workdir, workers, rerun, log, as_json))


@cli.command()
@click.argument("name", metavar="NAME")
@click.option("--config", "file", type=click.Path(path_type=Path), required=True, help="Read the task from this file.")
@click.option("--worker", is_flag=True, help="Run trials, for the stage tune [coordinate the search].")
def stage(name: str, file: Path, worker: bool) -> None:
    """Run one stage of a task, as a container does; `tailfill run` and `tailfill control` write the task file."""
    from jobs.cli.stage import run_stage

    run_stage(name, file, worker)


@cli.command()
@click.argument("study", type=click.Path(path_type=Path), metavar="[STUDY.yaml]", required=False)
@SET
@LATEST
@WHY
@RELEASE
@NAMESPACE
@JSON
def status(
    study: Path | None,
    sets: tuple[str, ...],
    workdir: Path | None,
    why: str | None,
    release: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Show the progress of the study that was run last.

    With STUDY.yaml or --set, show what of that study is committed and what would run. With --release, show the progress on a cluster.
    """
    if release is not None:
        if study or sets or workdir:
            raise click.UsageError(
                "--release excludes STUDY.yaml, --set and --workdir, since the release has its own study."
            )
        from jobs.cli.release import release_status

        _say(release_status(release, namespace, why, as_json))
        return
    from jobs.cli.status import status as describe

    _say(describe(study, sets, workdir, why, as_json))


@cli.command()
@LATEST
@RELEASE
@NAMESPACE
@JSON
def report(workdir: Path | None, release: str | None, namespace: str | None, as_json: bool) -> None:
    """Copy the study's report here and print the path of its page, or with --json its results."""
    if release is not None:
        from jobs.cli.release import print_release_report

        _say(print_release_report(release, namespace, workdir, as_json))
        return
    from jobs.cli.report import print_report

    _say(print_report(workdir, as_json))


@cli.group()
def submit() -> None:
    """Run a part of a release's study now."""


@submit.command("final")
@click.option(
    "--release", metavar="NAME", required=True, help="Name the Helm release, by its fullnameOverride if it has one."
)
@NAMESPACE
@click.option("--experiment", metavar="NAME", help="Train this experiment only [all experiments].")
@click.option("--seeds", type=click.IntRange(min=1), help="Repeat each experiment so often [the study's final.seeds].")
@click.option(
    "--params",
    default="best",
    show_default=True,
    metavar="best|FILE",
    help="Train with the best parameters found so far, or with those of a file with values by path.",
)
@JSON
def submit_final(
    release: str, namespace: str | None, experiment: str | None, seeds: int | None, params: str, as_json: bool
) -> None:
    """Request trainings with the best parameters found so far, follow their logs, and print the metrics.

    The request is a ConfigMap, and goes on if this command ends: `tailfill status --release` shows it, `tailfill submit withdraw` ends it.
    """
    from jobs.cli.release import read_parameters
    from jobs.cli.release import submit_final as request_final
    from shared.kube.requests import SubmitRequest

    _say(request_final(release, namespace, SubmitRequest(experiment, seeds, read_parameters(params)), as_json))


@submit.command()
@click.argument("request", metavar="REQUEST")
@click.option(
    "--release", metavar="NAME", required=True, help="Name the Helm release, by its fullnameOverride if it has one."
)
@NAMESPACE
def withdraw(request: str, release: str, namespace: str | None) -> None:
    """Withdraw a request, which `tailfill status --release` names: no more of its trainings begin."""
    from jobs.cli.release import withdraw as withdraw_request

    _say(withdraw_request(release, namespace, request))


@cli.command()
def control() -> None:
    """Run a release's study on its cluster, as the control Pod does."""
    from jobs.control import ControlPod

    ControlPod().run()


@cli.command()
@LATEST
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Listen on this port; 0 is any free one.",
)
def dashboard(workdir: Path | None, port: int) -> None:
    """Show the searches in Optuna's dashboard, which only this machine can reach, until Ctrl-C."""
    from jobs.cli.dashboard import dashboard as serve

    serve(workdir, port, _say)


@cli.group()
def export() -> None:
    """Write the study's images, the generated images or the model into a new folder."""


OUT = click.argument("out", type=click.Path(path_type=Path), metavar="DIR")


@export.command("dataset")
@OUT
@LATEST
def export_dataset(out: Path, workdir: Path | None) -> None:
    """Write the prepared images and their labels.

    They are in folders by split, beside a metadata.jsonl, as Hugging Face `datasets` reads them.
    """
    from jobs.cli.export import export_dataset as write

    _say(write(out, workdir))


@export.command("generated")
@OUT
@click.option("--experiment", metavar="NAME", help="Export this experiment's images, if experiments differ in them.")
@click.option("--pool", type=click.IntRange(min=0), metavar="N", help="Export this pool of images [all pools].")
@click.option("--accepted/--all", "accepted", help="Export the images that the experiment trains on, or all [all].")
@click.option("--review", is_flag=True, help="Write review.html too, on which a person keeps and rejects images.")
@click.option(
    "--licence",
    metavar="ID",
    help="Name the licence of the images on the card, by the hub's id, e.g. cc-by-4.0 [the base's].",
)
@LATEST
def export_generated(
    out: Path,
    experiment: str | None,
    pool: int | None,
    accepted: bool,
    review: bool,
    licence: str | None,
    workdir: Path | None,
) -> None:
    """Write the generated images and what is known of them.

    They are beside a card and a metadata.jsonl, as Hugging Face `datasets` reads them: with provenance, scores and whether they are accepted.

    With --review, real images are written beside the page: do not pass these on. What it downloads is what `accept.reviewed` names in a study.
    """
    from jobs.cli.export import GeneratedExport
    from jobs.cli.export import export_generated as write

    _say(write(out, GeneratedExport(experiment, pool, accepted, review, licence), workdir))


@export.command("model")
@OUT
@click.option("--experiment", metavar="NAME", help="Export this experiment's model [the recommended one].")
@click.option(
    "--format",
    "form",
    type=click.Choice(["hf", "onnx"]),
    default="hf",
    show_default=True,
    help="Write the model for timm, with a head as safetensors, or as one ONNX graph.",
)
@click.option(
    "--licence",
    metavar="ID",
    help="Name the licence of the model on its card, by the hub's id, e.g. apache-2.0 [not stated].",
)
@click.option(
    "--push", metavar="OWNER/NAME", help="Push the model to this repository of the Hugging Face hub, as HF_TOKEN."
)
@LATEST
def export_model(
    out: Path,
    experiment: str | None,
    form: Literal["hf", "onnx"],
    licence: str | None,
    push: str | None,
    workdir: Path | None,
) -> None:
    """Write the model with its card."""
    from jobs.cli.export_model import export_model as write

    _say(write(out, form, experiment, licence, push, workdir))


@cli.command()
@click.argument("images", type=click.Path(path_type=Path), metavar="IMAGE|DIR|CSV...", nargs=-1, required=True)
@LATEST
@click.option("--experiment", metavar="NAME", help="Use this experiment [the one that the verdict recommends].")
@click.option("--ensemble", is_flag=True, help="Average the probabilities of all repetitions [the best in validation].")
@click.option(
    "--model", "exported", type=click.Path(path_type=Path), metavar="DIR", help="Use this ONNX export, without a study."
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="P",
    help="Answer “don't know” below this probability, and say how often surer answers were wrong.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for a spreadsheet.")
@JSON
def predict(
    images: tuple[Path, ...],
    workdir: Path | None,
    experiment: str | None,
    ensemble: bool,
    exported: Path | None,
    confidence: float,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Label images by the study that was run last: image files, the images below a folder, or those that a CSV lists."""
    if as_csv and as_json:
        raise click.UsageError("--csv excludes --json.")
    from jobs.cli.predict import predict as label

    form: Literal["table", "csv", "json"] = "csv" if as_csv else "json" if as_json else "table"
    prediction, lines = label(images, workdir, experiment, ensemble, exported, form, confidence)
    try:
        for line in lines:
            _say(line)
    except BrokenPipeError:  # the reader has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(prediction.exit_code)


@cli.command()
@click.argument("folder", metavar="DIR|hf://OWNER/NAME")
@click.argument("target", metavar="s3://BUCKET/PREFIX")
@JSON
def upload(folder: str, target: str, as_json: bool) -> None:
    """Copy a data set, or weights, into a bucket that a cluster reads. It removes nothing, and continues if it is started again."""
    from jobs.cli.upload import upload as send
    from shared.settings import Settings

    _say(send(folder, target, Settings.from_environment(), as_json))


WHERE = click.argument("where", metavar="[DIR | s3://BUCKET/PREFIX]", required=False)


@cli.command()
@WHERE
@LATEST
@JSON
def verify(where: str | None, workdir: Path | None, as_json: bool) -> None:
    """Read everything that led to a study's final models, from the data to the report, and name what is missing, changed or unlinked.

    DIR is a work directory, as with --workdir, or a store. Exits with 0 only if everything is whole.
    """
    from jobs.cli.verify import verify as check
    from shared.errors import INPUT

    text, whole = check(where, workdir, as_json)
    _say(text)
    if not whole:
        sys.exit(INPUT)


@cli.command()
@WHERE
@LATEST
@click.option("--delete", is_flag=True, help="Remove what is listed.")
@JSON
def gc(where: str | None, workdir: Path | None, delete: bool, as_json: bool) -> None:
    """List blobs that no study in the store needs, and writes that never ended, if they are older than a day.

    DIR is a work directory, as with --workdir, or a store.
    """
    from jobs.cli.gc import gc as collect

    _say(collect(where, workdir, delete, as_json))


@cli.command()
def schema() -> None:
    """Print the JSON schema of a study file."""
    from shared.config.json_schema import study_schema

    _say(study_schema())


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: `source <(tailfill completion bash)`."""
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    assert completion_class is not None
    _say(completion_class(cli, {}, "tailfill", "_TAILFILL_COMPLETE").source())


@cli.group()
def tune() -> None:
    """Test the search without any training."""


@tune.command()
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Run this many workers at the same time.",
)
@click.option("--trials", type=click.IntRange(min=1), default=200, show_default=True, help="Run this many trials.")
@JSON
def simulate(workers: int, trials: int, as_json: bool) -> None:
    """Run a search with a trivial objective, and print trials, connections, throughput and latency.

    It uses the PostgreSQL of DATABASE_URL, or starts one.
    """
    from jobs.cli.simulate import simulate_search

    _say(simulate_search(workers, trials, as_json))


EARLY = ("stage", "control")
"""Names the commands that begin nothing before they handle signals themselves: until then, a signal ends them without more ado."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command. It writes an expected error as one line to stderr, and exits with the error's code.

    `arguments` are those of the process by default.
    """
    from shared import errors, log

    words = sys.argv[1:] if arguments is None else arguments
    # read before click does, so that click's errors are logged in the same form
    style = "json" if "--log=json" in words or ("--log", "json") in itertools.pairwise(words) else "text"
    log.configure(style)
    logger: Any = log.Log("tailfill")
    try:
        if threading.current_thread() is threading.main_thread() and command_of(words) not in EARLY:
            # what is begun from here on is ended in order: SIGTERM ends what has no handler of its own as Ctrl-C does
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            if signal.getsignal(signal.SIGINT) is end_now:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        cli.main(args=words, prog_name="tailfill", standalone_mode=False)
    except click.ClickException as error:
        if style == "json":
            logger.error(error.format_message())
        else:
            error.show()
        sys.exit(error.exit_code)
    except errors.TailfillError as error:
        for line in str(error).splitlines():
            logger.error(line)
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):  # click raises Abort for a KeyboardInterrupt
        logger.error(stopped_line(words))
        sys.exit(errors.STOPPED)
    except Exception as error:
        from shared.artifacts.disk import lack_of_room

        if (unavailable := lack_of_room(error)) is None:
            raise
        logger.error(str(unavailable))
        sys.exit(unavailable.exit_code)


if __name__ == "__main__":
    main()
