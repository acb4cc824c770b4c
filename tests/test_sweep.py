"What a notebook cannot test of `sweep`: kill -9 at random moments, a cluster, two processes for one run."
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from functools import partial
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest
import timm
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from joblib import parallel_config
from safetensors.torch import load_file, save
from tqdm.auto import tqdm

from digits_kit import processes
from digits_kit.sample import draw_folder
from digits_kit.sweep import rank, sweep
from digits_kit.training import read_run

posix = pytest.mark.skipif(not hasattr(os, 'fork'), reason='cannot fork here')
TINY = {'pretrained': False, 'size': 32, 'freeze_epochs': 0, 'batch_tfms': None}
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other processes cannot import this module


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp('photos'), n_train=4, n_valid=4, size=(48, 64))


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path, tmp_path_factory):
    monkeypatch.setenv('DIGITS_RUNS', str(tmp_path/'runs'))
    monkeypatch.setenv('DIGITS_CACHE', str(tmp_path_factory.getbasetemp()/'cache'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')


def wait_until(happened, what, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f'{what}: not within {seconds} s'
        time.sleep(.02)


class At(Callback):
    "Does something after the epoch with the whole network."
    def __init__(self, func): self.func = func
    def after_epoch(self):
        if self.learn.n_epoch == 1 and self.learn.opt.frozen_idx == 0: self.func()


def too_little_memory():
    import resource
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,)*2)
    np.ones(10**8)


def kill_me(): os.kill(os.getpid(), signal.SIGKILL)


def no(): raise RuntimeError('the battery is empty')


class Once(Callback):
    "Must not have seen a training before."
    count = 0
    def after_epoch(self):
        self.count += 1
        assert self.count == 1, 'this callback was used before'


def trainers():
    "The processes below this one in which runs are done."
    alive = [o for o in psutil.Process().children(recursive=True) if o.status() != psutil.STATUS_ZOMBIE]
    return [o for o in alive if '_serve' in ' '.join(o.cmdline())]


@posix
def test_failures_are_rows(photos, forked):
    bad = {'raises': {'cbs': partial(At, no)}, 'memory': {'cbs': partial(At, too_little_memory)}, 'killed': {'cbs': partial(At, kill_me)},
           'unknown': {'arch': 'test_resnt'}, 'large batch': {'bs': 99}}
    configs = [{**TINY, 'name': k, **v} for k, v in bad.items()] + [{**TINY, 'name': 'good'}]
    with pytest.warns(UserWarning, match='The same call tries again') as warned:
        table = sweep(configs, photos, seeds=[0], epochs=1, n_jobs=2)
    assert len([o for o in warned if 'failed: ' in str(o.message)]) == 5
    assert list(table.status) == ['failed']*5 + ['done']
    assert 'the battery is empty' in table.reason['raises']
    assert 'MemoryError' in table.reason['memory']
    assert 'ended by SIGKILL, as a system does' in table.reason['killed']
    assert "got 'test_resnt'. Did you mean test_resnet" in table.reason['unknown']
    assert '`bs` must be from 1 to the 20 train images, got 99' in table.reason['large batch']
    for reason in table.reason[:5]:
        log = Path(reason.split('(log: ')[1].removesuffix(')'))
        assert reason.split(' (log')[0].split(': ')[-1][:40] in log.read_text() or 'SIGKILL' in reason
    assert list(rank(table).verdict) == ['best'] + ['not done']*5
    assert not psutil.wait_procs(psutil.Process().children(), timeout=5)[1]


@posix
def test_callbacks_are_new_for_each_run(photos, forked):
    config = TINY | {'cbs': [Once, partial(MixUp, .4)]}
    table = sweep([config, TINY], photos, seeds=[0, 1], epochs=1)
    assert list(table.status) == ['done', 'done'], list(table.reason)
    assert list(sweep([config, TINY], photos, seeds=[0, 1], epochs=1).runs) == list(table.runs)


def sizes(*sizes): return [TINY | {'size': o} for o in sizes]


class Sweeper:
    "A process that sweeps, forked off this one, and its workers with it: nothing has to be imported again."
    def __init__(self, *args, **kwargs):
        self.words = Path(os.environ['DIGITS_RUNS']).with_name('words')
        self.pid = os.fork()
        if self.pid: return
        os.setsid()
        try: sweep(*args, **kwargs)
        except BaseException as e: self.words.write_text(f'{type(e).__name__}: {e}')
        finally: os._exit(0)

    def ended(self): return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE

    def end(self, how):
        "Send a signal, wait for the end, and return the workers that still go on 30 s later."
        workers = psutil.Process(self.pid).children(recursive=True)
        os.kill(self.pid, how)
        os.waitpid(self.pid, 0)
        return psutil.wait_procs(workers, timeout=30)[1]


class Forked:
    "Instead of `subprocess.Popen`: the same process with the same pipes, without an import that takes seconds."
    all, lock = weakref.WeakSet(), threading.Lock()

    def __init__(self, command, **kwargs):
        with self.lock:
            (its_in, our_out), (our_in, its_out) = os.pipe(), os.pipe()
            self.code, self.pid = None, os.fork()
            if not self.pid: self.serve(command[-1], its_in, its_out, [our_in, our_out])
            os.close(its_in), os.close(its_out)
            self.stdin, self.stdout = os.fdopen(our_out, 'wb'), os.fdopen(our_in, 'rb')
            self.all.add(self)

    def serve(self, code, its_in, its_out, others):
        "The new process; nobody but the sweeper may hold the sweeper's end of a pipe."
        tqdm.set_lock(threading.RLock())  # a bar may just have been drawn
        siblings = list(self.all)  # kept, for what is collected closes a file of its number
        for o in [*others, *[p.fileno() for o in siblings for p in (o.stdin, o.stdout)]]: os.close(o)
        os.dup2(its_in, 0), os.dup2(its_out, 1), os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stdin, sys.stderr = open(0, encoding='utf-8'), open(2, 'w', encoding='utf-8', buffering=1)
        try: exec(code, {})
        finally: os._exit(1)

    def poll(self, options=getattr(os, 'WNOHANG', 0)):
        with self.lock:
            if self.code is None:
                pid, status = os.waitpid(self.pid, options)
                if pid: self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self):
        while self.poll() is None: time.sleep(.01)
        return self.code

    def kill(self):
        if self.poll() is None: os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def forked(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(processes.subprocess, 'Popen', Forked)


def complete():
    "The bytes of every complete run, by folder."
    runs = Path(os.environ['DIGITS_RUNS'])
    return {o.parent.name: [(o.parent/f).read_bytes() for f in ('run.json', 'predictions.csv', 'model.safetensors')]
            for o in runs.glob('*/predictions.csv')}


def folders(): return len([o for o in Path(os.environ['DIGITS_RUNS']).glob('*') if o.name != 'logs'])


def files(): return len([o for o in Path(os.environ['DIGITS_RUNS']).rglob('*') if o.is_file()])


@posix
def test_kill_and_resume(photos, forked, monkeypatch, tmp_path):
    moments, before, lost = random.Random(4), {}, 0
    plan = dict(root=photos, seeds=range(8), epochs=1)
    for _ in range(20):
        started, enough = folders(), files() + moments.randint(0, 5)
        sweeper = Sweeper(sizes(32, 48), **plan)
        wait_until(lambda: files() >= enough or sweeper.ended(), 'the next files')
        time.sleep(moments.uniform(0, .4))
        assert not sweeper.end(signal.SIGKILL), 'a worker went on for 30 s without its sweeper'
        after = complete()
        assert {o: after.get(o) for o in before} == before
        in_vain = folders() - started - len(after) + len(before)
        assert in_vain <= 1, 'more than the run in flight was lost'
        lost, before = lost + in_vain, after
    print(f'{len(before)} of 16 runs were done and {lost} folders begun in vain when it had been killed 20 times')
    table = sweep(sizes(32, 48), **plan)
    after = complete()
    assert list(table.status) == ['done']*2 and list(table.seeds) == [8, 8]
    assert len(after) == 16 and {o: after.get(o) for o in before} == before
    assert {o.name for runs in table.runs for o in runs} == set(after)
    monkeypatch.setenv('DIGITS_RUNS', str(tmp_path/'at once'))
    once = sweep(sizes(48), photos, seeds=[7], epochs=1)
    a, b = [load_file(o/'model.safetensors') for o in (once.runs.iloc[0][0], table.runs.iloc[1][7])]
    assert all((a[k] == b[k]).all() for k in a), 'a run after 20 kills is not the run without any'


@posix
def test_ctrl_c(photos, forked):
    sweeper = Sweeper(sizes(32, 48), photos, seeds=range(20), epochs=1, n_jobs=2)
    wait_until(complete, 'a complete run')
    assert not sweeper.end(signal.SIGINT), 'a worker went on for 30 s after Ctrl-C'
    assert 0 < len(complete()) < 40
    assert sweeper.words.read_text() == (f'KeyboardInterrupt: {len(complete())} of 40 runs are done and kept. '
                                         'The same call does the rest.')


@posix
def test_failed_runs_are_tried_again(photos, forked, monkeypatch, tmp_path):
    weights = tmp_path/'weights'
    config = [{'arch': 'test_resnet', 'pretrained': True, 'size': 32}]
    with pytest.warns(UserWarning, match='Three ways out'): table = sweep(config, photos, seeds=[0], epochs=1)
    assert list(table.status) == ['failed'] and 'Three ways out' in table.reason.iloc[0]
    weights.mkdir()
    model = timm.create_model('test_resnet', num_classes=0)
    (weights/'test_resnet.safetensors').write_bytes(save(model.state_dict()))
    monkeypatch.setenv('DIGITS_WEIGHTS', str(weights))
    assert list(sweep(config, photos, seeds=[0], epochs=1).status) == ['done']


def test_dask(photos):
    distributed = pytest.importorskip('dask.distributed')
    killed = []

    def kill_a_worker():
        wait_until(lambda: complete() and trainers(), 'a run on the cluster', 300)
        worker = trainers()[0].parent()
        killed.append(worker.pid)
        worker.kill()

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster), parallel_config(backend='dask'):
            threading.Thread(target=kill_a_worker).start()
            table = sweep(sizes(32, 48), photos, seeds=[0, 1], epochs=1)
        pids = {o['pid'] if isinstance(o, dict) else o.pid for o in cluster.workers.values()}
    assert killed and killed[0] not in pids
    assert list(table.status) == ['done', 'done'], list(table.reason)
    assert len(complete()) == 4
    assert not psutil.wait_procs(trainers(), timeout=30)[1]


