"Importing the library: quick, without torch, and every module alone, in a fresh process and far from the notebooks."
import os
import subprocess

import pytest

ALONE = '''
import importlib, pkgutil, sys
import digits_kit
names = [o.name for o in pkgutil.iter_modules(digits_kit.__path__, 'digits_kit.')]
for name in names:
    for old in [o for o in sys.modules if o.split('.')[0] == 'digits_kit']: del sys.modules[old]
    importlib.import_module(name)
print(digits_kit.__file__, *names, sep='\\n')
'''

QUICK = '''
import sys, time
start = time.perf_counter()
import digits_kit
print(time.perf_counter() - start)
assert 'torch' not in sys.modules, 'import digits_kit has imported torch'
'''

WEIGHTS = '''
from pathlib import Path
import digits_kit
from digits_kit.models import build_model
for file in (Path(digits_kit.__file__).parent/'weights').glob('*.safetensors'):
    build_model(['one', 'two', 'three', 'four', 'five'], file.stem.removesuffix('-hands'))
    print(file.name)
'''


def run(python, code, cwd):
    "What `code` prints in a fresh process that sees neither this folder nor the user's packages."
    done = subprocess.run([python, '-I', '-W', 'ignore', '-c', code], cwd=cwd, capture_output=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_import_is_quick(python, tmp_path):
    assert min(float(run(python, QUICK, tmp_path)[0]) for _ in range(3)) < .5


def test_every_module_imports_alone(python, tmp_path, pytestconfig):
    file, *names = run(python, ALONE, tmp_path)
    sources = {f'digits_kit.{o.stem}' for o in (pytestconfig.rootpath/'digits_kit').glob('*.py') if o.stem != '__init__'}
    assert set(names) == sources
    if str(python) == os.environ.get('DIGITS_OTHER_PYTHON'): assert str(pytestconfig.rootpath) not in file


def test_weights_in_the_package_load(python, tmp_path, pytestconfig):
    there = {o.name for o in (pytestconfig.rootpath/'digits_kit'/'weights').glob('*.safetensors')}
    if not there: pytest.skip('the kit has no weights of its own yet')
    assert set(run(python, WEIGHTS, tmp_path)) == there


@pytest.mark.parametrize('command', ['digits_a5', 'digits_capture', 'digits_doctor'])
def test_help_needs_no_torch(python, command, tmp_path):
    env = os.environ | {'PYTHONPROFILEIMPORTTIME': '1'}
    done = subprocess.run([python.parent/command, '--help'], cwd=tmp_path, env=env, capture_output=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: {command}')
    imported = {o.rpartition('|')[2].strip() for o in done.stderr.splitlines()}
    assert 'digits_kit' in imported
    assert 'torch' not in imported
