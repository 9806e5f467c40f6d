# SPDX-License-Identifier: Apache-2.0
"""A server may answer anything: it is an error that names the URL, and never another verdict."""

import functools
import os
import shutil
import subprocess
import threading

import pytest
from conftest import run_python

from tvm_model_hash import RemoteError, Status, check, downloading, model_record, read_artifact
from tvm_model_hash.checking.deployment import read
from tvm_model_hash.cli import main
from tvm_model_hash.errors import without_secrets

BLOCK = 64 * 1024


@pytest.fixture
def large(web, stored):
    """A URL of parameters of which three places are read, in requests of their own."""
    path = web.directory / "large.params"
    import artifacts

    shutil.copy(artifacts.build() / "big" / "single.so", path)
    assert path.stat().st_size > 60 << 20
    read_artifact(web.of(path.name))
    assert len(web.requests) >= 2
    web.reset()
    return web.of(path.name)


def later(answer):
    """An answer to all requests but the first."""
    return lambda handler: len(handler.server.requests) > 1 and answer(handler)


def part(handler, **headers):
    """What was asked for, but for some headers."""
    begin, end = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
    size = os.path.getsize(handler.translate_path(handler.path))
    with open(handler.translate_path(handler.path), "rb") as file:
        file.seek(begin)
        data = file.read(end + 1 - begin)
    said = {"Content_Range": f"bytes {begin}-{begin + len(data) - 1}/{size}"}
    return handler.answer(206, data, **{**said, **headers})


def cut(handler):
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{BLOCK - 1}/{BLOCK * 10}")
    handler.send_header("Content-Length", str(BLOCK))
    handler.end_headers()
    handler.wfile.write(b"\0" * 100)
    handler.close_connection = True
    return True


def hang_up(handler):
    handler.close_connection = True
    return True


