"Ctrl-C or kill -9 in the middle of `digits_a5`: earlier runs, the cache and the photos stay as they were."
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from digits_kit.sample import draw_folder

A5 = Path(__file__).parents[1]/'nbs'/'a5-model-improvement.ipynb'


def contents(folder):
    return {str(o.relative_to(folder)): hashlib.sha256(o.read_bytes()).hexdigest() for o in folder.rglob('*') if o.is_file()}


class Home:
    "A place with photos, cache and runs of its own, in which `digits_a5` is started."
    def __init__(self, folder):
        self.folder, self.photos, self.runs, self.cache = folder, folder/'photos', folder/'out', folder/'cache'
        draw_folder(self.photos, n_train=6, n_valid=3, n_production=3)
        text = A5.read_text(encoding='utf-8').replace('num_it=60', 'num_it=20')  # most of the time on so few photos
        self.notebook = folder/A5.name
        self.notebook.write_text(text, encoding='utf-8')

    def start(self):
        env = os.environ | {'DIGITS_CACHE': str(self.cache), 'PYTHONUNBUFFERED': '1'}
        args = [Path(sys.executable).parent/'digits_a5', '--data', self.photos, '--out', self.runs, '--notebook', self.notebook]
        return subprocess.Popen(args, cwd=self.folder, env=env, start_new_session=True, encoding='utf-8',
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def complete(self):
        "Run to the end."
        process = self.start()
        text = process.communicate()[0]
        assert process.returncode == 0, text

    def interrupt(self, step, how):
        "Start, interrupt half a second after `step` of its steps are done, and wait until the kernel is gone as well."
        process, said = self.start(), ''
        for line in process.stdout:
            said += line
            if line.startswith(f'[{step:2}/'): break
        time.sleep(.5)
        assert process.poll() is None, f'digits_a5 ended before it was interrupted:\n{said}'
        kernels = psutil.Process(process.pid).children(recursive=True)
        if how == 'ctrl-c': os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
        else: process.kill()
        process.communicate(timeout=60)
        assert process.returncode != 0
        _, alive = psutil.wait_procs(kernels, timeout=30)
        for o in alive: o.kill()
        assert not alive, f'{how} after step {step} left processes that went on for 30 s: {alive}'


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp('a5'))
    home.complete()
    home.photos_before, home.runs_before = contents(home.photos), contents(home.runs)
    return home


def check_unharmed(home):
    assert contents(home.photos) == home.photos_before
    after = contents(home.runs)
    assert {o: after.get(o) for o in home.runs_before} == home.runs_before
    for file in home.photos.rglob('*.jpg'): Image.open(file).load()
    for file in home.cache.rglob('*.rgb'): assert file.stat().st_size == 96*128*3


@pytest.mark.parametrize('step,how', [(6, 'kill -9'), (11, 'ctrl-c'), (13, 'kill -9')])  # each before a training
def test_interrupt(home, step, how):
    home.interrupt(step, how)
    check_unharmed(home)


def test_complete_run_afterwards(home):
    earlier = set(home.runs.glob('*/run.json'))
    home.complete()
    check_unharmed(home)
    assert len(earlier) < len(set(home.runs.glob('*/run.json')))
