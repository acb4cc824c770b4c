"A model saved here gives the same probabilities in another process, another Python, with another kind of path."
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name('model_file.py')


def run(python, command, folder):
    done = subprocess.run([python, '-I', '-W', 'ignore', SCRIPT, command, folder], cwd=folder, capture_output=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    run(sys.executable, 'save', folder)
    return folder


def test_file_holds_numbers_and_text(saved):
    for file in saved.glob('runs/*/model.safetensors'):
        header = file.read_bytes()[:100_000].lower()
        assert b'pickle' not in header and b'pathlib' not in header and str(saved).lower().encode() not in header


def test_same_probabilities(saved, python):
    lines = [o.split() for o in run(python, 'load', saved).splitlines()]
    print(lines)
    assert sorted(head for head, _ in lines) == ['cam', 'fastai']
    assert max(float(diff) for _, diff in lines) < 1e-5