def endless(status, **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        chunk = b"10000\r\n" + b"\0" * 65536 + b"\r\n"
        for _ in range(20_000):  # over a gigabyte, for who takes it
            handler.wfile.write(chunk)
            handler.server.sent += 65536
        return True

    return answer


ANSWERS = {
    "404": (lambda h: h.answer(404), "there is nothing"),
    "403": (lambda h: h.answer(403), "not permitted"),
    "401": (lambda h: h.answer(401), "not permitted"),
    "500": (lambda h: h.answer(500), "status 500"),
    "204": (lambda h: h.answer(204), "status 204"),
    "hang up": (hang_up, "Disconnected"),
    "cut": (cut, "ClientPayloadError|bytes"),
    "no range": (functools.partial(part, Content_Range=None), "the range 'none'"),
    "nonsense": (functools.partial(part, Content_Range="bytes 5-1/x"), "the range 'bytes 5-1/x'"),
    "other range": (
        functools.partial(part, Content_Range=f"bytes 1-{BLOCK}/1000000"),
        "were asked for, and the server gave 1 to",
    ),
    "longer range": (
        functools.partial(part, Content_Range=f"bytes 0-{2 * BLOCK}/1000000"),
        "were asked for",
    ),
    "endless part": (
        endless(206, Content_Range=f"bytes 0-{BLOCK - 1}/1000000"),
        "were asked for",
    ),
    "endless": (endless(200), "does not say how large it is"),
    "compressed": (functools.partial(part, Content_Encoding="gzip"), "encoded as 'gzip'"),
    "beyond": (lambda h: h.answer(416, Content_Range="bytes */1000000"), "were asked for"),
    "elsewhere": (lambda h: h.answer(302, Location="ftp://127.0.0.1/x"), "."),
    "in a circle": (lambda h: h.answer(302, Location=h.path), "TooManyRedirects"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_wrong_answer(web, large, name):
    web.odd, message = ANSWERS[name]
    with pytest.raises(RemoteError, match=f"'{large}'.*({message})"):
        read_artifact(large)
    assert web.sent < 64 << 20


CHANGES = {
    "another ETag": lambda h: part(h, ETag='"other"'),
    "no ETag": part,
    "another size": lambda h: part(h, Content_Range="bytes 0-1/3"),
    "all of it": lambda h: h.answer(200, b"\0" * 100),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_version_in_a_later_answer(web, large, name):
    web.odd = later(CHANGES[name])
    with pytest.raises(RemoteError, match="changed while it was read, from .* ETag"):
        read_artifact(large)


def test_an_object_that_is_replaced_while_it_is_read(web, large):
    def replace(handler):
        if len(handler.server.requests) == 2:
            path = web.directory / "large.params"
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data[:-1] + b"x")

    web.odd = replace
    with pytest.raises(RemoteError, match="changed while it was read"):
        read_artifact(large)


def test_a_file_of_a_deployment_that_is_replaced_after_it_was_hashed(web, stored, monkeypatch):
    from tvm_model_hash.remote import objects

    shutil.copytree(stored / "sealed", web.directory / "sealed")
    library = web.directory / "sealed" / "lib.so"

    def replace(handler):
        asked = [path for path, _ in handler.server.requests]
        if "/sealed/lib.so" in asked and handler.path == "/sealed/code.ro":  # all are hashed
            library.write_bytes(library.read_bytes()[:-1] + b"x")

    web.odd = replace
    # As long as it is at hand, it is one version that is looked at.
    assert check(stored / "good.onnx", web.of("sealed/")).status is Status.MATCH
    web.reset()
    web.odd = replace
    monkeypatch.setattr(objects, "_KEPT_BYTES", 0)
    with pytest.raises(RemoteError, match="lib.so' changed while it was read"):
        check(stored / "good.onnx", web.of("sealed/"))


def test_a_server_that_says_nothing_of_versions(web, stored):
    shutil.copy(stored / "files" / "single.so", web.directory / "lib.so")
    web.odd = part
    assert read_artifact(web.of("lib.so")).record


def test_an_error_is_not_taken_for_a_file_that_is_none(web, stored):
    """JSON that can't be read is no part; JSON that can't be transferred may be one."""
    directory = web.directory / "d"
    shutil.copytree(stored / "models" / "good", directory)
    (directory / "cache.json").write_text('{ "x": 1,' + " " * (3 * BLOCK) + "}")
    assert check(stored / "good.onnx", web.of("d/")).status is Status.MATCH
    web.odd = lambda h: "cache" in h.path and "bytes=0-" not in h.headers["Range"] and h.answer(503)
    with pytest.raises(RemoteError, match="status 503"):
        check(stored / "good.onnx", web.of("d/"))


def test_a_size_allocates_nothing(web):
    # A model of which the server says that it is enormous, and so does a field in it.
    data = b"\x3a\xc0\xff\xff\xff\x03"
    web.odd = lambda h: h.answer(
        206, data.ljust(BLOCK, b"\0"), Content_Range=f"bytes 0-{BLOCK - 1}/{1 << 30}"
    )
    with pytest.raises(RemoteError, match="were asked for"):
        model_record(web.of("m.onnx"))


def test_a_server_that_falls_silent(web, large, monkeypatch):
    from tvm_model_hash.remote import web as remote_web

    monkeypatch.setattr(remote_web, "_SILENCE_SECONDS", 0.2)
    released = threading.Event()
    web.odd = lambda handler: released.wait(20) and hang_up(handler)
    try:
        with pytest.raises(RemoteError, match="does not answer in time"):
            read_artifact(large)
    finally:
        released.set()


def test_a_download_that_is_cut_or_goes_on(web, stored):
    shutil.copy(stored / "files" / "weights.params", web.directory / "w")

    def longer(handler):
        return handler.answer(200, b"\0" * BLOCK * 2, Content_Length=str(BLOCK * 3))

    web.odd = lambda h: longer(h) and hang_up(h)
    with downloading(), pytest.raises(RemoteError, match="w'"):
        read_artifact(web.of("w"))


PAGE = "<html><head><title>{}</title></head><body>{}</body></html>"
LINKS = [
    "../x", "/", "/other/lib.so", "http://127.0.0.1:1/deployment/lib.so", "//host/deployment/a.so",
    "?C=N;O=D", "lib.so?x=1", "sub/dir/lib.so", "mailto:nobody@nowhere", "http://[", "", "#top",
    "%2e%2e/x", "..%2fx", "..", ".", "javascript:alert(1)",
]  # fmt: skip


def test_of_a_list_only_what_lies_below_is_read(web, stored):
    shutil.copytree(stored / "models" / "good", web.directory / "deployment")
    links = "".join(
        f'<a href="{link}">x</a>' for link in [*LINKS, "code.ro", "./lib.so", "hash.txt"]
    )
    page = PAGE.format("Index of /deployment/", links).encode()
    web.odd = lambda h: (
        h.path == "/deployment/" and h.answer(200, page, Content_Type="text/html; charset=utf-8")
    )
    verdict = check(stored / "good.onnx", web.of("deployment/"))
    assert verdict.status is Status.MATCH
    assert sorted(verdict.deployment.files) == ["code.ro", "hash.txt", "lib.so"]
    assert {path for path, _ in web.requests} == {
        f"/deployment/{name}" for name in ("", "code.ro", "hash.txt", "lib.so")
    }


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h: h.answer(200, b"{}", Content_Type="application/json"), "application/json"),
        (lambda h: h.answer(404), "there is nothing"),
        (
            lambda h: h.answer(
                200,
                PAGE.format("Our models", '<a href="lib.so">x</a>').encode(),
                Content_Type="text/html",
            ),
            "no list of its files there, but the page 'Our models'",
        ),
        (lambda h: h.path == "/d/" and h.answer(302, Location="http://localhost:1/d/"), "."),
    ],
)
def test_a_directory_without_a_list(web, stored, answer, message):
    shutil.copytree(stored / "models" / "good", web.directory / "d")
    web.odd = answer
    with pytest.raises(RemoteError, match=message):
        check(stored / "good.onnx", web.of("d/"))