SHARED = """
import sys
import torch
from fastai.distributed import DistributedDL
from fastai.vision.all import default_device, num_distrib
from torch import nn
from digits_kit.data import get_dls
from digits_kit.training import fine_tune, get_learner

root, bs = sys.argv[1], int(sys.argv[2])
default_device(False)

def broadcast(self, idxs, rank):  # fastai's goes through .cuda()
    idxs = torch.tensor(idxs)
    torch.distributed.broadcast(idxs, rank)
    return idxs.tolist()

DistributedDL._broadcast = broadcast

def trunk():
    conv, other_conv = nn.Conv2d(3, 8, 3, stride=4), nn.Conv2d(8, 8, 3, stride=2)
    return nn.Sequential(conv, nn.GroupNorm(2, 8), nn.ReLU(), other_conv, nn.ReLU())  # batch norm would see halves

learn = get_learner(get_dls(root, size=32, bs=bs, batch_tfms=[]), trunk, head='cam', pretrained=False)
learn.model[1].drop.p = 0.
train = learn.dls.train
if not num_distrib():  # one process takes in each batch what two would take together
    shuffled = train.get_idxs
    def get_idxs():
        idxs, half = list(shuffled()), len(train.dataset)//2
        return [o for i in range(0, half, bs//2) for part in (idxs[:half], idxs[half:]) for o in part[i:i + bs//2]]
    train.get_idxs = get_idxs
with learn.distrib_ctx(sync_bn=False, cpu=True): fine_tune(learn, 3, 1e-2, name=str(max(1, num_distrib())))
"""


