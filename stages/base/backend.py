"""Fetching a model from the Hugging Face hub: the only code of the pipeline that downloads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import InputError
from stages.runtime.secret import read_secret

TOKEN_FILE = Path("/run/secrets/hf_token")


def fetch(repository: str, revision: str, patterns: Sequence[str], folder: Path) -> None:
    """Downloads a model's files at one commit.

    Raises:
        InputError: there is no network, no such model or commit, or it is gated and the token does
            not open it.
    """
    # The hub's client keeps caches beside its home, which must not be outside the output folder.
    os.environ.update(
        HF_HOME=str(folder / ".home"),
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
    )
    import httpx2
    from huggingface_hub import errors, snapshot_download

    named = f"hub:{repository} at revision {revision}"
    try:
        snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(patterns),
            local_dir=folder,
            token=read_secret(TOKEN_FILE) or False,
        )
    except errors.GatedRepoError:
        raise InputError(
            f"{named}: the model is gated and the token does not open it; accept its licence on "
            "the hub and give a token of that account in HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"{named}: there is no such model, or it is private; check the id, or give a token "
            "that may read it in HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"{named}: the model has no such commit; take one of its history"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx2.TransportError):
        raise InputError(
            f"{named}: the hub cannot be reached; connect this host, or fetch the model elsewhere "
            "and use source dir"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise InputError(f"{named}: the hub answered {status}; try again later") from None
