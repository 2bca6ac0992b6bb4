"""The commands of Cartwright: `invoke --list` names them, `invoke --help COMMAND` explains one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.tasks import task

from stages.core.errors import CartwrightError, InputError
from stages.host import settings, view
from stages.host.runs import EXIT_INTERRUPTED, Request

PROFILE_HELP = "a file below stages/profiles without its ending, or a path"
JSON_HELP = "print one JSON object on standard output; events go to standard error"
LOCAL_HELP = "run stages on this machine instead of in containers"
SET_HELP = "override a number of the profile, as stage.parameter=value; repeat for more"
MODEL_HELP = "a .gguf file, or a GGUF artifact by folder or key, instead of a profile's"


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A task that ends a known error with one sentence and its exit code."""

    @wraps(function)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except CartwrightError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            print("error: interrupted", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:  # The reader of the output, `head` for example, has enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return guarded


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


@task(help={"json_": JSON_HELP})
@command
def doctor(_context: Context, json_: bool = False) -> None:
    """Check what this machine has of what is needed, and say how to get the rest."""
    from stages.host.doctor import examine

    findings = examine()
    if json_:
        _print_json([vars(finding) for finding in findings])
    else:
        rows = [(f.name, f.state, f.detail, f.advice) for f in findings]
        print(view.columns(row[:3] for row in rows))
        print(*(f"\n{name}: {advice}" for name, _, _, advice in rows if advice), sep="")
    missing = [finding.name for finding in findings if finding.state == "missing"]
    if missing:
        raise InputError(f"not ready: {', '.join(missing)}; the lines above say what to do")


@task(positional=["image"], help={"image": "trainer-cpu, converter, bench, serve ..."})
@command
def build(_context: Context, image: str) -> None:
    """Build one image, unless it is what a build would give."""
    _build([image])


@task(name="build-all", help={"cpu": "only the images that a machine without a GPU needs"})
@command
def build_all(_context: Context, cpu: bool = False) -> None:
    """Build every image that differs from its sources; CUDA images need no GPU to build."""
    from stages.host.images import CPU_IMAGES, IMAGES

    _build([*CPU_IMAGES] if cpu else [*IMAGES])


def _build(names: list[str]) -> None:
    from stages.host import images

    shown = view.choose(as_json=False)
    try:
        built = images.ensure(names, shown)
    finally:
        shown.end()
    print(view.columns((one.reference, f"{one.size_bytes / 1e6:,.0f} MB") for one in built))


@task(
    iterable=["set_"],
    help={
        "profile": PROFILE_HELP,
        "until": "last stage to run; all if not given",
        "stage": "the same as --until",
        "local": LOCAL_HELP,
        "device": "cpu or gpu, for every stage that can run on either",
        "set_": SET_HELP,
        "wait": "wait for another run on the same artifacts; --no-wait refuses instead",
        "json_": JSON_HELP,
    },
)
@command
def run(
    _context: Context,
    profile: str = "demo",
    until: str = "",
    stage: str = "",
    local: bool = False,
    device: str = "",
    set_: list[str] | None = None,
    wait: bool = True,
    json_: bool = False,
) -> None:
    """Run what is missing or out of date, and nothing else."""
    if until and stage and until != stage:
        raise InputError("--until and --stage are the same option; give one of them")
    _run(
        Request(
            profile=profile,
            until=until or stage,
            local=local,
            device=device,
            wait=wait,
            settings=tuple(set_ or ()),
        ),
        as_json=json_,
    )


def _run(request: Request, *, as_json: bool) -> None:
    from stages.host import inspection, runs

    steps = runs.run(request, view.choose(as_json=as_json))
    if as_json:
        _print_json(
            {"profile": Path(request.profile).stem, "stages": inspection.status_json(steps)}
        )
    else:
        print(view.columns(runs.summary(steps)))


@task
@command
def demo(_context: Context) -> None:
    """From nothing to a measured model on the CPU: images, data, training, GGUF, bench, report."""
    from stages.host import inspection

    _run(Request(profile="demo", until="report", device="cpu"), as_json=False)
    print(f"\nReport:      {inspection.find('report', 'demo') / 'report.html'}")
    print("Serve it:    invoke serve --profile demo")
    print('Ask it once: invoke predict --item "Milk (1 l)" --item "Bread" --message "two milks"')


@task(
    iterable=["set_"],
    help={
        "profile": PROFILE_HELP,
        "why": "every reason why a stage is not fresh",
        "local": LOCAL_HELP,
        "device": "cpu or gpu, as it would be given to run",
        "set_": SET_HELP,
        "json_": JSON_HELP,
    },
)
@command
def status(
    _context: Context,
    profile: str = "demo",
    why: bool = False,
    local: bool = False,
    device: str = "",
    set_: list[str] | None = None,
    json_: bool = False,
) -> None:
    """Say which stages are fresh, stale or missing; run nothing."""
    from stages.host import inspection

    steps = inspection.status(
        Request(profile=profile, local=local, device=device, settings=tuple(set_ or ())),
        view.choose(as_json=json_).say,
    )
    if json_:
        _print_json(inspection.status_json(steps))
    else:
        print(inspection.status_text(steps, why=why))


@task(
    positional=["artifact"],
    help={
        "artifact": "a stage, for its newest artifact, or an artifact's folder",
        "profile": PROFILE_HELP,
        "verify": "hash every file again and compare",
        "json_": JSON_HELP,
    },
)
@command
def show(
    _context: Context,
    artifact: str,
    profile: str = "demo",
    verify: bool = False,
    json_: bool = False,
) -> None:
    """Show one artifact: manifest, files, metrics, and its lineage back to the data."""
    from stages.host import inspection

    folder = inspection.find(artifact, profile)
    if verify:
        inspection.verify(folder)
    if json_:
        _print_json({**inspection.show_json(folder), "verified": verify})
        return
    print(inspection.show_text(folder))
    if verify:
        print("\nverified: every file has the recorded SHA-256")


@task(
    help={
        "profile": PROFILE_HELP,
        "stage": "the stage whose last log to print; the list of logs if not given",
    }
)
@command
def logs(_context: Context, profile: str = "demo", stage: str = "") -> None:
    """Print the last log of a stage, or list the logs of a profile."""
    from stages.host import inspection

    found = inspection.log_files(profile, stage)
    if stage:
        print(found[0].read_text(encoding="utf-8"), end="")
    else:
        print(*found, sep="\n")


@task(
    name="bench-cpu",
    iterable=["model", "set_"],
    help={
        "model": "a .gguf file, a folder of them, or a GGUF artifact's key; repeat for more",
        "dataset": "a JSONL file of your own rows; a small sample if not given",
        "baseline": "hf:FOLDER, a model for transformers to be measured beside them",
        "set_": "override a parameter of the bench, as latency_rows=50; repeat for more",
        "json_": JSON_HELP,
    },
)
@command
def bench_cpu(
    _context: Context,
    model: list[str],
    dataset: str = "",
    baseline: str = "",
    set_: list[str] | None = None,
    json_: bool = False,
) -> None:
    """Measure GGUF files on this CPU: accuracy, latency, throughput, memory; one image is built."""
    from stages.host import measure

    params, shown = measure.parameters(set_ or ()), view.choose(as_json=json_)
    code, folder, report_folder = measure.bench_cpu(
        model, dataset, baseline, params, shown, as_json=json_
    )
    if code != 0:
        sys.exit(code)
    if json_:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        _print_json({"folder": str(folder), "report": str(report_folder), "metrics": metrics})
    else:
        print(f"\n{measure.table(folder)}\n\nmetrics.json and samples.jsonl: {folder}")
        print(f"report.html: {report_folder}")


@task(
    help={
        "dataset": "a JSONL file of rows: prompt, completion, language",
        "model": MODEL_HELP,
        "profile": PROFILE_HELP,
        "endpoint_model": "a model behind OPENAI_BASE_URL to compare with, by its name",
        "json_": "print JSON instead of a table",
    }
)
@command
def evaluate(
    _context: Context,
    dataset: str,
    model: str = "",
    profile: str = "demo",
    endpoint_model: str = "",
    json_: bool = False,
) -> None:
    """Score a model's answers on your own rows: exact match, each field, each language."""
    from stages.host import measure, serving

    chosen = serving.choose_model(model, profile)
    shown = view.choose(as_json=json_)
    sys.exit(measure.evaluate(chosen, dataset, shown, as_json=json_, endpoint_model=endpoint_model))


@task(
    name="generate-rows",
    iterable=["catalog"],
    help={
        "out": "the JSONL file to make; a run that was ended goes on from what is beside it",
        "rows": "how many rows to ask for",
        "languages": "names with commas between",
        "model": "name of a model at OPENAI_BASE_URL; its only one if not given",
        "catalog": "a text file with your own products, one a line; repeat for more shops",
        "concurrency": "requests at once",
        "requests_per_minute": "a limit to keep; 0 for none",
        "seed": "of what is asked for",
    },
)
@command
def generate_rows(
    _context: Context,
    out: str,
    rows: int = 300,
    languages: str = "english,croatian,spanish",
    model: str = "",
    catalog: list[str] | None = None,
    concurrency: int = 8,
    requests_per_minute: int = 0,
    seed: int = 1,
) -> None:
    """Have a model behind OPENAI_BASE_URL write shopper messages; each is checked."""
    from stages.host import collecting

    options: dict[str, str | int] = {
        "rows": rows,
        "languages": languages,
        "model": model,
        "concurrency": concurrency,
        "requests-per-minute": requests_per_minute,
        "seed": seed,
    }
    sys.exit(collecting.generate(out, catalog or [], options, view.choose(as_json=False)))


@task(
    name="fetch-rows",
    positional=["dataset"],
    help={
        "dataset": "OWNER/NAME on the Hugging Face hub, or a folder with the same files",
        "out": "the JSONL file to make",
        "revision": "commit, branch or tag; the newest if not given",
        "file": "which of the dataset's files, if it has several",
    },
)
@command
def fetch_rows(
    _context: Context, dataset: str, out: str, revision: str = "", file: str = ""
) -> None:
    """Turn a hub dataset into a file of rows that a profile can name as data.import_path."""
    from stages.host import collecting

    sys.exit(collecting.fetch(dataset, out, revision, file, view.choose(as_json=False)))


@task(
    name="load-test",
    iterable=["set_"],
    help={
        "part": "compare (beside llama.cpp's servers), overload, soak, or all",
        "model": MODEL_HELP,
        "profile": PROFILE_HELP,
        "dataset": "a JSONL file of rows; the profile's test rows if not given",
        "out": "a folder for the results; one among the artifacts if not given",
        "set_": "another amount of work, as rounds=1 or flood_sec=5; repeat for more",
    },
)
@command
def load_test(
    _context: Context,
    part: str = "all",
    model: str = "",
    profile: str = "demo",
    dataset: str = "",
    out: str = "",
    set_: list[str] | None = None,
) -> None:
    """Put the service under load here: speed, overload, a long run; one image is built."""
    from stages.host import loadtest, measure, serving

    options = measure.parameters(set_ or ())
    chosen, rows = serving.choose_model(model, profile), loadtest.dataset_of(profile, dataset)
    code, folder = loadtest.run(part, chosen, rows, out, options, view.choose(as_json=False))
    if code != 0:
        sys.exit(code)
    print(f"load-test-*.json and samples: {folder}")


@task(
    iterable=["item"],
    help={
        "message": "the shopper's words",
        "catalog": "a text file, one product a line",
        "item": "a product, instead of a file; repeat for more",
        "model": MODEL_HELP,
        "profile": PROFILE_HELP,
        "details": "also print probability and latency",
    },
)
@command
def predict(
    _context: Context,
    message: str,
    catalog: str = "",
    item: list[str] | None = None,
    model: str = "",
    profile: str = "demo",
    details: bool = False,
) -> None:
    """Print the model's answer to one message over a catalog, as JSON."""
    from stages.host import serving

    if bool(catalog) == bool(item):
        raise InputError("give the catalog once: --catalog FILE, or --item for each product")
    chosen = serving.choose_model(model, profile)
    shown = view.choose(as_json=True)
    with serving.catalog_file(catalog, item or []) as file:
        sys.exit(serving.predict(chosen, file, message, shown, details=details))


@task(
    iterable=["compare"],
    help={
        "profile": PROFILE_HELP,
        "compare": "a report.json, its folder, a profile or a key, instead: give it twice, and the "
        "two are held against each other",
        "open_": "show it in the browser",
    },
)
@command
def report(
    _context: Context,
    profile: str = "demo",
    compare: list[str] | None = None,
    open_: bool = False,
) -> None:
    """Bring a profile's report up to date and say where it is, or compare two that are there."""
    from stages.host import inspection, reports

    if compare:
        code, folder = reports.compare(compare, view.choose(as_json=False))
        if code != 0:
            sys.exit(code)
        _show_page(folder / "comparison.html", open_=open_)
        return
    _run(Request(profile=profile, until="report"), as_json=False)
    _show_page(inspection.find("report", Path(profile).stem) / "report.html", open_=open_)


def _show_page(page: Path, *, open_: bool) -> None:
    print(f"\n{page}")
    if open_:
        webbrowser.open(page.as_uri())


@task(
    help={
        "out": "the folder to create",
        "profile": PROFILE_HELP,
        "report_": "a report's folder or key, instead of a profile's newest",
        "variants": "which files: names with commas between, or all; the recommended one if empty",
        "merged": "also the model for transformers: config, safetensors, tokenizer",
        "license_file": "text of the model's license, if that is not Apache-2.0",
    }
)
@command
def export(
    _context: Context,
    out: str,
    profile: str = "demo",
    report_: str = "",
    variants: str = "",
    merged: bool = False,
    license_file: str = "",
) -> None:
    """Make a folder that a hub upload takes as it is: model, card, Modelfile, hashes, license."""
    from stages.host import reports

    found = reports.find(report_ or profile, "--report" if report_ else "--profile")
    shown = view.choose(as_json=False)
    sys.exit(reports.export(found, out, variants, license_file, shown, merged=merged))


@task(
    help={
        "max_latency": "of a whole request, as 50ms or 0.2s",
        "percentile": "which latency that is: p50, p90 or p99",
        "max_memory": "peak of the process, as 300MB or 1.5GiB",
        "max_size": "of the file, as 800MB",
        "min_accuracy": "share of answers exactly right, as 0.98 or 98%",
        "profile": PROFILE_HELP,
        "report_": "a report.json, its folder or its artifact's key, instead of a profile's",
        "json_": "print JSON instead of sentences",
    }
)
@command
def recommend(
    _context: Context,
    max_latency: str = "",
    percentile: str = "p50",
    max_memory: str = "",
    max_size: str = "",
    min_accuracy: str = "",
    profile: str = "demo",
    report_: str = "",
    json_: bool = False,
) -> None:
    """Say which variant meets your limits and why, or what is in the way and by how much."""
    from stages.host import reports

    found = reports.find(report_ or profile, "--report" if report_ else "--profile")
    limits = {
        "max-latency": max_latency,
        "percentile": percentile,
        "max-memory": max_memory,
        "max-size": max_size,
        "min-accuracy": min_accuracy,
    }
    sys.exit(reports.recommend(found, limits, as_json=json_))


@task(
    help={
        "profile": PROFILE_HELP,
        "model": MODEL_HELP,
        "port": "port on 127.0.0.1; further replicas have the ports after it",
        "api_keys": "a file of API keys, one a line, of which every request must carry one",
        "replicas": "containers, which share the cores and the memory limit evenly",
    }
)
@command
def serve(
    _context: Context,
    profile: str = "demo",
    model: str = "",
    port: int = 8080,
    api_keys: str = "",
    replicas: int = 1,
) -> None:
    """Start the HTTP service on a profile's recommended model and wait until it answers."""
    from stages.host import service, serving

    chosen = serving.choose_model(model, profile)
    keys = serving.existing_file(api_keys, "--api-keys") if api_keys else None
    addresses = service.serve(chosen, port, keys, view.choose(as_json=False), replicas)
    body = json.dumps({"catalog": ["Milk (1 l)", "Bread (white)"], "message": "two milks please"})
    print(f"serving {chosen.name} on {', '.join(addresses)}; end it with `invoke stop`")
    given = " -H 'Authorization: Bearer KEY'" if keys else ""
    print(f"curl {addresses[0]}/v1/intent{given} -H 'Content-Type: application/json' -d '{body}'")


@task
@command
def stop(_context: Context) -> None:
    """Stop the HTTP service, all its replicas."""
    from stages.host import service

    names = service.stop()
    print(f"stopped {', '.join(names)}" if names else "nothing was running")


@task(
    help={
        "keep": "how many of the newest artifacts of each stage stay in any case",
        "dry_run": "only say what would be removed",
        "wait": "wait for a run that is going on; --no-wait refuses instead",
        "images": "also remove replaced images; --no-images leaves Docker alone",
    }
)
@command
def gc(
    _context: Context, keep: int = 1, dry_run: bool = False, wait: bool = True, images: bool = True
) -> None:
    """Remove artifacts that no profile leads to any more, and images that were replaced."""
    from stages.host.gc import collect

    freed = collect(keep=keep, dry_run=dry_run, wait=wait, with_docker=images)
    for note in freed.skipped:
        print(note)
    verb = "would remove" if dry_run else "removed"
    for folder, size_bytes in freed.folders:
        print(f"{verb} {folder} ({size_bytes / 1e6:,.1f} MB)")
    total_bytes = sum(size_bytes for _, size_bytes in freed.folders)
    print(
        f"{verb} {len(freed.folders)} artifacts, {total_bytes / 1e6:,.1f} MB; "
        f"{len(freed.images)} images"
    )


@task
@command
def lint(_context: Context) -> None:
    """Check the code: ruff, mypy and the import rules."""
    _lint()


@task(help={"docker": "also the tests that need Docker; --no-docker leaves them out"})
@command
def test(_context: Context, docker: bool = True) -> None:
    """Check the code and run every test; those with containers build the CPU images first."""
    _lint()
    _tool("pytest", *([] if docker else ["-m", "not docker and not gpu"]))


def _lint() -> None:
    _tool("ruff", "check")
    _tool("ruff", "format", "--check")
    _tool("mypy")
    _tool("lint-imports")


def _tool(*words: str) -> None:
    """Run a development tool from this environment; its exit code ends the command."""
    program = Path(sys.executable).with_name(words[0])
    if not program.exists():
        raise InputError(f"{words[0]} is not installed: pip install -r requirements-dev.lock")
    code = subprocess.run([str(program), *words[1:]], cwd=settings.ROOT, check=False).returncode
    if code != 0:
        sys.exit(code)
