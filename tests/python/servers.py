# SPDX-License-Identifier: Apache-2.0
"""Servers on loopback, which count what they are asked for and what they send."""

import contextlib
import email.utils
import http.client
import http.server
import logging
import os
import pathlib
import threading
import urllib.parse


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a directory, in parts too; what is odd about an answer is asked of the server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        odd = self.server.odd
        if odd is not None and odd(self):
            return
        path = self.translate_path(self.path)
        if os.path.isdir(path):
            super().do_GET()
            return
        try:
            with open(path, "rb") as file:
                self.send_file(file)
        except OSError:
            self.send_error(404)

    def send_file(self, file, ranges=True, etag=True):
        status = os.fstat(file.fileno())
        size, first, end = status.st_size, 0, status.st_size
        wanted = self.headers.get("Range") if ranges and self.server.ranges else None
        if wanted and size:
            begin, _, last = wanted.removeprefix("bytes=").partition("-")
            first, end = int(begin), min(int(last) + 1, size)
            if first >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        else:
            self.send_response(200)
        if etag:
            self.send_header("ETag", f'"{status.st_mtime_ns:x}-{size:x}"')
            self.send_header("Last-Modified", email.utils.formatdate(status.st_mtime, usegmt=True))
        self.send_header("Content-Length", str(end - first))
        self.end_headers()
        file.seek(first)
        while first < end:
            data = file.read(min(1 << 20, end - first))
            self.wfile.write(data)
            self.server.sent += len(data)
            first += len(data)

    def answer(self, status, body=b"", **headers):
        """Send a short answer, whatever is in the file."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        return True

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, directory, ranges):
        def handler(*arguments):
            return Handler(*arguments, directory=directory)

        super().__init__(("127.0.0.1", 0), handler)
        self.directory = pathlib.Path(directory)
        self.ranges = ranges
        self.odd = None
        self.requests, self.sent = [], 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def of(self, name):
        return self.url + urllib.parse.quote(str(name))

    def reset(self):
        self.requests, self.sent, self.odd = [], 0, None

    def handle_error(self, request, client_address):
        pass  # who has read enough hangs up


@contextlib.contextmanager
def serving(directory, ranges=True):
    with Server(str(directory), ranges) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def s3_store():
    """An S3 server with a bucket: its environment, a client, and what it was asked for."""
    import fsspec
    from botocore.session import get_session
    from moto.server import ThreadedMotoServer

    requests = []
    logger = logging.getLogger("werkzeug")
    counter = logging.Handler()
    counter.emit = lambda record: requests.append(record.getMessage())
    level, propagate = logger.level, logger.propagate
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(counter)
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        # What was stored in one before is in the process, and not in the server.
        connection = http.client.HTTPConnection(host, port)
        connection.request("POST", "/moto-api/reset", b"")
        assert connection.getresponse().status == 200
        connection.close()
        environment = {
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "nothing secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
        }
        session = get_session()
        session.set_credentials("tester", "nothing secret")
        client = session.create_client("s3", region_name="us-east-1", endpoint_url=address)
        client.create_bucket(Bucket="bucket")
        # The last server's address is kept with its file system.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield environment, client, requests
    finally:
        server.stop()
        logger.removeHandler(counter)
        logger.setLevel(level)
        logger.propagate = propagate
