"The cache of decoded photos under two trainings at once, on a full disk, in a read-only folder, and when a photo changes."
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from disk import mounted
from PIL import Image

from digits_kit.folder import _list_images as list_images
from digits_kit.hands import draw_hand
from digits_kit.photos import open_photo
from digits_kit.sample import draw_folder

SIZE = (96, 128)
TRAINING = '''
import hashlib, json, sys, warnings
from digits_kit.data import get_dls
from digits_kit.training import get_learner
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    dls = get_dls(sys.argv[1], bs=8)
data = b''.join(x.numpy().tobytes() for x, _ in [*dls.train_ds, *dls.valid_ds])
learn = get_learner(dls, pretrained=False)
with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
weights = b''.join(o.detach().contiguous().numpy().tobytes() for o in learn.model.state_dict().values())
print(json.dumps({'pixels': hashlib.sha256(data).hexdigest(), 'weights': hashlib.sha256(weights).hexdigest(),
                  'warnings': [str(o.message) for o in caught if 'DIGITS_CACHE' in str(o.message)],
                  'fingerprint': dls.record['fingerprint']}))
'''


def start(root, cache):
    env = os.environ | {'DIGITS_CACHE': str(cache), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', TRAINING, root], env=env, encoding='utf-8',
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def result(process):
    "What a training printed last."
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def train(root, cache): return result(start(root, cache))


def check_cache(cache, photos):
    "Each photo is in the cache once, whole and right, and nothing else is."
    kept = [o for o in cache.rglob('*') if o.is_file() and 'images' in o.parts]
    expected = sorted(np.asarray(open_photo(o, SIZE)).tobytes() for o in photos)
    assert sorted(o.read_bytes() for o in kept) == expected


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Forty drawn hands."
    return draw_folder(tmp_path_factory.mktemp('photos'), n_train=6, n_valid=2)


@pytest.fixture(scope='module')
def alone(root, tmp_path_factory):
    "What a training gives that has the cache to itself."
    cache = tmp_path_factory.mktemp('alone')
    found = train(root, cache)
    assert not found['warnings']
    check_cache(cache, list_images(root))
    return found, cache


def test_two_processes(root, alone, tmp_path):
    both = [start(root, tmp_path) for _ in range(2)]
    assert [result(o) for o in both] == [alone[0], alone[0]]
    check_cache(tmp_path, list_images(root))


def test_torn_files(root, alone, tmp_path):
    cache = shutil.copytree(alone[1], tmp_path/'cache')
    for i, file in enumerate(sorted(cache.rglob('*.rgb'))[:10]): file.write_bytes(file.read_bytes()[:i*1000])
    assert train(root, cache) == alone[0]
    check_cache(cache, list_images(root))


def test_changed_photo(root, alone, tmp_path):
    mine, cache = shutil.copytree(root, tmp_path/'mine'), shutil.copytree(alone[1], tmp_path/'cache')
    Image.fromarray(draw_hand(5, seed=999).img).save(list_images(mine)[0])
    found = train(mine, cache)
    assert found['fingerprint'] != alone[0]['fingerprint'] and found['pixels'] != alone[0]['pixels']
    assert found == train(mine, tmp_path/'empty')
    check_cache(tmp_path/'empty', list_images(mine))


def test_full_disk(root, alone, tmp_path):
    with mounted(tmp_path/'disk', '1m') as disk:  # 27 of 40 photos fit
        found = train(root, disk)
        print(found['warnings'])
        assert found | {'warnings': []} == alone[0]
        assert len(found['warnings']) == 1 and str(disk) in found['warnings'][0]
        assert 'No space left' in found['warnings'][0]
        kept = list(disk.rglob('*.rgb'))
        assert 10 < len(kept) < 40 and {o.stat().st_size for o in kept} == {3*96*128}
        assert not list(disk.rglob('*.tmp'))
        subprocess.run(['mount', '-o', 'remount,size=10m', disk], check=True)
        assert train(root, disk) == alone[0]
        check_cache(disk, list_images(root))


@pytest.mark.parametrize('filled', [False, True])
def test_read_only(root, alone, tmp_path, filled):
    "An empty folder that cannot be written to costs a warning; one that has all that is needed costs nothing."
    with mounted(tmp_path/'disk', '10m') as disk:
        if filled: shutil.copytree(alone[1], disk, dirs_exist_ok=True)
        subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
        found = train(root, disk)
        print(found['warnings'])
        assert found | {'warnings': []} == alone[0]
        assert len(found['warnings']) == (0 if filled else 1)
        if not filled: assert str(disk) in found['warnings'][0]
