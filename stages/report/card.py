"""MODEL_CARD.md, by the conventions of the Hugging Face hub.

Source: https://huggingface.co/docs/hub/model-cards, metadata with `model-index`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from stages.report import figures, markdown
from stages.report.params import Params
from stages.report.recommend import accuracy_of
from stages.report.schema import Report, Variant

_BODY = """\
# {name}

Reads a shop's catalog and a shopper's message, and answers with one cart action as JSON:
`{{"action": "remove", "product": "Ground Beef (500g pack)", "quantity": 4}}`.

{sentence}

## Intended use

- One message, one catalog, one action (`add` or `remove`) on one product, one quantity.
- Decoding over the token trie of the catalog, as Cartwright's service does it: the answer is then
  valid JSON and its product a line of the catalog, always.
- Input: the token BOS, which not every program adds by itself, then the text `Catalog:`, the lines,
  a blank line, `User:`, the message, a blank line, `Answer:`; the answer follows on the next line.

## Use it

{use}

## Limits

- It always answers. A message that asks for nothing, for two things or for a product that is not
  in the catalog still gets an action: read the probability that comes with the answer, and ask back
  when it is low.
- Languages: {languages}. Others were not trained or measured.
- {measured_on}
- Figures of speed and memory are of one machine: {machine}.

## Training data

{training_data}

## Results

{variants}

Exact match with the 95 % Wilson interval, answers constrained to the catalog; memory is the peak
resident size of the process.

{languages_table}
{comparison}
## Files

{files}

## How it was made

{lineage}

Run it again: `{rerun}`
"""


_USE = """\
With Cartwright's service, which gives the answers that the results below are of:

```bash
docker run --rm --read-only --tmpfs /tmp --cap-drop ALL -p 8080:8080 \\
  -v "$PWD/{file}:/model.gguf:ro" cartwright/serve
```

{elsewhere} nothing keeps answers to the catalog: {free}"""
_OLLAMA = """\
With Ollama, whose `Modelfile` here has the prompt's format and greedy decoding:
`ollama create intent -f Modelfile`. Give the whole text up to the message as the prompt, or the
catalog (`Catalog:` and its lines) as the system message and the message as the user's. There, and
in any other program,"""


def render(
    report: Report,
    params: Params,
    *,
    exported: Sequence[str] | None = None,
    has_merged: bool = False,
) -> str:
    """The card: YAML front matter, then what a user has to know.

    Args:
        report: What it tells.
        params: The report stage's.
        exported: Files that lie beside it, a Modelfile with them; None for those of the report.
        has_merged: Whether the transformers model lies beside it, too.
    """
    front = yaml.safe_dump(
        _front_matter(report, params, has_merged=has_merged),
        sort_keys=False, allow_unicode=True, width=100,
    )  # fmt: skip
    chosen = next(one for one in report["variants"] if one["recommended"])
    first = exported[0] if exported and chosen["file"] not in exported else chosen["file"]
    comparison = report["comparison"]
    body = _BODY.format(
        name=params.model_name,
        use=_USE.format(
            file=first,
            free=_free(chosen),
            elsewhere="In other programs" if exported is None else _OLLAMA,
        ),
        sentence=report["recommendation"]["sentence"],
        languages=", ".join(params.languages),
        machine=report["host"].get("cpu_model", "unknown"),
        measured_on=_measured_on(report),
        training_data=_training_data(report),
        variants=markdown.variants_table(report["variants"]),
        languages_table=markdown.languages_table(report["variants"]),
        comparison=f"\n{markdown.comparison_sentence(comparison)}\n" if comparison else "",
        files="\n".join(
            f"- `{one['file']}` ({figures.size(one['size_bytes'])})"
            + (f", SHA-256 `{one['sha256']}`" if one["sha256"] else "")
            for one in report["variants"]
            if one["file"] and (exported is None or one["file"] in exported)
        )
        + ("\n- the same model for transformers, `model.safetensors` and more" * has_merged),
        lineage=markdown.lineage_table(report["lineage"]),
        rerun=report["rerun"][0],
    )
    return f"---\n{front}---\n\n{body}"


def _free(variant: Variant) -> str:
    """What plain greedy decoding gets right."""
    free = variant["free"]
    if free is None:
        return "what they then get right was not measured."
    return (
        f"of {free['exact']['n']:,} answers decoded so, {figures.percent(free['exact']['value'])} "
        f"were right, {free['invalid_json']} no valid JSON and {free['invented_products']} of "
        "products that no line names."
    )


def _front_matter(report: Report, params: Params, *, has_merged: bool) -> dict[str, Any]:
    front: dict[str, Any] = {
        "license": params.license,
        "language": list(params.languages),
        "pipeline_tag": "text-generation",
        "library_name": "transformers" if has_merged else "gguf",
        "tags": ["gguf", "llama.cpp", "intent", "e-commerce", "cartwright"],
    }
    if params.base_model:
        front["base_model"] = params.base_model
        front["base_model_relation"] = "finetune"
    front["model-index"] = [
        {
            "name": params.model_name,
            "results": [
                _result(one, str(report["host"].get("cpu_model") or "unknown CPU"))
                for one in report["variants"]
                if one["engine"] == "llama.cpp"
            ],
        }
    ]
    return front


def _result(variant: Variant, machine: str) -> dict[str, Any]:
    accuracy = accuracy_of(variant)
    metrics = [
        {
            "type": "exact_match" if key == "exact" else "accuracy",
            "name": "Exact match" if key == "exact" else f"Accuracy of the {key}",
            "value": round(accuracy[key]["value"], 6),
        }
        for key in ("exact", "action", "product", "quantity")
    ]
    metrics += [
        {
            "type": "latency",
            "name": f"Median latency of a request on {machine}, seconds",
            "value": round(variant["latency_sec"]["p50"], 6),
        },
        {
            "type": "memory",
            "name": f"Peak resident memory on {machine}, bytes",
            "value": variant["peak_rss_bytes"],
        },
    ]
    return {
        "task": {"type": "text-generation", "name": f"Shopping intent ({variant['name']})"},
        "dataset": {
            "type": "cartwright-intent",
            "name": "Cartwright intents, held-out rows",
            "split": "test",
        },
        "metrics": metrics,
    }


def _is_generated(report: Report) -> bool:
    return bool(report["data"]) and report["data"].get("source") == "generator"


def _measured_on(report: Report) -> str:
    if not _is_generated(report):
        return "It was measured on held-out rows of its user's own dataset, on nothing else."
    return (
        "It was measured on rows of the same generator that made its training rows, with\n"
        "  message templates and products that training never saw, not on messages of real\n"
        "  shoppers. Expect less on those."
    )


def _training_data(report: Report) -> str:
    """Where the rows come from and how many there are."""
    if not report["data"]:
        return "Not recorded: this report was made from measurements alone."
    counts = ", ".join(f"{count:,} {split}" for split, count in report["data"]["rows"].items())
    if not _is_generated(report):
        return f"Rows imported from a file of the user's own: {counts}."
    step = next(one for one in report["lineage"] if one["stage"] == "data")
    return (
        "Rows made by this project's seeded generator; no text of a person and no other dataset\n"
        f"is in them: {counts} (seed {step['seed']}, key `{markdown.short(step['key'])}`)."
    )
