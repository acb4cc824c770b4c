"`kill -9` while photos land, are taken back, come back and get another label: the next run ends where an undisturbed one does."
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from digits_kit.folder import read_manifest, read_rows
from digits_kit.hands import draw_hand
from digits_kit.photos import as_jpeg

# A program that writes down what it is about to do. Begun again, it does the last of that once more, then what is left.
CARING = '''
import json, os, sys
from pathlib import Path
from digits_kit.folder import read_rows
from digits_kit.landing import add_photos, lock_folder, quarantine, relabel, restore, restore_all

root, photos, log = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
FACTS = dict(phash='0123456789abcdef', taken_at='2026-03-02T09:30:00', camera='drawn', licence='CC BY-NC-SA 4.0')

def photo(name):
    row = dict(split='train', label=['two', 'three'][name % 2], person=f'person-{name//20}', source=f'{name}.jpg')
    return (photos/f'{name % 6}.jpg').read_bytes(), row | FACTS

def known():
    with lock_folder(root) as rows: pass
    gone = {row['source']: f"quarantine/{row['file']}" for row in read_rows(root/'quarantine')}
    return gone | {row['source']: row['path'] for row in rows}

def land(first):
    there = known()
    add_photos(root, [photo(name) for name in range(first, first + 20) if f'{name}.jpg' not in there])

STEPS = {'land': land, 'quarantine': lambda path: quarantine(root, path, 'blurred'),
         'restore': lambda path: restore(root, path), 'relabel': lambda path: relabel(root, path, 'four'),
         'restore_all': lambda _: restore_all(root)}

def plan():
    "Steps, and the number of the photo each is about."
    for first in range(0, 60, 20):
        yield 'land', first
        for i in [0, 19, 18, 7]: yield 'quarantine', first + i
        for i in [0, 19]: yield 'restore', first + i
        for i in [3, 19]: yield 'relabel', first + i
    yield 'restore_all', 0
    for i in [4, 24, 44]: yield 'quarantine', i

(root/'train'/'four').mkdir(parents=True, exist_ok=True)
text = log.read_text() if log.exists() else ''
log.write_text(text[:text.rfind('\\n') + 1])  # the last line may be torn
begun = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith('\\n')]
print('ready', flush=True)
if begun: STEPS[begun[-1][0]](begun[-1][1])
with open(log, 'a') as f:
    for step, name in list(plan())[len(begun):]:
        what = name if step == 'land' else known().get(f'{name}.jpg')
        f.write(json.dumps([step, what]) + '\\n')
        f.flush()
        STEPS[step](what)
'''

# Makes each call in forks that end without a word as soon as they touch the folder for the n-th time, then once more.
TOUCHING = '''
import os, shutil, sys
from pathlib import Path
from digits_kit.folder import read_rows
from digits_kit.landing import add_photos, lock_folder, quarantine, relabel, restore

tmp, photo = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
left = -1

def count(event, args):
    global left
    if event in ('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir') and str(args[0]).startswith(str(tmp)):
        left -= 1
        if not left: os._exit(9)

sys.addaudithook(count)

def land(root):
    with lock_folder(root) as rows: pass
    row = dict(split='train', label='two', person='ben', phash='0123456789abcdef', taken_at='', camera='')
    if 'ben' not in [row['person'] for row in rows]: add_photos(root, [(photo, row)]*3)

CALLS = {'land': land, 'quarantine': lambda root: quarantine(root, 'train/two/00000001.jpg', 'blurred'),
         'restore': lambda root: restore(root, 'train/two/00000000.jpg'),
         'relabel': lambda root: relabel(root, 'train/two/00000002.jpg', 'three')}
begin = tmp/'begin'
add_photos(begin, [(photo, dict(split='train', label=label, person='anna')) for label in ['two', 'three', 'two', 'two']])
quarantine(begin, 'train/two/00000000.jpg', 'blurred')
for name, call in CALLS.items():
    n, status = 0, 9
    while status:
        n += 1
        root = Path(shutil.copytree(begin, tmp/f'{name}-{n}'))
        child = os.fork()
        if not child:
            left = n
            call(root)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status: call(root)
    root.rename(tmp/f'{name}-whole')
    print(f'{name}: {n - 1} touches')
'''


