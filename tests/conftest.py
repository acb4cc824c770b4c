import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(params=['this', 'other'], scope='session')
def python(request):
    "This Python, and one of another minor version with the built wheel, if `DIGITS_OTHER_PYTHON` names it."
    path = sys.executable if request.param == 'this' else os.environ.get('DIGITS_OTHER_PYTHON')
    if path is None: pytest.skip('DIGITS_OTHER_PYTHON names no other Python')
    return Path(path)
