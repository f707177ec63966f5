from __future__ import annotations

import io
import os
import random
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.jobs import packaging
from airflow_provider_ray.client.jobs.packaging import build, files


def tree(root: Path, *names: str, **content: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.get(name, name))
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(root: Path, excludes: Any = ()) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files(root, excludes)]


def archive(body: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(body))


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    listed = ["main.py", "pkg/__init__.py", "pkg/b.py", "pkg/a.py", "data/é.txt", "a-b/c", "a/c"]
    first = build(tree(tmp_path / "1", *listed))
    shuffled = tree(tmp_path / "2", *reversed(listed))
    for number, path in enumerate(sorted(shuffled.rglob("*"))):
        os.utime(path, (number * 10_000, number * 10_000))
    (shuffled / "pkg/a.py").chmod(0o600)
    assert build(shuffled) == first
    assert first.uri.startswith("gcs://airflow_")
    assert first.uri.endswith(".zip")


def test_other_content_gives_another_name(tmp_path: Path) -> None:
    root = tree(tmp_path, "main.py", "other.py")
    seen = {build(root).uri}
    write(root / "main.py", "changed")
    seen.add(build(root).uri)
    (root / "main.py").rename(root / "renamed.py")
    seen.add(build(root).uri)
    (root / "other.py").chmod(0o755)
    seen.add(build(root).uri)
    (root / "empty").mkdir()
    seen.add(build(root).uri)
    assert len(seen) == 5


def test_content_and_the_executable_bit_survive(tmp_path: Path) -> None:
    root = tree(tmp_path, "run.sh", "pkg/data.bin")
    (root / "run.sh").chmod(0o700)
    (root / "pkg/data.bin").write_bytes(bytes(range(256)) * 10_000)
    zipped = archive(build(root).body)
    assert zipped.testzip() is None
    assert zipped.read("pkg/data.bin") == bytes(range(256)) * 10_000
    modes = {entry.filename: stat.filemode(entry.external_attr >> 16) for entry in zipped.infolist()}
    assert modes == {"run.sh": "-rwxr-xr-x", "pkg/data.bin": "-rw-r--r--"}


def test_ignore_files_of_every_level(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "main.py", "debug.log", "build/x", "sub/build/y", "sub/keep.py", "sub/drop.csv", "sub/deep/drop.csv",
        "other/drop.csv", "sub/deep/secret", "notes.md", "important.log",
    )  # fmt: skip
    write(root / ".gitignore", "# comment\n\n*.log\n!important.log\n/build/\n")
    write(root / ".rayignore", "notes.md\n")
    write(root / "sub/.gitignore", "*.csv\n")
    write(root / "sub/deep/.rayignore", "/secret\n")
    kept = [".gitignore", ".rayignore", "important.log", "main.py", "other/drop.csv", "sub/.gitignore"]
    kept += ["sub/build/y", "sub/deep/.rayignore", "sub/keep.py"]
    assert names(root) == kept


def test_a_file_that_is_kept_of_a_folder_whose_content_is_not(tmp_path: Path) -> None:
    root = tree(tmp_path, "main.py", "data/keep.csv", "data/drop.csv", "data/deep/keep.csv")
    write(root / ".gitignore", "data/**\n!data/keep.csv\n")
    assert names(root) == [".gitignore", "data/keep.csv", "main.py"]


def test_a_list_of_what_is_kept(tmp_path: Path) -> None:
    root = tree(tmp_path, "main.py", "notes.md", "sub/a.py", "sub/a.txt", "sub/deep/b.py")
    write(root / ".rayignore", "*\n!*/\n!*.py\n")
    assert names(root) == ["main.py", "sub/a.py", "sub/deep/b.py"]


def test_marks_of_windows_in_an_ignore_file(tmp_path: Path) -> None:
    root = tree(tmp_path, "main.py", "first.log", "second.csv")
    (root / ".gitignore").write_bytes(b"\xef\xbb\xbf*.log\r\n*.csv\r\n")
    assert names(root) == [".gitignore", "main.py"]


def test_empty_folders_are_shipped(tmp_path: Path) -> None:
    root = tree(tmp_path / "job", "main.py", "full/a.py", "ignored/a.log")
    for folder in ("out", "deep/er", "left_out", "__pycache__"):
        (root / folder).mkdir(parents=True)
    write(root / ".gitignore", "*.log\n/left_out/\n")
    zipped = archive(build(root).body)
    assert zipped.namelist() == [".gitignore", "deep/er/", "full/a.py", "main.py", "out/"]
    zipped.extractall(tmp_path / "cluster")
    assert (tmp_path / "cluster/out").is_dir()
    assert stat.S_IMODE((tmp_path / "cluster/deep/er").stat().st_mode) & 0o700 == 0o700


def test_excludes_in_the_manner_of_gitignore(tmp_path: Path) -> None:
    root = tree(tmp_path, "main.py", "a/x.csv", "a/b/x.csv", "data/big", "a/data/small", "x.csv")
    assert names(root, ["*.csv", "/data", "!x.csv"]) == ["a/b/x.csv", "a/data/small", "a/x.csv", "main.py", "x.csv"]
    assert names(root, ["a/**/x.csv", "data/"]) == ["main.py", "x.csv"]


