"""A process of its own for each variant and engine: its memory is measured apart from others'."""

from __future__ import annotations

import gc
import multiprocessing
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stages.bench_gpu.params import NF4, PLAIN
from stages.core.errors import CartwrightError, InputError, StageFailed
from stages.intent import rules
from stages.intent.decode import constrained, prompt_tokens
from stages.intent.rows import parse_row
from stages.intent.trie import AnswerTrie


class Worker:
    """The process of one variant on one engine, seen from the stage's own.

    Args:
        variant: as `Params.variants` has it.
        engine: `generate` or `graph`.
        folder: the model folder.

    Raises:
        InputError, StageFailed: whatever the process could not do.
    """

    def __init__(self, variant: str, engine: str, folder: Path) -> None:
        self.variant, self.engine = variant, engine
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, variant, engine, folder), daemon=True
        )
        self._process.start()
        theirs.close()

    def ready(self) -> None:
        """Waits until the process has loaded the model once, so that all kernels are there."""
        self._receive()

    def call(self, name: str, **values: Any) -> Any:
        """Has the process do one of `Session`'s things and gives what it returns."""
        self._connection.send((name, values))
        return self._receive()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()

    def _receive(self) -> Any:
        try:
            outcome, value = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            raise StageFailed(
                f"the process of {self.variant} on {self.engine} died with exit code "
                f"{self._process.exitcode}"
            ) from error
        if outcome == "bad input":
            raise InputError(value)
        if outcome == "failed":
            raise StageFailed(f"{self.variant} on {self.engine}: {value}")
        return value


def _serve(connection: Connection, variant: str, engine: str, folder: Path) -> None:
    """Does what is asked until the other end closes."""
    try:
        session = Session(variant, engine, folder)
        connection.send(("done", None))
        while True:
            name, values = connection.recv()
            connection.send(("done", getattr(session, name)(**values)))
    except EOFError:
        pass
    except InputError as error:
        connection.send(("bad input", str(error)))
    except CartwrightError as error:
        connection.send(("failed", str(error)))
    except Exception as error:
        traceback.print_exc()
        connection.send(("failed", f"{type(error).__name__}: {error}"))


