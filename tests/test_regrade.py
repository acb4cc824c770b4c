"""Thirty hand-ins that mean no good, or are only clumsy: each gets one row, and nothing outside their copies changes."""
import json
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import psutil
import pytest

from digits_kit.cage import Limits
from digits_kit.regrading import regrade
from digits_kit.sample import draw_folder

WORDS = 'The hand is small in these new photos, and the light comes from behind. ' * 4
TEXT = [f'## {name}\n{WORDS}' for name in ('Introduction', 'Model training and results', 'Summary and conclusion', 'Reflection')]

HOSTILE = {
    'exit0': 'import sys; sys.exit(0)',
    'os_exit': 'import os; os._exit(0)',
    'kill_group': 'import os, signal; os.killpg(0, signal.SIGKILL)',
    'endless': 'while True: pass',
    'prints': "import time\nwhile True: print('x'*100_000); time.sleep(.01)",
    'forks': 'import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(1000)',
    'memory': 'x = []\nwhile True: x.append(bytearray(50_000_000))',
    'disk': "with open('big', 'wb') as f:\n    while True: f.write(bytes(10_000_000))",
    'neighbour': "open('{root}/class/exit0/a5.ipynb', 'w').write('mine')",
    'parent': "open('../../mine.txt', 'w').write('x')",
    'home': "from pathlib import Path; (Path('{home}')/'mine.txt').write_text('x')",
    'reads': "print(open('{root}/class/exit0/a5.ipynb').read())",
    'photos': "import os; assert os.listdir('{root}/hidden')",
    'answers': "print(open('{root}/graded/exit0/row.json').read())",
    'network': "import urllib.request; urllib.request.urlopen('http://1.1.1.1', timeout=5)",
    'edited': 'def check_handin(runs): print("Ready to hand in.")\ncheck_handin([])',
    'patched': 'import digits_kit.scores\ndigits_kit.scores.wilson = lambda k, n: (1, 1)',
    'left_out': '#| eval: false\n1/0',
    'missing': "open('../data/labels.csv')",
}


def write(folder, *cells, **metadata):
    "A hand-in whose code stands after the second section."
    made = [nbformat.v4.new_markdown_cell(text) for text in TEXT]
    made[2:2] = [nbformat.v4.new_code_cell(cell) for cell in cells]
    folder.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=metadata), folder/'a5.ipynb')
    return folder


class Harm:
    "Makes a file when it is unpickled."
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.touch, (Path(self.path),)


def make_class(root):
    "All hand-ins."
    for name, code in HOSTILE.items():
        write(root/'class'/name, code.replace('{root}', str(root)).replace('{home}', str(root/'home')), '1 + 1')
    write(root/'class'/'ünïcode ñame', "print('ü')")
    write(root/'class'/'wrong_numbers', '1')
    write(root/'class'/'copied', *(f'line_{i} = {i}' for i in range(30)))
    write(root/'class'/'copied_too', *(f'line_{i} = {i}' for i in range(30)))
    write(root/'class'/'other_kernel', 'x <- 1', kernelspec={'name': 'ir', 'language': 'R', 'display_name': 'R'})
    (root/'class'/'corrupt.ipynb').write_text('{"cells": [')
    shutil.copy('nbs/a5-model-improvement.ipynb', (root/'class'/'template.ipynb'))
    with zipfile.ZipFile(root/'class'/'climbs.zip', 'w') as archive:
        archive.write(root/'class'/'exit0'/'a5.ipynb', 'a5.ipynb')
        archive.writestr('../../climbed.txt', 'x')
    with zipfile.ZipFile(root/'class'/'bomb.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.write(root/'class'/'copied'/'a5.ipynb', 'a5.ipynb')
        with archive.open('big', 'w', force_zip64=True) as f:
            for _ in range(2100): f.write(bytes(1_000_000))
    with zipfile.ZipFile(root/'class'/'links.zip', 'w') as archive:
        archive.write(root/'class'/'copied'/'a5.ipynb', 'a5.ipynb')
        info = zipfile.ZipInfo('etc')
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, '/etc')
    write(root/'class'/'large', '1')
    with open(root/'class'/'large'/'a5.ipynb', 'r+b') as f: f.truncate(1_000_000_000)
    pickled = write(root/'class'/'pickled', '1')
    (pickled/'model.pkl').write_bytes(pickle.dumps(Harm(root/'harmed')))
    shape = write(root/'class'/'wrong_shape', '1')/'runs'/'20261201-a5'
    shape.mkdir(parents=True)
    (shape/'run.json').write_text(json.dumps({'name': 'a5'}))
    (shape/'model.safetensors').write_bytes(b'\x08\0\0\0\0\0\0\0{}      ')
    run = root/'class'/'wrong_numbers'/'runs'/'20261201-a5'
    run.mkdir(parents=True)
    (run/'run.json').write_text(json.dumps({'name': 'a5', 'kept': {'accuracy': .964}}))
    (run/'predictions.csv').write_text('actual,predicted\none,one\none,two\n')
    nb = nbformat.read(root/'class'/'wrong_numbers'/'a5.ipynb', 4)
    nb.cells[0].source += ' On valid it was 94.6 %.'
    nbformat.write(nb, root/'class'/'wrong_numbers'/'a5.ipynb')
    clone = write(root/'class'/'committed', '1')
    def git(*words):
        subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *words], cwd=clone, check=True, capture_output=True)
    git('init', '-q')
    (clone/'one.jpg').write_bytes(b'x')
    git('add', '-A')
    git('commit', '-qm', 'all')
    git('rm', '-q', 'one.jpg')
    git('commit', '-qm', 'without')


