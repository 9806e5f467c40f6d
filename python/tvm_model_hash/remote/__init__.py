# SPDX-License-Identifier: Apache-2.0
"""Reading what lies behind a URL, by way of fsspec; imported only where there is one."""
