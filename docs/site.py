# SPDX-License-Identifier: Apache-2.0
"""What the site has besides the files of this directory, called by MkDocs.

Pages that lie at the top of the repository keep their place there, where people look for them; the
references of the command and of the Python interface are made from the sources.
"""

import argparse
import os
import pathlib
import posixpath
import re

from mkdocs.structure.files import File

import tvm_model_hash
from tvm_model_hash.cli.command import make_parser

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Files of the repository, and what they are in the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "FORMAT.md": "format.md",
    "RELEASE.md": "releasing.md",
    "SECURITY.md": "policy.md",
}
LINK = re.compile(r"(?<!\\)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def on_files(files, config):
    """Add the pages that are not in the directory of the documentation."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fill in references; lead links of the repository to their pages, and leave others' text."""
    if page.file.src_uri in REFERENCES:
        markdown = f"{markdown}\n\n{REFERENCES[page.file.src_uri]()}"
    names = {uri: name for name, uri in PAGES.items()}
    source = names.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def replace(match):
        text, target = match.groups()
        if re.match(r"\w+:|#", target):
            return match[0]
        path, hash_sign, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        uri = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(uri):
            place = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
            return f"[{text}]({place}{hash_sign}{anchor})"
        # A page that is missing stays a link, which MkDocs complains of.
        in_the_repository = (ROOT / path).exists() and not path.startswith("docs/")
        return text if in_the_repository else match[0]

    return LINK.sub(replace, markdown)


def command():
    """The reference of the command, from its parser."""
    os.environ["COLUMNS"] = "82"
    parser = make_parser()
    parts = [_block(parser.format_help())]
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, sub in subparsers.choices.items():
        parts += [f"## {name}", _block(sub.format_help())]
    return "\n\n".join(parts)


def _block(text):
    return f"```text\n{text.rstrip()}\n```"


def api():
    """The reference of the Python interface, whose names are imported when they are used."""
    parts = []
    exports = tvm_model_hash._EXPORTS
    for heading, wanted in (
        ("## Functions and classes", lambda module: module != "errors"),
        ("## Errors", lambda module: module == "errors"),
    ):
        parts.append(heading)
        parts += [
            _document(f"tvm_model_hash.{module}.{name}", f"tvm_model_hash.{name}")
            for name, module in exports.items()
            if wanted(module)
        ]
    parts += ["## In TVM", "What stands in `tvm.runtime.vm_hash`, with either engine."]
    parts += [
        _document(f"{engine}_vm_hash.{name}", f"{name} ({title})")
        for engine, title in (("relay", "Relay"), ("relax", "Relax"))
        for name in ("save", "load")
    ]
    return "\n\n".join(parts)


REFERENCES = {"command.md": command, "python.md": api}


def _document(name, heading):
    label = heading.removeprefix("tvm_model_hash.")
    options = ("options:", f"  heading: {heading}", f"  toc_label: {label}")
    return "\n    ".join([f"::: {name}", *options])
