# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from artifacts import build, models, run_python, sha256
from conftest import identity, run_command

from tvm_model_hash import files
from tvm_model_hash.artifact import record_io
from tvm_model_hash.checking import manifest
from tvm_model_hash.checking.manifest import SealedFile, read_seal, seal, verify_seal
from tvm_model_hash.checking.verdict import Status, check, check_consistent
from tvm_model_hash.errors import (
    ArtifactError,
    BrokenSealError,
    HashConflictError,
    ModelHashError,
    OutputError,
    SealError,
)
from tvm_model_hash.files import file_sha256, locked
from tvm_model_hash.model.digest import model_record
from tvm_model_hash.record import Record

RECORD = Record("0123456789abcdef" * 4, "a" * 64, "b" * 64)


@pytest.fixture(scope="session")
def built():
    return build()


@pytest.fixture
def deployment(built, tmp_path):
    """A directory as save() and export_library leave it, with a directory in it."""
    directory = tmp_path / "deployment"
    (directory / "data").mkdir(parents=True)
    for name in ("lib.so", "consts"):
        shutil.copy(built / "small" / name, directory)
    shutil.copy(built / "small/late.ro", directory / "code.ro")
    (directory / "hash.txt").write_text(sha256(models()["small"]))
    (directory / "data/labels.txt").write_text("cat\ndog\n")
    return directory


@pytest.fixture
def tiny(tmp_path):
    directory = tmp_path / "tiny"
    (directory / "b").mkdir(parents=True)
    (directory / "a").write_bytes(b"first")
    (directory / "b/c").write_bytes(b"")
    return directory