def test_repositories_and_virtual_environments_stay_out(tmp_path: Path) -> None:
    root = tree(tmp_path, "main.py", ".git/config", "sub/.git/config", ".venv/bin/python", "venv/lib/x", "env/lib/x")
    tree(root, "env/pyvenv.cfg", "pkg/__pycache__/a.pyc", "pkg/a.py", "environment/a.py", ".gitattributes")
    assert names(root) == [".gitattributes", "environment/a.py", "main.py", "pkg/a.py"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    shared = tree(tmp_path / "shared", "lib.py")
    root = tree(tmp_path / "root", "main.py", "pkg/a.py")
    (root / "lib").symlink_to(shared)
    (root / "alias.py").symlink_to(root / "main.py")
    (root / "pkg/up").symlink_to(root)
    (root / "pkg/self").symlink_to(root / "pkg")
    (shared / "back").symlink_to(root)
    (root / "broken").symlink_to(root / "nowhere")
    (root / "eats").symlink_to(root / "eats")
    os.mkfifo(root / "pipe")
    assert names(root) == ["alias.py", "lib/lib.py", "main.py", "pkg/a.py"]
    assert archive(build(root).body).read("alias.py") == b"main.py"


def test_a_zip_is_taken_as_it_is(tmp_path: Path) -> None:
    given = tmp_path / "given.zip"
    with zipfile.ZipFile(given, "w") as made:
        made.writestr("main.py", "print()")
    assert build(given).body == given.read_bytes()
    assert build(str(given)).uri == build(given).uri


def test_an_empty_directory_is_an_empty_zip(tmp_path: Path) -> None:
    assert archive(build(tmp_path).body).namelist() == []


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_what_is_no_directory_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "file":
        path.write_text("no zip")
    if kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RayConfigError, match=r"expected an existing directory or zip file") as caught:
        build(path)
    assert caught.value.field == "runtime_env['working_dir']"
    assert str(path) in str(caught.value)


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tree(tmp_path / "job", "main.py")
    assert build("~/job") == build(tmp_path / "job")


@pytest.mark.parametrize("excludes", ["*.csv", [1], {"a": 1}, 5, ["ok", None]])
def test_excludes_that_are_no_patterns(tmp_path: Path, excludes: Any) -> None:
    with pytest.raises(RayConfigError, match=r"expected a list of patterns") as caught:
        build(tmp_path, excludes)
    assert caught.value.field == "runtime_env['excludes']"


def test_a_broken_pattern_is_named(tmp_path: Path) -> None:
    with pytest.raises(RayConfigError, match=r"'!'"):
        build(tmp_path, ["!"])
    write(tmp_path / "sub/.gitignore", "!\n")
    with pytest.raises(RayConfigError, match=r"sub/\.gitignore"):
        build(tmp_path)


def test_ignore_files_need_not_be_utf8(tmp_path: Path) -> None:
    tree(tmp_path, "main.py", "drop.log")
    (tmp_path / ".gitignore").write_bytes(b"# gr\xfc\xdfe\n*.log\n")
    assert names(tmp_path) == [".gitignore", "main.py"]


def test_a_name_that_no_zip_can_hold(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"gr\xfc\xdfe.py")).write_text("")
    with pytest.raises(RayConfigError, match=r"the file name 'gr.*; expected names in UTF-8"):
        build(tmp_path)


def test_too_large_a_directory_names_the_largest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "PACKAGE_LIMIT_BYTES", 1024 * 1024)
    (tmp_path / "zeros").write_bytes(bytes(10 * 1024 * 1024))
    build(tmp_path)
    for size in (1, 2, 3, 4, 5, 6):
        (tmp_path / f"noise-{size}").write_bytes(random.Random(size).randbytes(size * 40_000 + 100_000))
    with pytest.raises(RayConfigError) as caught:
        build(tmp_path)
    said = str(caught.value)
    assert [said.index(f"noise-{size} (0.") for size in (6, 5, 4, 3, 2)] == sorted(
        said.index(f"noise-{size} (0.") for size in (6, 5, 4, 3, 2)
    )
    assert "noise-1" not in said
    assert "zeros" not in said
    assert f"{tmp_path} with at least 1.4 MiB zipped" in said
    assert ".rayignore or excludes" in said


def test_the_limit_is_rays_own() -> None:
    assert packaging.PACKAGE_LIMIT_BYTES == 104_857_600


def test_the_last_byte_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(build(tree(tmp_path, "main.py")).body)
    monkeypatch.setattr(packaging, "PACKAGE_LIMIT_BYTES", size)
    build(tmp_path)
    monkeypatch.setattr(packaging, "PACKAGE_LIMIT_BYTES", size - 1)
    with pytest.raises(RayConfigError, match=r"largest files: main\.py"):
        build(tmp_path)


def test_a_terabyte_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "PACKAGE_LIMIT_BYTES", 1024 * 1024)
    tree(tmp_path, "small")
    with (tmp_path / "huge").open("wb") as file:
        file.write(random.Random(1).randbytes(5 * 1024 * 1024))
        file.truncate(2**40)
    with pytest.raises(RayConfigError, match=r"largest files: huge \(\d\.\d MiB\)"):
        build(tmp_path)


def test_a_zip_over_the_limit_is_not_read(tmp_path: Path) -> None:
    given = tmp_path / "given.zip"
    with given.open("wb") as file:
        file.truncate(2**40)
        file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file, "w", allowZip64=True) as made:
            made.writestr("main.py", "")
    with pytest.raises(RayConfigError, match=r"given\.zip with at least"):
        build(given)