class Session:
    """One model in this process, and what is asked of it.

    Args:
        variant: as `Params.variants` has it.
        engine: `generate` or `graph`.
        folder: the model folder.
    """

    def __init__(self, variant: str, engine: str, folder: Path) -> None:
        import torch

        from stages.bench_gpu.meter import Meter

        self.torch = torch
        self.variant, self.engine, self.folder = variant, engine, folder
        self.meter = Meter()
        self.model: Any = None
        self.batch: Any = None
        self.constrained: Any = None
        # Once for nothing: kernels are compiled and files are read before anything is timed.
        self._load()
        gc.collect()  # GPTQModel's models hold on to themselves
        self.torch.cuda.empty_cache()

    def load(self) -> dict[str, Any]:
        """Loads the model.

        Returns:
            `load_sec`, `kernel` (class of the attention's linear layers), `weights_bytes` and
            `steady_allocated_bytes`.
        """
        begin = time.perf_counter()
        loaded = self._load()
        self.torch.cuda.synchronize()
        load_sec = time.perf_counter() - begin
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        projection = self.model.model.layers[0].self_attn.q_proj
        return {
            "load_sec": load_sec,
            "kernel": type(projection).__name__,
            "dtype": str(self.model.get_input_embeddings().weight.dtype).removeprefix("torch."),
            "weights_bytes": self._weights_bytes(),
            "steady_allocated_bytes": self.torch.cuda.memory_allocated(),
            "steady_process_bytes": self.meter.process_bytes(),
        }

    def _load(self) -> Any:
        from stages.runtime import gptq, hf

        if self.variant in PLAIN:
            return hf.HFEngine.load(self.folder, dtype=PLAIN[self.variant], device="cuda")
        if self.variant == NF4:
            model = hf.load_nf4(
                self.folder, compute_dtype="float16", dtype="float16", device="cuda"
            )
            return hf.HFEngine(model, hf.load_tokenizer(self.folder))
        kernel = self.variant.partition(":")[2]
        # In the type of all others, so that nothing but the weights' encoding differs.
        return gptq.load(self.folder, kernel=kernel, device="cuda", dtype="float16")

    def _weights_bytes(self) -> int:
        """Bytes of all weights, shared ones counted once."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        seen = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
        return sum(storage.nbytes() for storage in seen.values())

    def begin(self, prompts: list[list[int]], new_tokens: int) -> None:
        """Gets ready for a batch, and runs it twice.

        Args:
            prompts: token ids, all of one length.
            new_tokens: tokens to decode for each.
        """
        self.torch.cuda.empty_cache()
        self.torch.cuda.reset_peak_memory_stats()
        self.prompts = self.torch.tensor(prompts, device="cuda")
        self.new_tokens = new_tokens
        if self.engine == "graph":
            from stages.runtime.graph import GraphBatch

            self.batch = GraphBatch(self.model, *self.prompts.shape, new_tokens)
        for _ in range(2):
            self._run_batch()

    def turn(self, count: int, max_sec: float) -> dict[str, Any]:
        """Times batches.

        Returns:
            `samples` of `sec` and `first_token_sec`, `energy_joules` of all together.
        """
        started, samples = time.perf_counter(), []
        energy = self.meter.energy_joules()
        while len(samples) < count and time.perf_counter() - started < max_sec:
            samples.append(self._run_batch())
        energy = self.meter.energy_joules() - energy
        if self.engine == "generate":
            # It does not say when it has the first token: it is asked for one, apart.
            for sample in samples:
                begin = time.perf_counter()
                self._generate(1)
                sample["first_token_sec"] = time.perf_counter() - begin
        return {"samples": samples, "energy_joules": energy}

    def end(self) -> dict[str, Any]:
        """Lets the batch go and says what memory it took, and the first sequence's tokens."""
        found = {
            "peak_allocated_bytes": self.torch.cuda.max_memory_allocated(),
            "peak_reserved_bytes": self.torch.cuda.max_memory_reserved(),
            "process_bytes": self.meter.process_bytes(),
            "first_tokens": self.found[0].tolist(),
        }
        self.batch = self.prompts = None
        self.torch.cuda.empty_cache()
        return found

    def _run_batch(self) -> dict[str, float]:
        begin = time.perf_counter()
        if self.engine == "generate":
            self.found = self._generate(self.new_tokens)
            return {"sec": time.perf_counter() - begin}
        self.batch.read(self.prompts)
        self.torch.cuda.synchronize()
        first = time.perf_counter()
        for _ in range(self.new_tokens - 1):
            self.batch.step()
        self.found = self.batch.tokens()
        return {"sec": time.perf_counter() - begin, "first_token_sec": first - begin}

    def _generate(self, new_tokens: int) -> Any:
        with self.torch.inference_mode():
            found = self.model.generate(
                input_ids=self.prompts,
                attention_mask=self.torch.ones_like(self.prompts),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.eos_token_id,
            )
        return found[:, self.prompts.shape[1] :].cpu()

    def answer(self, lines: Sequence[str], context_tokens: int) -> list[dict[str, Any]]:
        """Answers rows over their catalogs' tries, each a whole request: tokenizing, trie, passes.

        Returns:
            For each row `text`, `sec`, `prompt_tokens` and `passes`.
        """
        if self.constrained is None:
            from stages.runtime.graph import GraphEngine

            self.constrained = GraphEngine(self.model, self.tokenizer, context_tokens)
            gc.collect()
            gc.freeze()  # else a request now and then waits while the libraries are searched
        engine, samples = self.constrained, []
        for line in lines:
            row = parse_row(line)
            begin = time.perf_counter()
            prompt = prompt_tokens(engine, row.catalog, row.message)
            trie = AnswerTrie(engine.encode, row.catalog)
            found = constrained(engine, trie, prompt, rules.guess(row.message))
            text = found.answer.to_json()
            samples.append(
                {
                    "sec": time.perf_counter() - begin,
                    "text": text,
                    "prompt_tokens": found.prompt_tokens,
                    "passes": found.passes,
                }
            )
        return samples

    def profile(self, steps: int) -> list[dict[str, Any]]:
        """Where a decoding step's time goes: CUDA kernels by name, the longest first.

        Returns:
            `kernel`, `calls` and `sec`, each of one step.
        """
        from torch.profiler import ProfilerActivity
        from torch.profiler import profile as watch

        self.batch.read(self.prompts)
        self.torch.cuda.synchronize()
        with watch(activities=[ProfilerActivity.CUDA]) as seen:
            for _ in range(steps):
                self.batch.step()
            self.torch.cuda.synchronize()
        kernels = [
            {
                "kernel": event.key,
                "calls": event.count / steps,
                "sec": event.self_device_time_total / 1e6 / steps,
            }
            for event in seen.key_averages()
        ]
        return sorted(kernels, key=lambda kernel: -kernel["sec"])