def sha256sum(directory):
    command = ["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def seal_with(directory, old, new):
    """Change the manifest, and write the digest that it then has to have."""
    body, last, _ = (directory / "SHA256SUMS").read_text().rpartition("# sha256 of")
    assert old in body
    body = body.replace(old, new)
    last += f" the lines above: {hashlib.sha256(body.encode()).hexdigest()}\n"
    (directory / "SHA256SUMS").write_text(body + last)


def test_the_manifest(tiny):
    assert seal(tiny) == str(tiny / "SHA256SUMS")
    body = (
        "# tvm-model-hash seal/1\n"
        "# record: none\n"
        "# 5 bytes:\n"
        f"{hashlib.sha256(b'first').hexdigest()}  a\n"
        "# 0 bytes:\n"
        f"{hashlib.sha256(b'').hexdigest()}  b/c\n"
    )
    digest = hashlib.sha256(body.encode()).hexdigest()
    expected = f"{body}# sha256 of the lines above: {digest}\n"
    assert (tiny / "SHA256SUMS").read_bytes() == expected.encode()


def test_a_deployment_is_sealed(deployment):
    seal(deployment)
    found = verify_seal(deployment)
    assert found == read_seal(deployment)
    assert identity(found.record) == model_record(models()["small"])
    names = ["code.ro", "consts", "data/labels.txt", "hash.txt", "lib.so"]
    assert found.files == tuple(
        SealedFile(
            name,
            (deployment / name).stat().st_size,
            hashlib.sha256((deployment / name).read_bytes()).hexdigest(),
        )
        for name in names
    )
    checked = sha256sum(deployment)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_seal_is_made_and_verified_without_tvm(deployment):
    code = """
import tvm_model_hash
tvm_model_hash.verify_seal  # imports the module of both
tvm_model_hash.seal(sys.argv[1])
print(tvm_model_hash.verify_seal(sys.argv[1]).record.model)
"""
    assert run_python(code, deployment) == f"{sha256(models()['small'])}\n"


def test_a_manifest_of_others_is_not_replaced(tiny):
    (tiny / "SHA256SUMS").write_text(f"{'0' * 64}  a\n")
    with pytest.raises(SealError, match="did not write; move it away"):
        seal(tiny)
    assert (tiny / "SHA256SUMS").read_text() == f"{'0' * 64}  a\n"


def test_unchanged_when_sealed_again(deployment):
    seal(deployment)
    first = (deployment / "SHA256SUMS").read_bytes()
    for path in sorted(deployment.glob("*o*")):  # the directory lists them in another order
        path.rename(path.with_suffix(".moved"))
        shutil.copy(path.with_suffix(".moved"), path)
        path.with_suffix(".moved").unlink()
    seal(deployment)
    assert (deployment / "SHA256SUMS").read_bytes() == first
    assert b"SHA256SUMS" not in first
    assert not list(deployment.glob(".*"))


def test_resealing_follows_the_files(tiny):
    seal(tiny)
    (tiny / "a").write_bytes(b"second")
    with pytest.raises(BrokenSealError):
        verify_seal(tiny)
    seal(tiny)
    verify_seal(tiny)


def test_a_manifest_further_down_is_a_file(tiny):
    seal(tiny / "b")
    seal(tiny)
    assert [file.name for file in verify_seal(tiny).files] == ["a", "b/SHA256SUMS", "b/c"]


def test_differences_are_named(deployment):
    seal(deployment)
    digest = hashlib.sha256(b"cat\ndog\n").hexdigest()
    (deployment / "data/labels.txt").write_text("dog\ncat\n")
    (deployment / "consts").unlink()
    (deployment / "data/more").mkdir()
    shutil.copy(deployment / "lib.so", deployment / "data/more/lib.so")
    with pytest.raises(BrokenSealError) as caught:
        verify_seal(deployment)
    assert caught.value.missing == ("consts",)
    assert caught.value.extra == ("data/more/lib.so",)
    assert caught.value.changed == ("data/labels.txt",)
    found = hashlib.sha256(b"dog\ncat\n").hexdigest()
    assert str(caught.value) == (
        f"the files in {str(deployment)!r} are not the ones that were sealed: 'consts' is missing; "
        f"'data/labels.txt' is changed: expected 8 bytes with SHA-256 {digest}, found 8 with "
        f"{found}; "
        "'data/more/lib.so' is not in the manifest"
    )


def test_a_wrong_size_is_a_change(tiny):
    seal(tiny)
    seal_with(tiny, "# 5 bytes", "# 6 bytes")
    with pytest.raises(BrokenSealError, match=r"expected 6 bytes .* found 5"):
        verify_seal(tiny)


def test_every_flipped_bit_is_found(tiny):
    seal(tiny)
    for name in ("SHA256SUMS", "a"):
        data = (tiny / name).read_bytes()
        for bit in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            (tiny / name).write_bytes(damaged)
            with pytest.raises(SealError):
                verify_seal(tiny)
        (tiny / name).write_bytes(data)
        verify_seal(tiny)


def test_a_flipped_bit_in_an_artifact_is_found(deployment):
    seal(deployment)
    for path in deployment.glob("*.*"):
        data = path.read_bytes()
        for bit in (0, 4 * len(data), 8 * len(data) - 1):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with pytest.raises(BrokenSealError) as caught:
                verify_seal(deployment)
            assert caught.value.changed == (path.name,)
            assert sha256sum(deployment).returncode == 1
        path.write_bytes(data)


@pytest.mark.parametrize(
    "name",
    ["a b", " a", "#a", "-a", "ä", "中", "a'b", "(a) = b", "--", "..a", "\u202ea", "null", "com10"],
)
def test_sha256sum_reads_the_names(tmp_path, name):
    (tmp_path / name).write_text(name)
    seal(tmp_path)
    verify_seal(tmp_path)
    checked = sha256sum(tmp_path)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    (tmp_path / name).write_text("other")
    assert sha256sum(tmp_path).returncode == 1


@pytest.mark.parametrize(
    "name",
    [
        *("a\\b", "a\nb", "a\rb", "a\tb", "\x1b[2J", "\x7f", "-", b"\xff"),
        # What Windows doesn't have, or takes for something else.
        *("a:b", "a*", "a?", 'a"', "a<b", "a>b", "a|b", "a ", "a.", "...", "NUL", "nul.txt"),
        *("Com1", "LPT9.tar.gz", "aux .c", "CON", "prn", "com²", "conin$"),
    ],
)
def test_a_name_that_no_manifest_can_hold_is_refused(tmp_path, name):
    (tmp_path / os.fsdecode(name)).write_text("")
    with pytest.raises(SealError, match="cannot stand in a manifest"):
        seal(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / os.fsdecode(name)).rename(tmp_path / "below" / os.fsdecode(name))
    if name != "-":  # which is a name for standard input only as it is
        with pytest.raises(SealError, match="cannot stand in a manifest"):
            seal(tmp_path)
    assert not (tmp_path / "SHA256SUMS").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "b/../a", "./a", "b//c", ".."])
def test_a_manifest_that_leads_elsewhere_is_refused(tiny, name):
    (tiny / "a").unlink()
    seal(tiny)
    seal_with(tiny, "  b/c\n", f"  {name}\n")
    with pytest.raises(SealError, match=f"the name '{name}' cannot stand in a manifest"):
        verify_seal(tiny)


