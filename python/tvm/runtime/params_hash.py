# SPDX-License-Identifier: Apache-2.0
"""Dictionaries of parameters that know their model, and take it along into a file."""

import functools
import os

from tvm_model_hash.artifact.tensor_list import trailer

from .params import save_param_dict as _save_param_dict
from .params import save_param_dict_to_file as _save_param_dict_to_file


class Params(dict):
    """Parameters by their names that know which model they are of.

    Parameters
    ----------
    params : dict of str to tvm.nd.NDArray
        The parameters.
    record : tvm_model_hash.Record
        The record of the model, or of the compilation that they are of.
    original : dict of str to tvm.nd.NDArray, optional
        The arrays of which the record is known to be true; by default these.
    """

    def __init__(self, params, record, original=None):
        super().__init__(params)
        self.record = record
        self._original = dict(self) if original is None else original

    def __reduce__(self):
        return Params, (dict(self), self.record, self._original)

    def copy(self):
        """Copy the dictionary, as ``dict.copy``, with the record."""
        return Params(self, self.record, self._original)

    def is_original(self):
        """Find out whether all arrays are those that the record is of; some may be missing.

        Returns
        -------
        is_original : bool
        """
        return all(self._original.get(name) is array for name, array in self.items())


@functools.wraps(_save_param_dict)
def save_param_dict(params):
    return _save_param_dict(params) + _trailer(params)


@functools.wraps(_save_param_dict_to_file)
def save_param_dict_to_file(params, path):
    _save_param_dict_to_file(params, path)
    if end := _trailer(params):
        with open(os.fspath(path), "ab") as file:
            file.write(end)


def _trailer(params):
    # Arrays that were put in later may be of any model: such a file gets no record.
    # By its method, because a class is another one when its module was executed again.
    is_original = getattr(params, "is_original", None)
    return trailer(params.record) if is_original and is_original() else b""
