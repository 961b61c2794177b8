"""Places for results: a folder of this disk, and one of a bucket on a loopback S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from sweep_runs import BUCKET_ENV

from vitbench.storage.place import Place


@pytest.fixture(scope="package")
def server() -> Iterator[str]:
    """An S3 server; its address."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in BUCKET_ENV.items():
            patch.setenv(key, value)
        made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        made.start()
        address, port = made.get_host_and_port()
        yield f"{address}:{port}"
        made.stop()


@pytest.fixture
def endpoint(server: str) -> str:
    """The query that leads to the server, which has a bucket `results`.

    It is made for each test: the server lives in this process, where `mock_aws` empties it.
    """
    client = boto3.client("s3", endpoint_url=f"http://{server}", region_name="us-east-1")
    client.create_bucket(Bucket="results")
    return f"?scheme=http&endpoint_override={server}&region=us-east-1"


@pytest.fixture
def bucket(endpoint: str, request: pytest.FixtureRequest) -> Place:
    """A folder of the bucket for one test."""
    return Place.bucket(f"s3://results/{request.node.originalname}{endpoint}")


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder on a file system and one in a bucket: everything holds for both."""
    if request.param == "folder":
        return Place(str(tmp_path / "with a space"))
    bucket: Place = request.getfixturevalue("bucket")
    return bucket
