# SPDX-License-Identifier: Apache-2.0
"""File formats of libraries and archives: where a section, a note or a symbol lies in them."""
