"""Models: what succeeded trained cycles trained."""

import os
from pathlib import Path

from miaod_client._downloads import DownloadProgress, download
from miaod_client._paging import DEFAULT_PAGE_SIZE, Pager
from miaod_client._resources.base import Resource, path_to, without_none
from miaod_client._transport import parse
from miaod_client._types import Model


class Models(Resource):
    """Trained detectors with their metrics: `client.models`."""

    def list(
        self,
        *,
        project: str | None = None,
        limit: int | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
    ) -> Pager[Model]:
        """Models, of one project or of all, newest first."""
        return Pager(
            self._transport,
            Model,
            "/models",
            params={"project": project},
            limit=limit,
            page_size=page_size,
        )

    def get(self, model_id: str) -> Model:
        """One model."""
        return self._transport.get(Model, path_to("models", model_id))

    def update(
        self, model_id: str, *, pinned: bool | None = None, note: str | None = None
    ) -> Model:
        """Pin a model, so that its weights are kept, or write a note on it."""
        response = self._transport.request(
            "PATCH", path_to("models", model_id), json=without_none(pinned=pinned, note=note)
        )
        return parse(Model, response)

    def delete(self, model_id: str) -> None:
        """Delete a model with its weights."""
        self._transport.request("DELETE", path_to("models", model_id))

    def download(
        self,
        model_id: str,
        *,
        to: str | os.PathLike[str],
        on_progress: DownloadProgress | None = None,
    ) -> Path:
        """Write its weights (safetensors) into a file or folder here.

        Raises:
            NotFoundError: there is no such model, or its weights were swept.
        """
        return download(
            self._transport,
            path_to("models", model_id, "checkpoint"),
            to=to,
            default_name=f"{model_id}.safetensors",
            on_progress=on_progress,
        )