@pytest.mark.parametrize("target", ["a", "b", "/etc/passwd", "nowhere"])
def test_a_symbolic_link_is_refused(tiny, target):
    seal(tiny)
    (tiny / "link").symlink_to(target)
    for use in (seal, verify_seal):
        with pytest.raises(SealError, match=r"'link' in .* is a symbolic link"):
            use(tiny)


def test_a_file_or_manifest_that_became_a_link_is_refused(tiny, tmp_path):
    seal(tiny)
    (tiny / "a").rename(tmp_path / "a")
    (tiny / "a").symlink_to(tmp_path / "a")
    with pytest.raises(SealError, match=r"'a' in .* is a symbolic link"):
        verify_seal(tiny)
    (tiny / "a").unlink()
    (tmp_path / "a").rename(tiny / "a")
    (tiny / "SHA256SUMS").rename(tmp_path / "sums")
    (tiny / "SHA256SUMS").symlink_to(tmp_path / "sums")
    with pytest.raises(SealError, match="it is a symbolic link"):
        verify_seal(tiny)


# --- directories that a store has made of symbolic links ---


@pytest.fixture
def stored(deployment, tmp_path):
    """A sealed deployment as a store shows it: every file is a link to one by another name."""
    seal(deployment)
    store, shown = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    store.mkdir()
    for path in [p for p in deployment.rglob("*") if p.is_file()]:
        blob = store / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        link = shown / path.relative_to(deployment)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return shown


def test_links_are_followed_for_who_asks_for_it(stored, deployment):
    with pytest.raises(SealError, match="is a symbolic link.*--follow-links"):
        verify_seal(stored)
    assert verify_seal(stored, follow_links=True) == verify_seal(deployment)
    assert verify_seal(stored, True, follow_links=True) == verify_seal(deployment)
    assert sha256sum(stored).returncode == 0
    for model, status in (("small", Status.MATCH), ("big", Status.MISMATCH)):
        verdict = check(models()[model], stored, follow_links=True)
        assert verdict.status is status
    assert check_consistent(stored, follow_links=True, sealed=True).status is Status.MATCH


def test_a_link_to_another_content_is_noticed(stored, tmp_path):
    (stored / "consts").unlink()
    (tmp_path / "other").write_bytes(b"other")
    (stored / "consts").symlink_to(tmp_path / "other")
    assert sha256sum(stored).returncode == 1
    with pytest.raises(BrokenSealError, match="'consts' is changed") as broken:
        verify_seal(stored, follow_links=True)
    assert broken.value.changed == ("consts",)
    assert check(models()["small"], stored, follow_links=True).status is Status.BROKEN_SEAL


@pytest.mark.parametrize("follow_links", [True, False])
def test_what_a_link_leads_to_is_sealed(follow_links, stored, deployment):
    (stored / "SHA256SUMS").unlink()
    if not follow_links:
        with pytest.raises(SealError, match="is a symbolic link.*follow_links=True"):
            seal(stored)
        assert not (stored / "SHA256SUMS").exists()
        return
    path = pathlib.Path(seal(stored, follow_links=True))
    assert path.read_bytes() == (deployment / "SHA256SUMS").read_bytes()
    assert sha256sum(stored).returncode == 0
    # The unsealed deployment too is read by its links.
    path.unlink()
    with pytest.raises(ArtifactError, match="is a symbolic link to .*--follow-links"):
        check(models()["small"], stored)
    verdict = check(models()["small"], stored, follow_links=True)
    assert (verdict.status, verdict.sealed) == (Status.MATCH, False)


def test_a_manifest_that_is_a_link_is_not_written_to(stored):
    with pytest.raises(ModelHashError, match="symbolic link"):
        seal(stored, follow_links=True)
    assert (stored / "SHA256SUMS").is_symlink()
    assert sha256sum(stored).returncode == 0


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("nowhere", "can't be followed .No such file"),
        ("link", "can't be followed .Too many"),
        ("/dev/null", "to what is no file"),
        ("..", "to what is no file"),
    ],
)
def test_a_link_to_no_file_is_never_listed(target, problem, tiny):
    (tiny / "link").symlink_to(target)
    with pytest.raises(SealError, match=f"'link' in .* is a symbolic link .*{problem}"):
        seal(tiny, follow_links=True)


