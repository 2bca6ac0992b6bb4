"""Requests and answers of `/v1/intent` and `/v1/catalogs`, as they go over the wire."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_MESSAGES = 32
"""Most messages of a request."""

Lines = Annotated[list[str], Field(description="Product lines, each once.")]


class IntentRequest(BaseModel):
    """A shopper's message or several, and the products that they can be about."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "example": {
                "catalog": ["Butter (250g pack)", "Ground Beef (500g pack)"],
                "message": "please put 2 packs of butter in my cart",
            }
        },
    )

    catalog: Lines | None = None
    catalog_id: Annotated[
        str | None, Field(description="Instead of `catalog`: one that was registered.")
    ] = None
    message: Annotated[str | None, Field(description="The shopper's words.")] = None
    messages: Annotated[
        list[str] | None,
        Field(
            min_length=1,
            max_length=MAX_MESSAGES,
            description="Instead of `message`: several, each answered for itself.",
        ),
    ] = None


class IntentResponse(BaseModel):
    """The answer; `product` is a line of the catalog, verbatim."""

    action: Annotated[str, Field(description="`add` or `remove`.")]
    product: str
    quantity: Annotated[int, Field(ge=1)]
    probability: Annotated[
        float, Field(description="The model's share for this answer among those of the catalog.")
    ]
    latency_sec: Annotated[float, Field(description="From the whole request read to the answer.")]
    prompt_tokens: int
    cached_tokens: Annotated[
        int, Field(description="Of the prompt, which were computed before, for the same catalog.")
    ]
    passes: Annotated[int, Field(description="Forward passes of the model.")]


class IntentResponses(BaseModel):
    """The answers to several messages, in their order."""

    answers: list[IntentResponse]


class CatalogRequest(BaseModel):
    """A catalog to be asked about by its name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    catalog: Lines


class CatalogResponse(BaseModel):
    """A registered catalog."""

    id: str
    catalog: list[str]