def test_a_list_of_another_server_is_not_taken(web, store, stored):
    web.odd = lambda h: h.answer(302, Location=store.of("models/good/"))
    with pytest.raises(RemoteError, match="leads to another one"):
        check(stored / "good.onnx", web.of("d/"))
    # A file may lie elsewhere.
    web.odd = lambda h: h.answer(302, Location=store.of("files/single.so"))
    assert read_artifact(web.of("lib.so")).record


def test_directories_that_never_end(web, stored):
    page = PAGE.format("Index of x", '<a href="deeper/">x</a>').encode()
    web.odd = lambda h: h.answer(200, page, Content_Type="text/html")
    with pytest.raises(RemoteError, match="deeper than"):
        check(stored / "good.onnx", web.of("d/"))


SECRETS = {
    "cannot read 'https://me:pass@host/x?sig=a%2Fb&c=d': gone": (
        "cannot read 'https://***@host/x?***': gone"
    ),
    "https://me@host/x and s3://bucket/x": "https://***@host/x and s3://bucket/x",
    'at ("https://host/?a=b"), no': 'at ("https://host/?***"), no',
    "https://host?a": "https://host?***",
    "hf://datasets/me/it@main/x is 'what?'": "hf://datasets/me/it@main/x is 'what?'",
    "a@b: c?": "a@b: c?",
}


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_in_urls_are_not_shown(text):
    assert without_secrets(text) == SECRETS[text]
    assert str(RemoteError(text)) == SECRETS[text]


def test_no_message_has_a_secret(web, stored, capsys):
    shutil.copy(stored / "files" / "single.so", web.directory / "lib.so")
    address = web.url.removeprefix("http://")
    urls = [
        f"http://me:geheim@{address}none?sig=geheim",
        f"http://me:geheim@{address}lib.so?sig=geheim",
        f"http://me:geheim@{address}none/?sig=geheim",
        "http://me:geheim@127.0.0.1:1/x?sig=geheim",
        "http://me:geheim@:x/?sig=geheim",
        "s3://me:geheim@bucket/x?sig=geheim",
        "nothing://me:geheim@bucket/x?sig=geheim",
    ]
    for url in urls:
        for arguments in (["show", url], ["check", "0" * 64, url], ["show", "--json", url]):
            status = main(arguments)
            said = capsys.readouterr()
            assert "geheim" not in said.out + said.err
            assert "***" in said.out + said.err or status == 1
            assert status == (2 if url != urls[1] else 1 if "check" in arguments else 0)


LOCAL = """
import sys
from tvm_model_hash import check, model_record, verify_seal, seal, RemoteError
model, directory = sys.argv[1:]
assert check(model, directory).ok
model_record(model)
names = [name for name in sys.modules if name.startswith(("fsspec", "aiohttp", "s3fs"))]
assert not names, names
assert not [name for name in sys.modules if name.startswith("tvm_model_hash.remote")]
"""


def test_nothing_of_this_is_imported_for_paths(stored):
    run_python(LOCAL, stored / "good.onnx", stored / "sealed")


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from tvm_model_hash import read_artifact, RemoteError
try:
    read_artifact(sys.argv[2])
except RemoteError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("missing", "url", "advice"),
    [
        ("fsspec", "s3://bucket/x", 'pip install "tvm-model-hash[remote]"'),
        ("fsspec", "https://host/x", 'pip install "tvm-model-hash[remote]"'),
        ("aiohttp", "https://host/x", 'pip install "tvm-model-hash[remote]"'),
        ("s3fs", "s3://bucket/x", "Install s3fs"),
    ],
)
def test_what_is_not_installed_is_named(missing, url, advice):
    said = run_python(WITHOUT, missing, url).stdout
    assert f"cannot read '{url}'" in said
    assert advice in said


def test_a_path_of_this_machine_is_no_url(stored):
    with pytest.raises(RemoteError, match=f"write its path, '{stored}'"):
        read(f"file://{stored}")


ENCRYPTED = """
import sys
from tvm_model_hash import read_artifact, RemoteError
print(read_artifact(sys.argv[1]).kind)
try:
    read_artifact(sys.argv[2])
except RemoteError as error:
    print(error)
"""


def test_no_way_leads_out_of_encryption(stored, store, tmp_path):
    import ssl

    from servers import serving

    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(stored) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.odd = lambda h: (
            h.path == "/away" and h.answer(302, Location=store.of("files/single.so"))
        )
        url = server.url.replace("http:", "https:")
        said = run_python(
            ENCRYPTED, f"{url}files/single.so", f"{url}away", env={"SSL_CERT_FILE": certificate}
        ).stdout
    assert "Relay VM executable\n" in said
    assert "expected https" in said