def test_a_file_behind_a_link_that_changes_meanwhile_is_not_sealed(stored, monkeypatch):
    (stored / "SHA256SUMS").unlink()
    blob = (stored / "data/labels.txt").resolve()

    def read_parts(files):
        blob.write_bytes(blob.read_bytes() + b"bird\n")
        return parts(files)

    parts = manifest.read_parts
    monkeypatch.setattr(manifest, "read_parts", read_parts)
    with pytest.raises(SealError, match="'data/labels.txt' changed meanwhile"):
        seal(stored, follow_links=True)


def test_the_command_follows_links_when_told_to(stored, deployment, tmp_path):
    (tmp_path / "model.onnx").write_bytes(models()["small"].SerializeToString())
    assert run_command("check", "model.onnx", stored, cwd=tmp_path).returncode == 2
    found = run_command("check", "--follow-links", "model.onnx", stored, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (0, "match: same model\n")
    shown = run_command("show", stored, "--follow-links", cwd=tmp_path).stdout
    assert ": deployment, sealed\n" in shown
    (stored / "SHA256SUMS").unlink()
    assert run_command("seal", stored, cwd=tmp_path).returncode == 2
    assert run_command("seal", stored, "--follow-links", cwd=tmp_path).returncode == 0
    assert (stored / "SHA256SUMS").read_bytes() == (deployment / "SHA256SUMS").read_bytes()


def test_what_is_no_file_is_refused(tiny):
    os.mkfifo(tiny / "fifo")
    with pytest.raises(SealError, match=r"'fifo' in .* is neither file nor directory"):
        seal(tiny)


def test_there_has_to_be_something(tmp_path):
    with pytest.raises(SealError, match="there is no file in it"):
        seal(tmp_path)
    for use in (seal, verify_seal):
        with pytest.raises(SealError, match="No such file"):
            use(tmp_path / "none")
    with pytest.raises(SealError, match="there is no manifest to check by"):
        verify_seal(tmp_path)


def test_the_lines_of_a_manifest(tiny):
    seal(tiny)
    data = (tiny / "SHA256SUMS").read_text()
    found = {
        "": "it begins with ''",
        "x" + data: "it begins with 'x# tvm",
        data + "\n": "its last line is not",
        data[:-1]: "its last line is not",
        data[: data.index("# 0 bytes")]: "its last line is not",
    }
    for text, message in found.items():
        (tiny / "SHA256SUMS").write_text(text)
        with pytest.raises(SealError, match=message):
            verify_seal(tiny)
    changes = {
        ("# record: none\n", ""): "its second line is not the record's",
        ("# record: none", "# record: model-hash/1"): "has no field 'model'",
        ("# 5 bytes:\n", ""): "expected the lines of a file, found '",
        ("# 5 bytes", "# 05 bytes"): "not in the form",
        ("  b/c", "  A"): "not sorted",
        ("  b/c", "  a"): "not sorted, or one is listed twice",
        ("seal/1", "seal/2"): "it begins with '# tvm-model-hash seal/2', expected",
    }
    for (old, new), message in changes.items():
        (tiny / "SHA256SUMS").write_text(data)
        seal_with(tiny, old, new)
        with pytest.raises(SealError, match=message):
            verify_seal(tiny)


def test_files_of_different_models_are_not_sealed(deployment):
    seal(deployment)
    before = (deployment / "SHA256SUMS").read_bytes()
    record_io.write_record(deployment / "code.ro", RECORD, deployment / "other.ro")
    with pytest.raises(HashConflictError, match=r"'code\.ro' is of model .*'other\.ro' is of"):
        seal(deployment)
    assert (deployment / "SHA256SUMS").read_bytes() == before


def test_a_damaged_artifact_is_not_sealed(deployment):
    data = (deployment / "lib.so").read_bytes()
    (deployment / "lib.so").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="truncated"):
        seal(deployment)


def test_a_record_further_down_counts(built, tiny):
    for name in ("code.ro", "lib.so"):
        shutil.copy(built / "stock" / name, tiny / "b")
    record_io.write_record(tiny / "b/code.ro", RECORD)
    seal(tiny)
    assert verify_seal(tiny).record == RECORD


def test_an_incomplete_deployment_is_not_sealed(deployment):
    for name in ("consts", "lib.so"):
        (deployment / name).rename(deployment.parent / name)
        with pytest.raises(ArtifactError, match="is incomplete: 'code.ro'"):
            seal(deployment)
        (deployment.parent / name).rename(deployment / name)
    assert not (deployment / "SHA256SUMS").exists()


