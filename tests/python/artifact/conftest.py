# SPDX-License-Identifier: Apache-2.0
import shutil

import pytest
from parameter_files import write_all


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A file of each kind."""
    directory = tmp_path_factory.mktemp("written")
    write_all(directory)
    return directory


@pytest.fixture
def files(written, tmp_path):
    """A copy of them, to change."""
    return shutil.copytree(written, tmp_path / "files")
