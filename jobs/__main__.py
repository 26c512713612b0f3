"""The command `tailfill`. Everything heavy is imported by the subcommand that needs it: `--help` answers at once."""

# ruff: noqa: E402
from __future__ import annotations

from shared.isolation import leave_current_folder

leave_current_folder()  # before anything else is imported

import errno
import itertools
import sys
from pathlib import Path
from typing import Any

import click

STUDY = click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.yaml")
SET = click.option(
    "--set", "sets", multiple=True, metavar="PATH=VALUE", help="Replace a value, e.g. --set final.seeds=3."
)
WORKDIR = click.option(
    "--workdir",
    type=click.Path(path_type=Path),
    help="Where services keep their data and the report is put [work/<study name>].",
)
RELEASE = click.option("--release", metavar="NAME", help="Ask a release on a cluster, as kubectl reaches it.")
NAMESPACE = click.option("--namespace", "-n", metavar="NAME", help="Of the release [kubectl's].")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tailfill", prog_name="tailfill")
@click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the log lines on stderr.",
)
@click.pass_context
def cli(context: click.Context, log: str) -> None:
    """Would generated images of my rare classes make my classifier better, and which hyperparameters are best?

    Start with `tailfill run studies/demo.yaml`, or with your own images: `tailfill init DATA`.
    """
    context.obj = log


@cli.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("study.yaml"),
    show_default=True,
    help="The study file to write.",
)
def init(data: Path, out: Path) -> None:
    """Look at DATA (a folder a class, or a CSV with images) and write a commented study and a contact sheet."""
    from jobs.cli.init import init as write_study

    for line in write_study(data, out):
        click.echo(line)


@cli.command()
@STUDY
@SET
@click.option(
    "--plan", "show_plan", is_flag=True, help="Say what would run: classes to fill, images, trials, hours, disk."
)
@JSON
def validate(study: Path, sets: tuple[str, ...], show_plan: bool, as_json: bool) -> None:
    """Check a study file, and say what it would do."""
    from jobs.cli.validate import validate as check

    click.echo(check(study, sets, show_plan, as_json))


@cli.command()
@STUDY
@SET
@WORKDIR
@click.option("--workers", type=click.IntRange(min=1), help="Tuning workers [the study's search.workers].")
@click.option("--rerun", multiple=True, metavar="STAGE", help="Run this stage again although it is committed.")
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
    """Run a study on this machine, or go on with it, and print the path of its report."""
    from jobs.cli.run import run_study

    click.echo(run_study(study, sets, workdir, workers, rerun, log, as_json))


@cli.command()
@click.argument("name", metavar="NAME")
@click.option("--config", "file", type=click.Path(path_type=Path), required=True, help="The task, as control wrote it.")
@click.option("--worker", is_flag=True, help="tune: run trials; without it, coordinate the search.")
def stage(name: str, file: Path, worker: bool) -> None:
    """Run one stage; what a container runs."""
    from jobs.cli.stage import run_stage

    run_stage(name, file, worker)


@cli.command()
@click.argument("study", type=click.Path(path_type=Path), metavar="[STUDY.yaml]", required=False)
@SET
@WORKDIR
@click.option("--why", metavar="STAGE", help="Say which part of a stage's key changed since it was last committed.")
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
    """Say where the study stands that was run last; with STUDY.yaml or --set, what of it would run; with --release, a cluster's."""
    if release is not None:
        if study or sets or workdir:
            raise click.UsageError(
                "--release goes without STUDY.yaml, --set and --workdir: the release has its own study."
            )
        from jobs.cli.release import run_in_control

        sys.exit(run_in_control(release, namespace, _given(status=True, why=why, json=as_json)))
    from jobs.cli.status import status as describe

    click.echo(describe(study, sets, workdir, why, as_json))


@cli.command()
@WORKDIR
@RELEASE
@NAMESPACE
@JSON
def report(workdir: Path | None, release: str | None, namespace: str | None, as_json: bool) -> None:
    """Fetch the study's report and print the path of its page (or, with --json, its results)."""
    if release is not None:
        from jobs.cli.release import fetch
        from shared.errors import ConfigError
        from shared.names import checked_part

        folder = workdir or Path("work") / checked_part(release, "--release", ConfigError)
        page = fetch(release, namespace, folder / "report")
        click.echo((Path(page).parent / "results.json").read_text() if as_json else page)
        return
    from jobs.cli.report import print_report

    click.echo(print_report(workdir, as_json))


EXPERIMENT = click.option("--experiment", metavar="NAME", help="Of the study; all of them where none is named.")
SEEDS = click.option("--seeds", type=click.IntRange(min=1), help="Repetitions an experiment [the study's final.seeds].")
PARAMETERS = click.option(
    "--params",
    default="best",
    show_default=True,
    metavar="best|FILE",
    help="Best found so far, or a file with values by path.",
)


