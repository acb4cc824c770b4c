"""Thirty hand-ins that mean no good, or are only clumsy: each gets one row, and nothing outside their copies changes."""
import html
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
import pandas as pd
import psutil
import pytest

from joblib import parallel_config
from safetensors import safe_open
from safetensors.torch import save_file

from digits_kit.architectures import find_weights
from digits_kit.cage import Limits
from digits_kit.regrading import regrade
from digits_kit.sample import draw_folder

WORDS = 'The hand is small in these new photos. In a3 we had 61 %, in a4 50 %, and in a5 it is far better. ' * 3
TEXT = [f'## {name}\n{WORDS}' for name in ('Introduction', 'Model training and results', 'Summary and conclusion', 'Reflection')]

MODEL = find_weights('handnet', 'hands')
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
    'answers': "print(open('{root}/grades/hand-ins/exit0/row.json').read())",
    'network': "import urllib.request; urllib.request.urlopen('http://1.1.1.1', timeout=5)",
    'edited': 'def check_handin(runs): print("Ready to hand in.")\ncheck_handin([])',
    'patched': 'import digits_kit.scores\ndigits_kit.scores.wilson = lambda k, n: (1, 1)',
    'left_out': '#| eval: false\n1/0',
    'missing': "open('../data/labels.csv')",
    'too_deep': "import os\nfor i in range(1200): os.mkdir('a'); os.chdir('a')\nwhile True: pass",
    'shm': "with open('/dev/shm/big', 'wb') as f:\n    while True: f.write(bytes(10_000_000))",
    'metadata': "from IPython.display import display\nimport time\nfor i in range(60): display({'text/plain': 'x'}, metadata={'a': 'y'*1_000_000}, raw=True); time.sleep(.1)",
    'script': "from IPython.display import display\ndisplay({'image/png': 'AAAA'}, metadata={'image/png': {'width': '1 onerror=alert(1)'}}, raw=True)",
    'lines': '\n'*20_000 + '1',
    'kernel': "async def f(*a, **k): return {'status': 'ok', 'execution_count': 1, 'payload': [], 'user_expressions': {}}\nget_ipython().kernel.do_execute = f",
}


def write(folder, *cells, **metadata):
    "A hand-in whose code stands after the second section."
    made = [nbformat.v4.new_markdown_cell(text) for text in TEXT]
    made[2:2] = [nbformat.v4.new_code_cell(cell) for cell in cells]
    folder.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=metadata), folder/'a5.ipynb')
    return folder


def a_run(hand_in, name, valid, right):
    "A run that came along: its model got `right` of 100 production photos right."
    run = hand_in/'runs'/f'2026120{name[1]}-{name}'
    run.mkdir(parents=True)
    (run/'run.json').write_text(json.dumps({'name': name, 'kept': {'accuracy': valid}}))
    answers = pd.DataFrame({'image': [f'production/one/{i}.jpg' for i in range(100)], 'sha256': range(100), 'actual': 'one'})
    answers.assign(predicted=['one']*right + ['two']*(100 - right)).to_csv(run/'predictions.csv', index=False)
    shutil.copy(MODEL, run/'model.safetensors')
    return run


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
    a_run(write(root/'class'/'wrong_shape', '1'), 'a5', .9, 83)
    wrong_head(root/'class'/'wrong_shape')
    a_run(root/'class'/'wrong_numbers', 'a5', .964, 83)
    torn = a_run(write(root/'class'/'torn_records', '1'), 'a5', .9, 83)
    (torn/'run.json').write_text('[' * 100_000)
    with open(torn/'predictions.csv', 'wb') as f: f.truncate(30_000_000)
    nb = nbformat.read(root/'class'/'wrong_numbers'/'a5.ipynb', 4)
    nb.cells[0].source += ' On valid it was 94.6 %.'
    nbformat.write(nb, root/'class'/'wrong_numbers'/'a5.ipynb')
    clone = write(root/'class'/'committed', '1')
    git(clone, 'init', '-q')
    put('one.jpg', keep=False)(clone)
    git(clone, 'config', 'core.fsmonitor', f'touch a5.ipynb {root}/trapped')
    make_odd(root/'class')


def make_odd(folder):
    "Hand-ins that would stop a careless program, and with it the whole class."
    whole = (folder/'climbs.zip').read_bytes()
    (folder/'damaged.zip').write_bytes(whole[:60] + b'\xff'*20 + whole[80:])
    (folder/'leads_nowhere.zip').symlink_to('nowhere.zip')
    os.mkfifo(folder/'pipe.zip')
    deep = folder/'deep'
    write(deep, '1')
    for _ in range(60): deep = deep/'d'
    deep.mkdir(parents=True)
    (deep/'x').write_text('x')
    for name in ('checks.csv', '=1+1', '$\\nothing$'): write(folder/name, '1')
    write(folder/'surrogate', "print('\\ud800')")
    write(folder/'tagged', '1/0')
    for name, change in (('tagged', {'tags': ['raises-exception']}), ('checks.csv', {'tags': 5})):
        nb = json.loads((folder/name/'a5.ipynb').read_text())
        nb['cells'][2]['metadata'] = change
        (folder/name/'a5.ipynb').write_text(json.dumps(nb))


