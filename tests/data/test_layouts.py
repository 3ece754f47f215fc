"""Recognising the form of a folder, and errors about what is none: what was found, and what each form needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from data_folders import voc_object, voc_xml

from nasdsl.data import DataError, open_dataset
from nasdsl.data.layouts import find_split, inside, split_name

Make = Callable[..., Path]
