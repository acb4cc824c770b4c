"What the widgets' JavaScript computes without a browser, under node, and that Python computes the same."
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from digits_kit.frames import frame_change, thumbnail
from digits_kit.widget import join_static

TESTS = Path(__file__).with_name('frames.test.mjs')
NODE = shutil.which('node')


def random_pair(rng, h, w):
    "Two random pictures, and what Python makes of them."
    a, b = rng.integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    b[: h//2] = b[: h//2]//4  # more than noise apart
    small = [thumbnail(o) for o in (a, b)]
    return dict(h=h, w=w, rgb=[a.ravel().tolist(), b.ravel().tolist()], thumbnails=[o.ravel().tolist() for o in small],
                change=frame_change(*small))


@pytest.mark.skipif(NODE is None, reason='node, which runs the tests of the JavaScript, is not installed')
def test_frames(tmp_path):
    rng = np.random.default_rng(3)
    pairs = [random_pair(rng, *size) for size in [(480, 640), (120, 160), (51, 77)]]
    path = tmp_path/'pairs.json'
    path.write_text(json.dumps(dict(pairs=pairs)))
    done = subprocess.run([NODE, '--test', '--test-reporter=tap', TESTS], env=os.environ | {'DIGITS_FRAMES': str(path)},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert '# skipped 0' in done.stdout and '# pass 0' not in done.stdout, done.stdout


@pytest.mark.skipif(NODE is None, reason='node, which runs the tests of the JavaScript, is not installed')
def test_joined_files_are_a_module(tmp_path):
    "As anywidget needs it: nothing imported, one default export with `render`."
    path = tmp_path/'joined.mjs'
    path.write_text(join_static('ui.js', 'link.js', 'camera.js', 'capture.js'), encoding='utf-8')
    code = f"import({json.dumps(path.as_uri())}).then(o => console.log(Object.keys(o).join(), typeof o.default.render))"
    done = subprocess.run([NODE, '-e', code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ('default function', 0), done.stderr