def state(folder): return {path: path.lstat()[6:9:2] for path in folder.rglob('*')}


@pytest.mark.skipif(not shutil.which('bwrap'), reason='without bubblewrap there are no walls')
def test_thirty(tmp_path):
    (tmp_path/'home').mkdir()
    draw_folder(tmp_path/'hidden', 0, 0, 1, seed=5)
    make_class(tmp_path)
    before = state(tmp_path/'class') | state(tmp_path/'hidden') | state(tmp_path/'home')
    limits = Limits(seconds=90, cell=8, memory=1.5, disk=.3, processes=30, output=2)
    made = regrade(tmp_path/'class', tmp_path/'grades.csv', tmp_path/'hidden'/'production', limits=limits)
    grades = pd.read_csv(tmp_path/'grades.csv', keep_default_na=False).set_index('file')
    problems = made.checks[made.checks.verdict == 'problem'].groupby('file').what.agg(list)
    print(grades[['runs', 'why', 'score']].to_string())
    assert sorted(name.lstrip("'") for name in grades.index) == sorted(path.name for path in (tmp_path/'class').iterdir()) and len(grades) >= 40
    why = {'exit0': 'SystemExit', 'os_exit': 'kernel ended', 'kill_group': 'kernel ended', 'endless': 'more than 8 seconds',
           'prints': 'printed more than 2 MB', 'forks': 'more than 30 processes', 'memory': '1.5 GB', 'disk': '0.3 GB',
           'neighbour': 'No such file', 'home': 'No such file', 'reads': 'No such file', 'photos': 'No such file',
           'answers': 'No such file', 'network': 'unreachable', 'missing': 'No such file', 'corrupt.ipynb': 'no notebook',
           'other_kernel': 'no notebook', 'large': 'no notebook', 'parent': 'Read-only', 'damaged.zip': 'no notebook',
           'leads_nowhere.zip': 'no notebook', 'pipe.zip': 'no notebook', 'tagged': 'ZeroDivisionError', 'too_deep': 'GB', 'shm': 'No space left', 'metadata': 'printed more than 2 MB'}
    for name, words in why.items(): assert not grades.runs[name] and words in grades.why[name], (name, grades.why[name])
    for name in ('edited', 'patched', 'left_out', 'ünïcode ñame', 'copied', 'bomb.zip', 'links.zip', 'pickled', 'committed', 'torn_records',
                 'deep', 'checks.csv', 'script', 'lines', "'=1+1", '$\\nothing$', 'surrogate'):
        assert grades.runs[name], (name, grades.why[name])
    found = {'edited': 'The kit as it is', 'patched': 'The kit as it is', 'kernel': 'The kit as it is', 'left_out': 'All code is run', 'pickled': 'No pickles',
             'links.zip': 'File left out', 'climbs.zip': 'File left out', 'bomb.zip': 'Size of the hand-in',
             'template.ipynb': 'Section Introduction', 'wrong_numbers': 'Numbers in the text',
             'committed': 'No photos are handed in', 'deep': 'File left out', 'wrong_shape': 'Model on hidden photos', 'torn_records': 'Record of 20261205-a5', 'large': 'Notebook can be read',
             'corrupt.ipynb': 'Notebook can be read', 'other_kernel': 'Notebook can be read'}
    for name, what in found.items(): assert what in problems[name], (name, problems[name])
    assert all(grades.n[name] == '5.0' for name in ('torn_records', 'wrong_numbers')), grades.n  # every model was tried
    assert {'copied', 'copied_too'} in [set(pair) for pair in made.similar[['a', 'b']].values.tolist()]
    assert state(tmp_path/'class') | state(tmp_path/'hidden') | state(tmp_path/'home') == before
    assert not list(tmp_path.rglob('mine.txt')) and not list(tmp_path.rglob('climbed.txt')) and not (tmp_path/'harmed').exists()
    assert not (tmp_path/'trapped').exists()
    page = (tmp_path/'grades'/'hand-ins'/'script'/'report.html').read_text(encoding='utf-8')
    assert '<iframe sandbox ' in page and "default-src 'none'" in html.unescape(page) and '<script' not in page
    assert not [o for o in psutil.Process().children(recursive=True) if o.status() == 'zombie' or '/handin' in o.cmdline()]