def test_a_file_that_is_no_part_breaks_no_seal(deployment):
    seal(deployment)
    (deployment / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (deployment / "notes.txt").write_text("on the second board since May")
    verify_seal(deployment)


def test_a_part_that_came_later_breaks_the_seal(built, deployment):
    seal(deployment)
    shutil.copy(built / "small/late.ro", deployment / "old.ro")
    with pytest.raises(BrokenSealError, match="'old.ro' is not in the manifest") as caught:
        verify_seal(deployment)
    assert caught.value.extra == ("old.ro",)


def test_a_temporary_is_neither_sealed_nor_an_obstacle(deployment):
    temporary = deployment / "data/.0123456789abcdef.tvm-model-hash-tmp"
    temporary.mkdir()
    (temporary / "code.ro").write_bytes((deployment / "code.ro").read_bytes()[:100])
    (temporary / "link").symlink_to("nowhere")
    seal(deployment)
    assert "tmp" not in (deployment / "SHA256SUMS").read_text()
    verify_seal(deployment)


def test_sealing_removes_what_a_killed_one_left(tiny):
    (tiny / ".0123456789abcdef.tvm-model-hash-tmp").write_text("# tvm-model-hash seal/1\n# rec")
    seal(tiny)
    assert sorted(path.name for path in tiny.iterdir()) == ["SHA256SUMS", "a", "b"]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda tiny: (tiny / "a").write_bytes(b"other"), "'a'"),
        (lambda tiny: os.truncate(tiny / "a", 1), "'a'"),
        (lambda tiny: (tiny / "new").write_text(""), "'new'"),
        (lambda tiny: (tiny / "a").unlink(), "'a'"),
        (lambda tiny: (tiny / "a").rename(tiny / "z"), "'a', 'z'"),
        (
            lambda tiny: pathlib.Path(shutil.copy2(tiny / "a", tiny.parent)).rename(tiny / "a"),
            "'a'",
        ),
    ],
    ids=["written", "cut", "added", "removed", "renamed", "replaced"],
)
def test_what_changes_while_it_is_sealed_is_an_error(tiny, monkeypatch, change, names):
    os.utime(tiny / "a", (0, 0))
    seal(tiny)
    before = (tiny / "SHA256SUMS").read_bytes()
    hashed = []

    def hash_and_change(path, **keywords):
        found = file_sha256(path, **keywords)
        hashed.append(path)
        if len(hashed) == 2:  # both
            change(tiny)
        return found

    monkeypatch.setattr(manifest, "file_sha256", hash_and_change)
    with pytest.raises(SealError, match=f"cannot seal '.*': {names} changed meanwhile"):
        seal(tiny)
    assert (tiny / "SHA256SUMS").read_bytes() == before
    assert not list(tiny.glob(".*"))


def test_sealers_wait_for_each_other(tiny):
    with locked(str(tiny)):
        other = subprocess.Popen(
            [sys.executable, "-c", "import sys, tvm_model_hash as t; t.seal(sys.argv[1])", tiny]
        )
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(2)
        assert not (tiny / "SHA256SUMS").exists()
    assert other.wait(60) == 0
    verify_seal(tiny)


def test_a_sealer_that_hangs_is_an_error_for_the_next(tiny, monkeypatch):
    monkeypatch.setattr(files, "_LOCK_SECONDS", 0.1)
    with locked(str(tiny)), pytest.raises(OutputError, match="another process has been writing"):
        seal(tiny)
    seal(tiny)


def test_sealers_at_once_leave_a_seal_that_holds(deployment):
    code = """
import sys, tvm_model_hash
for _ in range(20):
    tvm_model_hash.seal(sys.argv[1])
    tvm_model_hash.verify_seal(sys.argv[1])
"""
    sealers = [subprocess.Popen([sys.executable, "-c", code, deployment]) for _ in range(3)]
    assert [sealer.wait(120) for sealer in sealers] == [0, 0, 0]
    verify_seal(deployment)
    assert not list(deployment.rglob(".*"))


def test_a_manifest_that_cannot_be_written_is_an_error(tiny):
    (tiny / "SHA256SUMS").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        seal(tiny)
    assert sorted(path.name for path in tiny.iterdir()) == ["SHA256SUMS", "a", "b"]
    assert issubclass(OutputError, ModelHashError)
