"""Packs a local working_dir as a deterministic zip with a content-addressed name, uploaded once per cluster.

Files are selected as Ray selects them: ``.gitignore`` and ``.rayignore`` apply at every level, as do the ``excludes``
of the runtime_env; ``.git``, ``__pycache__`` and virtual environments are always left out, and empty folders are kept.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import stat
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.retry import retrying
from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.jobs.ignoring import Pattern, is_ignored, read_patterns

if TYPE_CHECKING:
    from airflow_provider_ray.client.api.ray_client import RayClient

# The dashboard's limit for request bodies (Ray 2.49-2.60); Ray's documentation says 512 MiB.
PACKAGE_LIMIT_BYTES = 100 * 1024 * 1024
LARGEST_FILES_NAMED = 5
# Folders that link to one another multiply; nobody submits this many files on purpose.
FILE_LIMIT = 20_000
COPY_BYTES = 1024 * 1024
IGNORE_FILES = (".gitignore", ".rayignore")
ALWAYS_LEFT_OUT = frozenset({".git", "__pycache__", ".venv", "venv"})
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Package:
    """A zip ready for upload.

    :param uri: ``gcs://`` name derived from the SHA-256 of the content.
    :param body: the zip.
    """

    uri: str
    body: bytes


async def upload_working_dir(client: RayClient, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Replace a local working_dir with the URI of its package on the cluster, without changing the caller's dict.

    :raises RayConfigError: when the directory does not exist or its package exceeds 100 MiB.
    """
    working_dir = runtime_env.get("working_dir")
    if working_dir is None or (isinstance(working_dir, str) and "://" in working_dir):
        return dict(runtime_env)
    if not isinstance(working_dir, (str, os.PathLike)) or not str(working_dir).strip():
        raise RayConfigError("runtime_env['working_dir']", repr(working_dir)[:200], "a path or a URI")
    try:
        package = await asyncio.to_thread(build, working_dir, runtime_env.get("excludes") or ())
    except OSError as error:
        expected = "files that the Airflow worker can read and that do not change while they are packed"
        raise RayConfigError("runtime_env['working_dir']", f"{str(working_dir)!r} ({error})", expected) from error
    async with _one_at_a_time(f"{client.config.url} {package.uri}"):
        # Always ask: Ray forgets packages, and asking keeps this one for another ten minutes.
        if not await retrying(lambda: client.cluster.has_package(package.uri)):
            await retrying(lambda: client.cluster.put_package(package.uri, package.body))
    rest = {key: value for key, value in runtime_env.items() if key != "excludes"}
    return {**rest, "working_dir": package.uri}


def build(working_dir: str | os.PathLike[str], excludes: Sequence[str] = ()) -> Package:
    """Zip a directory so that equal content gives equal bytes on any host and at any time.

    :param working_dir: a directory, or a zip file, which is used unchanged.
    :param excludes: patterns in ``.gitignore`` syntax, relative to the directory.
    :raises RayConfigError: see :func:`upload_working_dir`.
    """
    root = Path(working_dir).expanduser()
    if not isinstance(excludes, (list, tuple)) or not all(isinstance(pattern, str) for pattern in excludes):
        raise RayConfigError("runtime_env['excludes']", repr(excludes)[:200], "a list of patterns")
    if root.is_file() and zipfile.is_zipfile(root):
        size = root.stat().st_size
        if size > PACKAGE_LIMIT_BYTES:
            raise _too_large(root, size, {root.name: size})
        body, sizes = root.read_bytes(), {root.name: size}
    elif root.is_dir():
        body, sizes = _zip(root, excludes)
    else:
        expected = "an existing directory or zip file on the Airflow worker, or a URI"
        raise RayConfigError("runtime_env['working_dir']", repr(str(working_dir)), expected)
    if len(body) > PACKAGE_LIMIT_BYTES:
        raise _too_large(root, len(body), sizes)
    return Package(uri=f"gcs://airflow_{hashlib.sha256(body).hexdigest()}.zip", body=body)


def files(root: Path, excludes: Sequence[str] = ()) -> Iterator[Path]:
    """Files and empty folders of a working_dir in a fixed order; links are followed unless they form a cycle."""
    yield from _walk(root, root, [(root, _rules("runtime_env['excludes']", excludes))], {root.resolve()})


