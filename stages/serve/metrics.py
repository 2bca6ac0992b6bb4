"""What the service did so far, as Prometheus reads it; and one line of log a request."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.serve.keys import OPEN_PATHS
from stages.serve.service import Service
from stages.serve.shed import ASKING_PATHS

_LATENCY_SEC = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD")
_PASSES = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20)


class Metrics:
    """The service's figures.

    Args:
        service: asked for its state when somebody reads the figures.
    """

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "cartwright_requests",
            "Requests answered or refused.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.latency = Histogram(
            "cartwright_request_duration_seconds",
            "From a request's first byte to the end of its answer.",
            ("route",),
            buckets=_LATENCY_SEC,
            registry=self._registry,
        )
        self.passes = Histogram(
            "cartwright_answer_passes",
            "Passes of the model that an answer took part in.",
            buckets=_PASSES,
            registry=self._registry,
        )
        self._registry.register(_State(service))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _State(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service, model = self._service, self._service.model
        yield GaugeMetricFamily("cartwright_ready", "1 if requests are taken.", int(service.ready))
        yield GaugeMetricFamily(
            "cartwright_queue_requests", "Requests waiting or in work.", service.waiting
        )
        yield GaugeMetricFamily(
            "cartwright_queue_limit_requests", "Most that may be.", service.max_waiting
        )
        if model is None:
            return
        counts = model.scheduler.counts
        yield CounterMetricFamily("cartwright_model_passes", "Passes of the model.", counts.passes)
        yield CounterMetricFamily(
            "cartwright_catalog_cache_hits", "Requests whose catalog was there.", counts.hits
        )
        yield CounterMetricFamily(
            "cartwright_catalog_cache_misses", "Requests whose catalog was computed.", counts.misses
        )
        yield GaugeMetricFamily(
            "cartwright_catalog_cache_entries", "Catalogs that are kept.", counts.kept
        )
        yield GaugeMetricFamily(
            "cartwright_kv_bytes",
            "Key-value state: the cache, and the catalogs that are kept.",
            model.cache_bytes + counts.kept_bytes,
        )
        yield GaugeMetricFamily("cartwright_kv_limit_bytes", "Its bound.", model.kv_bytes)


class Observed:
    """Counts and times requests, and logs one line for each but probes."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_sec = time.perf_counter()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500
            raise
        finally:
            self._note(scope, status, time.perf_counter() - started_sec)

    def _note(self, scope: Scope, status: int, took_sec: float) -> None:
        # Names of the client's own making would make series without end.
        refused_early = scope["path"] if scope["path"] in ASKING_PATHS else "none"
        route = getattr(scope.get("route"), "path", refused_early)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, str(status or "dropped")).inc()
        self._metrics.latency.labels(route).observe(took_sec)
        if scope["path"] in (*OPEN_PATHS, "/metrics"):
            return
        note = scope.get("state", {}).get("note", "")
        path = scope["path"].encode("unicode_escape").decode("ascii")[:80]
        line = f"{scope['method']} {path} {status or 'dropped'} {took_sec * 1e3:.1f}ms {note}"
        print(line.rstrip(), file=sys.stdout, flush=True)
