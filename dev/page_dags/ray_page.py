"""Tasks with jobs and a picture, for tests of the page "Ray"."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, dag

from airflow_provider_ray.links import PICTURE_KEY, RayPictureLink
from airflow_provider_ray.operators.job import RaySubmitJobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

SIDE = 16


class DrawOperator(BaseOperator):
    """Pushes a picture as an XCom."""

    operator_extra_links = (RayPictureLink(),)

    def execute(self, context: Context) -> None:
        context["ti"].xcom_push(key=PICTURE_KEY, value=base64.b64encode(_square()).decode())


def _square() -> bytes:
    """Return a PNG of a single color."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x1f\x77\xb4" * SIDE) * SIDE)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@dag(dag_id="ray_page", schedule=None)
def ray_page() -> None:
    secrets: dict[str, Any] = {
        "entrypoint": "python train.py --key s3cret-entrypoint",
        "runtime_env": {"env_vars": {"KEY": "s3cret-env-var"}},
        "metadata": {"owner": "s3cret-metadata"},
    }
    RaySubmitJobOperator(task_id="train", conn_id="gpu_lab", wait_for_completion=False, **secrets)
    RaySubmitJobOperator.partial(task_id="shard", wait_for_completion=False, **secrets).expand(
        conn_id=["gpu_lab", "office"]
    )
    DrawOperator(task_id="draw")


ray_page()
