"""Mistakes in pipeline.yaml and profiles: one sentence with file, line and key, exit code 2."""

from __future__ import annotations

import pytest

from tests.core.toy import Project

PIPELINE = "stages/pipeline.yaml"
PROFILE = "stages/profiles/toy.yaml"


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        (PIPELINE, "stages:\n", "stags: 1\nstages:\n", ":1: stags: unknown key; the file has only"),
        (PIPELINE, "files:", "file:", ":5: stages.words.file: unknown key; a stage has: "),
        (PIPELINE, "{cpu: toy}\n    outputs: [w", "{cpu: ty}\n    outputs: [w",
         ":3: stages.words.image.cpu: unknown image 'ty'; images/Dockerfile has no such target"),
        (PIPELINE, "{cpu: toy}\n    outputs: [w", "{gpu: toy}\n    outputs: [w",
         ":3: stages.words.image: device cpu needs an image for cpu"),
        (PIPELINE, "{cpu: toy}\n    outputs: [w", "toy\n    outputs: [w",
         ":3: stages.words.image: must map names to names"),
        (PIPELINE, "[words.txt]", "words.txt", ":4: stages.words.outputs: must be a list of names"),
        (PIPELINE, "[words.txt]", "[1]", ":4: stages.words.outputs.0: must be a name, not 1"),
        (PIPELINE, "    files: [extra]", "    network: 1",
         ":5: stages.words.network: must be true or false"),
        (PIPELINE, "    files: [extra]", "    backends: [a]",
         ":5: stages.words.backends: must map backends to images"),
        (PIPELINE, "    files: [extra]", "    backends: {a: {}}",
         ":5: stages.words.backends.a: missing or empty"),
        (PIPELINE, "    files: [extra]", "    backends: {a: {tpu: toy}}",
         ":5: stages.words.backends.a.tpu: must be cpu or gpu"),
        (PIPELINE, "    files: [extra]", "    backends: {a: {gpu: ty}}",
         ":5: stages.words.backends.a.gpu: unknown image 'ty'"),
        (PIPELINE, "    files: [extra]", "    backends: {a: {gpu: toy}}",
         ": words.backends: words has no parameter 'backend'"),
        (PIPELINE, "    files: [extra]", "    fixed: [text]",
         ":5: stages.words.fixed: must map parameters to values"),
        (PIPELINE, "    files: [extra]", "    fixed: {txt: a}",
         ": words.fixed.txt: unknown parameter; the stage has: extra, seed, text"),
        (PIPELINE, "    files: [extra]", "    fixed: {seed: a}",
         ": words.fixed.seed: must be a whole number, not the str 'a'"),
        (PIPELINE, "    files: [extra]", "    device: tpu",
         ":5: stages.words.device: must be cpu, gpu or auto, not 'tpu'"),
        (PIPELINE, "{words: words}", "{words: wrds}",
         ":8: stages.count.inputs.words: no stage 'wrds'; there are: words, count, sum"),
        (PIPELINE, "{words: words}", "{words: sum}", "cycle, count -> sum -> count"),
        (PIPELINE, "  sum:\n", "  sum:\n    module: 1\n",
         ":11: stages.sum.module: must be a name, not 1"),
        (PIPELINE, "  sum:\n", "  sum:\n    module: smu\n", ": sum: cannot import stages.smu"),
        (PIPELINE, "    inputs: {words: words}", "    optional: {words: wrds}",
         ":8: stages.count.optional.words: no stage 'wrds'; there are: words, count, sum"),
        (PIPELINE, "    inputs: {words: words}", "    optional: [words]",
         ":8: stages.count.optional: must map names to names"),
        (PIPELINE, "    inputs: {words: words}", "    optional: {sum: sum}",
         "cycle, count -> sum -> count"),
        (PIPELINE, "    inputs: {count: count, words: words}",
         "    inputs: {count: count, words: words}\n    optional: {count: count}",
         ":13: stages.sum.optional.count: is one of the inputs already"),
        (PIPELINE, "{words: words}", "{words: words, words: words}",
         ":8: stages.count.inputs.words: given twice"),
        (PIPELINE, "    files: [extra]", "    files: [extr]",
         ": words.files: words has no text parameter 'extr'"),
        (PIPELINE, "stages:\n", "stages:\n\t", ":2: not valid YAML ("),
        (PROFILE, "sum: {}", "smu: {}", ":5: smu: no such stage; there are: words, count, sum"),
        (PROFILE, "seconds: 0.0", "secnds: 1",
         ":4: count.secnds: unknown parameter; the stage has: fail, scales, seconds, seed"),
        (PROFILE, "seconds: 0.0", "seconds: 'slow'",
         ":4: count.seconds: must be a number, not the str 'slow'"),
        (PROFILE, "seconds: 0.0", "seconds: -1", ":4: count.seconds: must be 0 or more, not -1.0"),
        (PROFILE, "seconds: 0.0", "seconds:", ":4: count.seconds: must be a number, not empty"),
        (PROFILE, "seconds: 0.0", "scales: [a]",
         ":4: count.scales: must be a number, not the str 'a'"),
        (PROFILE, "text: one two three", "text: 3", ":2: words.text: must be a string"),
        (PROFILE, "text: one two three", "seed: 1",
         ":1: words.text: required parameter is missing"),
        (PROFILE, "sum: {}", "sum: {verbose: 1}",
         ":5: sum.verbose: must be true or false, not the int 1"),
        (PROFILE, "sum: {}", "sum: [1]", ":5: sum: must map parameters to values"),
        (PROFILE, "text: one two three", "text: a\n  extra: nowhere.txt",
         ":3: words.extra: no file or folder "),
    ],
)  # fmt: skip
def test_one_sentence(project: Project, file: str, old: str, new: str, sentence: str) -> None:
    project.replace(file, old, new)
    done = project.run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {file}:")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
    assert not (project.root / "artifacts").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "count.seconds=x"], "--set count.seconds: must be a number, not the str 'x'"),
        (["--set", "count"], "--set count: must be stage.parameter=value"),
        (["--set", "cunt.seed=1"], "--set cunt.seed=1: no stage 'cunt'"),
        (["--until", "smu"], "no stage 'smu'; there are: words, count, sum"),
        (["--device", "tpu"], "--device must be cpu or gpu, not 'tpu'"),
    ],
)
def test_wrong_options(project: Project, words: list[str], sentence: str) -> None:
    done = project.run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")


def test_an_unknown_profile_names_the_known_ones(project: Project) -> None:
    done = project.invoke("run", "--profile", "tyo", "--local")
    assert done.returncode == 2
    assert done.stderr == "error: no profile 'tyo': neither a file nor one of toy\n"


def test_numbers_are_read_as_anyone_would(project: Project) -> None:
    project.replace("stages/profiles/toy.yaml", "0.0", "1e-3\n  scales: [1, 2.5e1]")
    assert project.run().returncode == 0
    manifest = next(m for m in project.manifests().values() if m["stage"] == "count")
    assert manifest["params"]["seconds"] == 0.001
    assert manifest["params"]["scales"] == [1.0, 25.0]