def test_goes_on_after_a_kill(tmp_path):
    for i in range(4): write(tmp_path/'class'/f'student{i}', f'print({i})', '1/0' if i == 2 else '')
    command = [sys.executable, '-c', 'from digits_kit.regrading import digits_regrade; digits_regrade()', str(tmp_path/'class'), '--jobs', '1']
    subprocess.run([*command, '--out', str(tmp_path/'whole.csv')], check=True, capture_output=True)
    killed = subprocess.Popen([*command, '--out', str(tmp_path/'killed.csv')], start_new_session=True, stdout=subprocess.DEVNULL)
    while not (tmp_path/'killed'/'hand-ins'/'student1'/'row.json').exists(): time.sleep(.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = (tmp_path/'killed'/'hand-ins'/'student0'/'row.json').stat().st_mtime_ns
    subprocess.run([*command, '--out', str(tmp_path/'killed.csv')], check=True, capture_output=True)
    assert (tmp_path/'killed'/'hand-ins'/'student0'/'row.json').stat().st_mtime_ns == done
    for name in ('.csv', '/checks.csv', '/similar.csv'):
        assert Path(f'{tmp_path}/killed{name}').read_bytes() == Path(f'{tmp_path}/whole{name}').read_bytes()


def test_on_a_dask_cluster(tmp_path):
    from dask.distributed import Client
    for i in range(3): write(tmp_path/'class'/f'student{i}', f'print({i})')
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None), parallel_config('dask'):
        made = regrade(tmp_path/'class', tmp_path/'grades.csv', n_jobs=None)
    assert made.grades.runs.tolist() == [True]*3


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
    made = regrade(tmp_path/'class', tmp_path/'grades.csv', limits=Limits(seconds=60))
    grades, problems = made.grades.set_index('file'), made.checks[made.checks.verdict == 'problem'].groupby('file').what.agg(list)
    assert grades.runs.tolist() == [False, True, False]  # colab, prose, windows
    assert 'Section Introduction' in problems['colab.ipynb'] and 'Section Summary and conclusion' in problems['colab.ipynb']
    assert made.checks[made.checks.file == 'colab.ipynb'].set_index('what').todo['Section Model training and results'].startswith('Write a few sentences')
    assert all((tmp_path/'grades'/'hand-ins'/f'{name}.ipynb'/'report.html').stat().st_size > 1000 for name in OLD)


def exemplary(folder):
    "A hand-in with nothing to complain of."
    text = [f'{title}\n{WORDS}' for title in ('## Introduction', '## Model training and results', '## Summary and conclusion', '## Reflection')]
    text[2] += ' In production it was 83 %, before 61 %. ![maps](maps.png)'
    cells = [nbformat.v4.new_markdown_cell('# a5\nAda, group 3'), *map(nbformat.v4.new_markdown_cell, text)]
    cells.insert(3, nbformat.v4.new_code_cell("print('find_lr', 'fine_tune', 'evaluate')"))
    folder.mkdir(parents=True)
    for name, right in (('a3', 61), ('a5', 83)): a_run(folder, name, right/100, right)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder/'a5.ipynb')
    git(folder, 'init', '-q')
    commit(folder)
    return folder


def git(folder, *words): subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *words], cwd=folder, check=True, capture_output=True)


def commit(folder):
    git(folder, 'add', '-A')
    git(folder, 'commit', '-qm', 'all')


def change(number, source):
    "Another text for a cell."
    def fault(folder):
        nb = nbformat.read(folder/'a5.ipynb', 4)
        nb.cells[number].source = source(nb.cells[number].source)
        nbformat.write(nb, folder/'a5.ipynb')
    return fault


def drop(number):
    "Without a cell."
    def fault(folder):
        nb = nbformat.read(folder/'a5.ipynb', 4)
        del nb.cells[number]
        nbformat.write(nb, folder/'a5.ipynb')
    return fault


def swap(folder):
    "The reflection before the conclusion."
    nb = nbformat.read(folder/'a5.ipynb', 4)
    nb.cells[4], nb.cells[5] = nb.cells[5], nb.cells[4]
    nbformat.write(nb, folder/'a5.ipynb')


def put(name, content=b'x', keep=True, committed=True):
    "Another file, which may be taken away again."
    def fault(folder):
        (folder/name).parent.mkdir(exist_ok=True)
        (folder/name).write_bytes(content)
        if committed: commit(folder)
        if not keep:
            (folder/name).unlink()
            commit(folder)
    return fault


def outputs(folder):
    "What a cell printed, and no figure."
    nb = nbformat.read(folder/'a5.ipynb', 4)
    nb.cells[3].outputs = [nbformat.v4.new_output('stream', text='1')]
    nbformat.write(nb, folder/'a5.ipynb')