@cli.group()
def submit() -> None:
    """Have a part of a release's study done now."""


@submit.command("final")
@click.option("--release", metavar="NAME", required=True, help="The Helm release.")
@NAMESPACE
@EXPERIMENT
@SEEDS
@PARAMETERS
@JSON
def submit_final(
    release: str, namespace: str | None, experiment: str | None, seeds: int | None, params: str, as_json: bool
) -> None:
    """Train with the best parameters found so far, as Jobs of the release; follow their logs and print the metrics."""
    import json

    from jobs.cli.release import parameters_of, run_in_control

    found = parameters_of(params)
    arguments = _given(submit_final=True, experiment=experiment, seeds=seeds, json=as_json)
    sys.exit(run_in_control(release, namespace, arguments + ([] if found is None else ["--params", json.dumps(found)])))


@cli.group(invoke_without_command=True)
@click.pass_context
def control(context: click.Context) -> None:
    """Run a release's study on its cluster: what the control Pod does; its subcommands are for commands run in that Pod."""
    if context.invoked_subcommand is None:
        from jobs.control import ControlPod

        ControlPod().run()


@control.command("status")
@click.option("--why", metavar="STAGE")
@JSON
def control_status(why: str | None, as_json: bool) -> None:
    """Say where the release's study stands."""
    from jobs.cli.release import status as describe

    click.echo(describe(why, as_json))


@control.command("report")
def control_report() -> None:
    """Print the report as a tar in base64."""
    from jobs.cli.release import report_archive

    click.echo(report_archive())


@control.command("submit-final")
@EXPERIMENT
@SEEDS
@PARAMETERS
@JSON
def control_submit_final(experiment: str | None, seeds: int | None, params: str, as_json: bool) -> None:
    """Train with the best parameters found so far."""
    from jobs.cli.release import parameters_of
    from jobs.cli.release import submit_final as submit_here

    click.echo(submit_here(experiment, seeds, parameters_of(params), as_json))


@cli.command()
@WORKDIR
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes any that is free."
)
def dashboard(workdir: Path | None, port: int) -> None:
    """Show the searches in Optuna's dashboard, on this machine only, until Ctrl-C."""
    from jobs.cli.dashboard import dashboard as serve

    serve(workdir, port, click.echo)


@cli.command()
@click.argument("what", type=click.Choice(["dataset", "generated"]))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--experiment", metavar="NAME", help="Whose generated images, where experiments differ in them.")
@WORKDIR
def export(what: str, out: Path, experiment: str | None, workdir: Path | None) -> None:
    """Write the data set or the generated images as a folder with a metadata.jsonl."""
    from jobs.cli.export import export_images

    click.echo(export_images(what, out, experiment, workdir))


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.argument("target", metavar="s3://BUCKET/PREFIX")
@JSON
def upload(folder: Path, target: str, as_json: bool) -> None:
    """Copy a data set, or weights, into a bucket for a cluster to read; started again it goes on, and it removes nothing."""
    from jobs.cli.upload import upload as send
    from shared.settings import Settings

    click.echo(send(folder, target, Settings.from_environment(), as_json))


@cli.command()
def schema() -> None:
    """Print the JSON schema of a study file."""
    from shared.config.json_schema import study_schema

    click.echo(study_schema())


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell's completion script: `source <(tailfill completion bash)`."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "tailfill", "_TAILFILL_COMPLETE").source())


@cli.group()
def tune() -> None:
    """Try the search machinery by itself."""


@tune.command()
@click.option("--workers", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--trials", type=click.IntRange(min=1), default=200, show_default=True)
@JSON
def simulate(workers: int, trials: int, as_json: bool) -> None:
    """Run a search with a trivial objective on the local PostgreSQL: exact count, connections, throughput, latency."""
    from jobs.cli.simulate import simulate_search

    click.echo(simulate_search(workers, trials, as_json))


def _given(**options: object) -> list[str]:
    """A command line of what was given: `status=True, why="tune"` → `status --why tune`, the command's name first."""
    (command, _), *others = options.items()
    words = [command.replace("_", "-")]
    for name, value in others:
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)] if value else []
    return words


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; every expected error becomes one line on stderr and its exit code."""
    from shared import errors, log

    given = sys.argv[1:] if arguments is None else arguments
    # read before click does, so that its own errors come in the same form
    style = "json" if "--log=json" in given or ("--log", "json") in itertools.pairwise(given) else "text"
    log.configure(style)
    logger: Any = log.Log("tailfill")
    try:
        cli.main(args=given, prog_name="tailfill", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(errors.STOPPED)
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
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        logger.error(f"{error.filename or 'a file'}: the disk is full; free some space and run again")
        sys.exit(errors.UNAVAILABLE)
    except KeyboardInterrupt:
        logger.error("stopped; the same command goes on from what was committed")
        sys.exit(errors.STOPPED)


if __name__ == "__main__":
    main()