def start(script, *words):
    "Start `script` in a process of its own; the text it prints comes through a pipe."
    return subprocess.Popen([sys.executable, '-c', script, *map(str, words)], encoding='utf-8', stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def tree(root):
    "All that the folder knows, but for times: the files, and the rows of both manifests."
    files = {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
             for path in root.rglob('*') if path.is_file() and path.name not in ('.manifest.lock', 'manifest.csv')}
    notes = [{column: value for column, value in row.items() if column != 'moved_at'} for row in read_rows(root/'quarantine')]
    return files, read_rows(root), notes


class Place:
    "A data folder, and the program that takes care of it."
    def __init__(self, folder, photos):
        folder.mkdir()
        self.root, self.words = folder/'data', [folder/'data', photos, folder/'log.txt']

    def start(self):
        process = start(CARING, *self.words)
        assert process.stdout.readline() == 'ready\n'
        return process

    def complete(self):
        "Run to the end: seconds of work."
        process = self.start()
        begin = time.monotonic()
        text = process.communicate(timeout=120)[0]
        assert process.returncode == 0, text
        return time.monotonic() - begin

    def kill(self, after):
        "Kill it `after` seconds; was it still at work?"
        process = self.start()
        time.sleep(after)
        process.kill()
        process.communicate()
        return process.returncode == -signal.SIGKILL


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    for i in range(6): (folder/f'{i}.jpg').write_bytes(as_jpeg(draw_hand(2, seed=i, size=(48, 64)).img))
    return folder


@pytest.mark.skipif(os.name == 'nt', reason='there is no kill -9 on Windows')
def test_kill(tmp_path, photos):
    undisturbed = Place(tmp_path/'undisturbed', photos)
    seconds, rng = undisturbed.complete(), random.Random(0)
    expected = tree(undisturbed.root)
    assert len(expected[0]) == 60 and len(expected[1]) == 57 and len(expected[2]) == 3
    assert len(read_manifest(undisturbed.root)) == 57

    def kill_and_complete(i, after):
        "The number of steps that were begun before the kill."
        place = Place(tmp_path/f'{i}', photos)
        place.kill(after)
        begun = len(place.words[2].read_text().splitlines())
        place.complete()
        assert tree(place.root) == expected, f'kill {i}, after {after:.3f} s, in step {begun}'
        return begun

    with ThreadPoolExecutor(2) as threads:
        begun = list(threads.map(kill_and_complete, range(50), [rng.uniform(0, seconds) for _ in range(50)]))
    print(f'killed in the steps {sorted(begun)} of 31, of {seconds:.2f} s')
    assert len(set(begun)) > 10


@pytest.mark.skipif(os.name == 'nt', reason='there is no kill -9 on Windows')
def test_kills_in_one_folder(tmp_path, photos):
    "Killed again and again until it is through."
    undisturbed, place = Place(tmp_path/'undisturbed', photos), Place(tmp_path/'killed', photos)
    seconds, rng, kills = undisturbed.complete(), random.Random(1), 0
    while place.kill(rng.uniform(0, seconds/3)): kills += 1
    print(f'{kills} kills')
    place.complete()
    assert tree(place.root) == tree(undisturbed.root)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork on Windows')
def test_every_touch(tmp_path, photos):
    "Killed before each single time that the disk is touched, and called again."
    process = start(TOUCHING, tmp_path, photos/'0.jpg')
    text = process.communicate(timeout=300)[0]
    print(text)
    assert process.returncode == 0, text
    for name in ['land', 'quarantine', 'restore', 'relabel']:
        folders = [folder for folder in tmp_path.glob(f'{name}-*') if not folder.name.endswith('whole')]
        expected = tree(tmp_path/f'{name}-whole')
        assert len(folders) > 15
        for folder in folders: assert tree(folder) == expected, folder.name