def wrong_head(folder):
    "A model whose numbers do not fit its description."
    path = folder/'runs'/'20261205-a5'/'model.safetensors'
    with safe_open(MODEL, 'pt') as f: facts, tensors = f.metadata(), {name: f.get_tensor(name) for name in f.keys()}
    save_file({name: tensor.flatten()[:1].clone() for name, tensor in tensors.items()}, path, facts)


def code(source): return change(3, lambda text: f'{text}\n{source}')


def rerecord(run, column, value):
    "Other answers of a run."
    def fault(folder):
        path = folder/'runs'/run/'predictions.csv'
        pd.read_csv(path).assign(**{column: value}).to_csv(path, index=False)
    return fault


FAULTS = {
    'no name': (change(0, lambda text: '# a5\n[replace: your name, group and date]'), 'Name at the top'),
    'no introduction': (drop(1), 'Section Introduction'),
    'no reflection': (drop(5), 'Section Reflection'),
    'template in the results': (change(2, lambda text: text + '[replace: your results]'), 'Section Model training and results'),
    'short summary': (change(4, lambda text: '## Summary and conclusion\nIt went well, I took new photos.'), 'Section Summary and conclusion'),
    'order': (swap, 'Order of the sections'),
    'another number': (change(4, lambda text: text.replace('83 %', '85 %')), 'Numbers in the text'),
    'a number of another run': (change(5, lambda text: text + ' We had 62.5 % before.'), 'Numbers in the text'),
    'no figure': (lambda folder: (change(4, lambda text: text.replace('![maps](maps.png)', ''))(folder), outputs(folder)), 'Code and figures'),
    'a4 is not told of': (lambda folder: [change(i, lambda text: text.replace('in a4 50 %, ', ''))(folder) for i in (1, 2, 4, 5)], 'Results of a3, a4 and a5'),
    'tested on valid': (rerecord('20261205-a5', 'image', 'valid/one/1.jpg'), 'Production result of 20261205-a5'),
    'tested on other photos': (rerecord('20261205-a5', 'sha256', 'x'), 'Models on the same photos'),
    'no record': (put('runs/20261203-a3/run.json', b'[]', committed=False), 'Record of 20261203-a3'),
    'left out': (change(3, lambda text: f'#| eval: false\n{text}'), 'All code is run'),
    'a photo': (put('me.jpg'), 'No photos are handed in'),
    'a photo taken back': (put('nbs/me.HEIC', keep=False), 'No photos are handed in'),
    'a video': (put('hand.mp4'), 'No photos are handed in'),
    'a pickle': (put('model.pkl', committed=False), 'No pickles'),
    'a patched kit': (code('import digits_kit.scores\ndigits_kit.scores.wilson = len'), 'The kit as it is'),
    'its own check': (code('def check_handin(runs): pass'), 'The kit as it is'),
    'a cell that fails': (code('1/0'), 'Runs to its end'),
    'an early end': (code('import os; os._exit(0)'), 'Runs to its end'),
    'a file that is not there': (code("open('labels.csv')"), 'Runs to its end'),
    'half a model': (put('runs/20261205-a5/model.safetensors', b'half', committed=False), 'Model of 20261205-a5'),
    'another model': (wrong_head, 'Model on hidden photos'),
    'two notebooks': (lambda folder: shutil.copy(folder/'a5.ipynb', folder/'a5-old.ipynb'), 'Notebook'),
    'no notebook any more': (put('a5.ipynb', b'{'), 'Notebook can be read'),
}


@pytest.mark.skipif(not shutil.which('bwrap'), reason='without bubblewrap there are no walls')
def test_one_fault_each(tmp_path, monkeypatch):
    "What is right passes every check; with one fault, the one check fails that names it."
    from digits_kit import grading
    hidden = draw_folder(tmp_path/'hidden', 0, 0, 2, seed=5, difficulty=.2)/'production'
    whole = grading.grade(exemplary(tmp_path/'whole'), hidden)
    assert [o.what for o in whole.findings if o.verdict != 'ok'] == []
    assert whole.row['score'] == whole.row['max_score'] == sum(grading.read_rubric().values())
    preds, run, tries = pd.DataFrame({name: ['one', 'two']*10 for name in ('actual', 'predicted')}), grading._run, grading.try_models
    for name, (fault, what) in FAULTS.items():
        folder = exemplary(tmp_path/name)
        fault(folder)
        # what this fault cannot change is not done again
        monkeypatch.setattr(grading, '_run', run if what == 'Runs to its end' else lambda *o: whole.done)
        monkeypatch.setattr(grading, 'try_models', tries if what.startswith('Model o') else lambda *o: [(preds, '')])
        found = [o.what for o in grading.grade(folder, hidden).findings if o.verdict == 'problem']
        assert found == [what], (name, found)