def state(folder): return {path: path.lstat()[6:9:2] for path in folder.rglob('*')}


@pytest.mark.skipif(not shutil.which('bwrap'), reason='without bubblewrap there are no walls')
def test_thirty(tmp_path):
    (tmp_path/'home').mkdir()
    draw_folder(tmp_path/'hidden', 0, 0, 1, seed=5)
    make_class(tmp_path)
    before = state(tmp_path/'class') | state(tmp_path/'hidden') | state(tmp_path/'home')
    limits = Limits(seconds=90, cell=8, memory=1.5, disk=.3, processes=30, output=2)
    made = regrade(tmp_path/'class', tmp_path/'graded', tmp_path/'hidden'/'production', limits=limits)
    grades = made.grades.set_index('file')
    problems = made.checks[made.checks.verdict == 'problem'].groupby('file').what.agg(list)
    print(grades[['runs', 'why', 'points']].to_string())
    assert sorted(grades.index) == sorted(path.name for path in (tmp_path/'class').iterdir()) and len(grades) >= 30
    why = {'exit0': 'SystemExit', 'os_exit': 'kernel ended', 'kill_group': 'kernel ended', 'endless': 'more than 8 seconds',
           'prints': 'printed more than 2 MB', 'forks': 'more than 30 processes', 'memory': '1.5 GB', 'disk': '0.3 GB',
           'neighbour': 'No such file', 'home': 'No such file', 'reads': 'No such file', 'photos': 'No such file',
           'answers': 'No such file', 'network': 'unreachable', 'missing': 'No such file', 'corrupt.ipynb': 'no notebook',
           'other_kernel': 'no notebook', 'large': 'no notebook', 'parent': 'Read-only'}
    for name, words in why.items(): assert not grades.runs[name] and words in grades.why[name], (name, grades.why[name])
    for name in ('edited', 'patched', 'left_out', 'ünïcode ñame', 'copied', 'bomb.zip', 'links.zip', 'pickled', 'committed'):
        assert grades.runs[name], (name, grades.why[name])
    found = {'edited': 'The kit as it is', 'patched': 'The kit as it is', 'left_out': 'All code is run', 'pickled': 'No pickles',
             'links.zip': 'File left out', 'climbs.zip': 'File left out', 'bomb.zip': 'Size of the hand-in',
             'template.ipynb': 'Section Introduction', 'wrong_numbers': 'Numbers in the text',
             'committed': 'No photos in the repository', 'wrong_shape': 'Model on hidden photos', 'large': 'Notebook can be read',
             'corrupt.ipynb': 'Notebook can be read', 'other_kernel': 'Notebook can be read'}
    for name, what in found.items(): assert what in problems[name], (name, problems[name])
    assert {'copied', 'copied_too'} in [set(pair) for pair in made.similar[['a', 'b']].values.tolist()]
    assert state(tmp_path/'class') | state(tmp_path/'hidden') | state(tmp_path/'home') == before
    assert not list(tmp_path.rglob('mine.txt')) and not list(tmp_path.rglob('climbed.txt')) and not (tmp_path/'harmed').exists()
    assert not [o for o in psutil.process_iter(['cmdline']) if '/handin' in (o.info['cmdline'] or [])]