def test_two_processes_for_one_run(photos, tmp_path):
    pytest.importorskip('accelerate')
    (tmp_path/'shared.py').write_text(SHARED, encoding='utf-8')
    launch = ['-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines', '1',
              '--mixed_precision', 'no', '--dynamo_backend', 'no', '--main_process_port', '0']
    for start, bs in [([], 4), (launch, 2)]:
        command = [sys.executable, *start, str(tmp_path/'shared.py'), str(photos), str(bs)]
        done = subprocess.run(command, capture_output=True, encoding='utf-8')
        assert done.returncode == 0, done.stderr
    runs = {read_run(o.parent)['processes']: o.parent for o in Path(os.environ['DIGITS_RUNS']).glob('*/run.json')}
    one, two = [read_run(runs[k]) for k in (1, 2)]
    assert [[p['batches'] for p in o['phases']] for o in (one, two)] == [[5, 15]]*2
    assert [o['phases'][1]['bs'] for o in (one, two)] == [4, 2]
    # 20 steps of float32 (relative error 6e-8) with weights under 1 and rates under 1e-2: 1e-5 leaves a wide margin,
    # and a step with another batch changes weights by about 1e-2
    a, b = [load_file(runs[k]/'model.safetensors') for k in (1, 2)]
    assert max((a[k] - b[k]).abs().max() for k in a) < 1e-5
    for x, y in zip(one['history'], two['history']):
        assert x == pytest.approx(y, abs=1e-5)