def _walk(root: Path, folder: Path, rules: list[tuple[Path, list[Pattern]]], above: set[Path]) -> Iterator[Path]:
    own = [folder / name for name in IGNORE_FILES if (folder / name).is_file()]
    rules = rules + [(folder, _rules(str(file), _lines(file))) for file in own]
    entries = sorted(folder.iterdir())
    if not entries and folder != root:
        yield folder
    for entry in entries:
        is_folder = entry.is_dir()
        if any(
            is_ignored(patterns, entry.relative_to(base).as_posix(), is_folder=is_folder) for base, patterns in rules
        ):
            continue
        if not is_folder:
            if entry.is_file():
                yield entry
        elif not _left_out(entry) and (target := entry.resolve()) not in above:
            yield from _walk(root, entry, rules, above | {target})


def _rules(name: str, patterns: Sequence[str]) -> list[Pattern]:
    try:
        return read_patterns(patterns)
    except ValueError as error:
        raise RayConfigError(name, str(error), "patterns in .gitignore syntax") from error


def _lines(file: Path) -> list[str]:
    """As git reads them: a byte order mark and the carriage returns of Windows do not count."""
    return [line.removesuffix("\r") for line in file.read_text("utf-8-sig", "surrogateescape").split("\n")]


def _left_out(folder: Path) -> bool:
    return folder.name in ALWAYS_LEFT_OUT or (folder / "pyvenv.cfg").is_file()


def _zip(root: Path, excludes: Sequence[str]) -> tuple[bytes, dict[str, int]]:
    sizes: dict[str, int] = {}
    with tempfile.TemporaryFile() as buffer:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for number, file in enumerate(files(root, excludes)):
                if number >= FILE_LIMIT:
                    raise _too_many(root, file)
                entry = _entry(file, file.relative_to(root).as_posix())
                if entry.is_dir():
                    archive.writestr(entry, b"")
                    continue
                before = buffer.tell()
                with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                    while (chunk := source.read(COPY_BYTES)) and buffer.tell() <= 2 * PACKAGE_LIMIT_BYTES:
                        target.write(chunk)
                sizes[entry.filename] = buffer.tell() - before
                if buffer.tell() > 2 * PACKAGE_LIMIT_BYTES:
                    raise _too_large(root, buffer.tell(), sizes)
        buffer.seek(0)
        return buffer.read(), sizes


def _entry(file: Path, name: str) -> zipfile.ZipInfo:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise RayConfigError("runtime_env['working_dir']", f"the file name {name!r}", "names in UTF-8") from error
    if file.is_dir():
        entry = zipfile.ZipInfo(f"{name}/", _EPOCH)
        entry.external_attr = (stat.S_IFDIR | 0o755) << 16
        return entry
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    executable = file.stat().st_mode & stat.S_IXUSR
    entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    return entry


def _too_many(root: Path, file: Path) -> RayConfigError:
    got = f"{root} with more than {FILE_LIMIT} files (counting files behind links), one of them {file}"
    return RayConfigError("runtime_env['working_dir']", got, "fewer files; leave some out with .rayignore or excludes")


def _too_large(root: Path, size: int, sizes: Mapping[str, int]) -> RayConfigError:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST_FILES_NAMED]
    named = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
    got = f"{root} with at least {size / 2**20:.1f} MiB zipped; largest files: {named}"
    expected = "at most 100 MiB; leave files out with .rayignore or excludes, or use a URI (s3://, gs://)"
    return RayConfigError("runtime_env['working_dir']", got, expected)


@asynccontextmanager
async def _one_at_a_time(what: str) -> AsyncIterator[None]:
    """Hold a lock shared by all processes of this user on this host; the operating system releases it after a crash."""
    folder = Path(tempfile.gettempdir()) / f"airflow-provider-ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = folder.lstat()
    if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.getuid():
        raise RayConfigError(
            "temporary directory", f"{folder}, owned by another user", "a directory owned by this user"
        )
    file = folder / f"{hashlib.sha256(what.encode()).hexdigest()}.lock"
    with open(os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600), "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(pacing.UPLOAD_LOCK_SECONDS)
        try:
            yield
        finally:
            # Closing the file is not enough: a process forked in the meantime has it open as well.
            fcntl.flock(lock, fcntl.LOCK_UN)