def test_goes_on_after_a_kill(tmp_path):
    for i in range(4): write(tmp_path/'class'/f'student{i}', f'print({i})', '1/0' if i == 2 else '')
    command = [sys.executable, '-c', 'from digits_kit.regrading import digits_regrade; digits_regrade()', str(tmp_path/'class'), '--jobs', '1']
    subprocess.run([*command, '--out', str(tmp_path/'whole')], check=True, capture_output=True)
    killed = subprocess.Popen([*command, '--out', str(tmp_path/'killed')], start_new_session=True, stdout=subprocess.DEVNULL)
    while not (tmp_path/'killed'/'student1'/'row.json').exists(): time.sleep(.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = (tmp_path/'killed'/'student0'/'row.json').stat().st_mtime_ns
    subprocess.run([*command, '--out', str(tmp_path/'killed')], check=True, capture_output=True)
    assert (tmp_path/'killed'/'student0'/'row.json').stat().st_mtime_ns == done
    for name in ('grades.csv', 'checks.csv', 'similar.csv'):
        assert (tmp_path/'killed'/name).read_bytes() == (tmp_path/'whole'/name).read_bytes()


OLD = {
    'colab': [('markdown', '# 1. Introduction\nWe took pictures of our hands.'), ('code', '!pip install -Uqq fastbook\nimport fastbook'),
              ('code', "from google.colab import drive\ndrive.mount('/content/gdrive')"),
              ('markdown', '# 2. Model training and Results'), ('code', 'learn = cnn_learner(dls, resnet18, metrics=error_rate)')],
    'windows': [('markdown', '## Introduction'), ('code', "path = Path(r'C:\\Users\\me\\digits')\npath.ls()"), ('markdown', '## 2. Model Code')],
    'prose': [('markdown', '# Model improvement'), ('markdown', '**2. Model training and Results**\n\nSee the picture.\n\n![](acc.png)'),
              ('markdown', '# Reflection\nIt was hard.')],
}


def test_old_notebooks(tmp_path):
    "Notebooks of earlier years, saved by Colab without cell ids, in format 4.0."
    (tmp_path/'class').mkdir()
    for name, cells in OLD.items():
        cells = [{'cell_type': kind, 'metadata': {'id': 'x'}, 'source': source} | ({'outputs': [], 'execution_count': None} if kind == 'code' else {})
                 for kind, source in cells]
        nb = {'nbformat': 4, 'nbformat_minor': 0, 'metadata': {'colab': {}, 'kernelspec': {'name': 'python3', 'display_name': 'Python 3'}}, 'cells': cells}
        (tmp_path/'class'/f'{name}.ipynb').write_text(json.dumps(nb))
    made = regrade(tmp_path/'class', tmp_path/'graded', limits=Limits(seconds=60))
    grades, problems = made.grades.set_index('file'), made.checks[made.checks.verdict == 'problem'].groupby('file').what.agg(list)
    assert grades.runs.tolist() == [False, True, False]  # colab, prose, windows
    assert 'Section Introduction' in problems['colab.ipynb'] and 'Section Summary and conclusion' in problems['colab.ipynb']
    assert made.checks[made.checks.file == 'colab.ipynb'].set_index('what').todo['Section Model training and results'].startswith('Write at least')
    assert all((tmp_path/'graded'/f'{name}.ipynb'/'report.html').stat().st_size > 1000 for name in OLD)
