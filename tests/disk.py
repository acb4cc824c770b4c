"Disks that are small or read-only, for the tests."
import shutil
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def mounted(folder, size):
    "A small disk of its own at `folder`."
    folder.mkdir()
    if shutil.which('mount') is None or subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder], capture_output=True).returncode:
        pytest.skip('only root on Linux can mount a small disk')
    try: yield folder
    finally: subprocess.run(['umount', folder], check=True)
