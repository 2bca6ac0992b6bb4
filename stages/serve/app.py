"""The HTTP side: routes, what surrounds them, and the page for a person."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path as File
from typing import Annotated

from fastapi import FastAPI, Path, Request, Response
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST

from stages.serve.asking import Ask
from stages.serve.body import BodyLimits
from stages.serve.catalogs import Catalogs
from stages.serve.keys import Keys
from stages.serve.metrics import Metrics, Observed
from stages.serve.model import as_plain
from stages.serve.openai import make_router
from stages.serve.refusals import Refused, add_refusals, documented
from stages.serve.requests import check_catalog
from stages.serve.service import NotReady, Service
from stages.serve.shed import Shed
from stages.serve.wire import (
    CatalogRequest,
    CatalogResponse,
    IntentRequest,
    IntentResponse,
    IntentResponses,
)

MAX_CATALOGS = 256
_PAGE = File(__file__).with_name("page.html")
# The page asks this service and nobody else; its script and style stand in it.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


def make_app(service: Service, model_name: str, keys: Sequence[str] = ()) -> FastAPI:
    """The application around a service; it starts the service and drains it at the end.

    Args:
        service: with the model.
        model_name: as OpenAI's clients call the model.
        keys: API keys; none for a service that everybody may ask.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.drain()
        await asyncio.to_thread(service.close)

    # Its pages at /docs and /redoc fetch nothing from elsewhere.
    app = FastAPIOffline(
        title="Cartwright", summary="Intent of a shopper's message.", lifespan=lifespan
    )
    metrics, catalogs = Metrics(service), Catalogs(MAX_CATALOGS)
    # The last added is the first that sees a request.
    app.add_middleware(BodyLimits)
    app.add_middleware(Shed, service=service)
    if keys:
        app.add_middleware(Keys, keys=keys)
    app.add_middleware(Observed, metrics=metrics)
    add_refusals(app)
    ask = Ask(service, metrics, model_name)
    app.include_router(make_router(ask))

    @app.post("/v1/intent", responses=documented(400, 401, 404, 413, 422, 429, 503))
    async def intent(body: IntentRequest, request: Request) -> IntentResponse | IntentResponses:
        """What the shopper wants: one action on one line of the catalog."""
        started_sec = time.perf_counter()
        lines = _lines(body, catalogs)
        messages = _messages(body)
        found = await ask.all([(lines, message) for message in messages], request)
        latency_sec = time.perf_counter() - started_sec
        answers = [IntentResponse.model_validate(as_plain(one, latency_sec)) for one in found]
        return answers[0] if body.messages is None else IntentResponses(answers=answers)

    @app.put(
        "/v1/catalogs/{name}",
        responses={
            201: {"model": CatalogResponse, "description": "Registered; 200 if exchanged."},
            **documented(400, 401, 409, 413, 422, 503),
        },
    )
    async def put_catalog(name: _Name, body: CatalogRequest, response: Response) -> CatalogResponse:
        """Registers a catalog for `catalog_id`, or exchanges it, until the service ends."""
        if service.model is None:
            raise NotReady
        check_catalog(body.catalog, service.model.max_catalog_lines)
        response.status_code = 201 if catalogs.put(name, body.catalog) else 200
        return CatalogResponse(id=name, catalog=body.catalog)

    @app.get("/v1/catalogs/{name}", responses=documented(401, 404))
    async def get_catalog(name: _Name) -> CatalogResponse:
        """A registered catalog."""
        return CatalogResponse(id=name, catalog=list(catalogs.get(name)))

    @app.delete("/v1/catalogs/{name}", status_code=204, responses=documented(401, 404))
    async def delete_catalog(name: _Name) -> None:
        """Forgets a registered catalog."""
        catalogs.delete(name)

    @app.get("/metrics", response_class=Response)
    async def figures() -> Response:
        """The service's figures, for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers=_PAGE_HEADERS)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/ready", responses=documented(503))
    async def ready() -> dict[str, str]:
        """The model has answered its golden request."""
        if not service.ready:
            raise NotReady
        return {"status": "ready"}

    return app


def _lines(body: IntentRequest, catalogs: Catalogs) -> Sequence[str]:
    if body.catalog is not None and body.catalog_id is None:
        return body.catalog
    if body.catalog_id is not None and body.catalog is None:
        return catalogs.get(body.catalog_id)
    raise Refused(422, "catalog: give either catalog or catalog_id", "catalog")


def _messages(body: IntentRequest) -> list[str]:
    if body.message is not None and body.messages is None:
        return [body.message]
    if body.messages is not None and body.message is None:
        return body.messages
    raise Refused(422, "message: give either message or messages", "message")
