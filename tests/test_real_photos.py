"The whole assignment on real photos with ImageNet weights; needs `DIGITS_DATA` and `DIGITS_WEIGHTS`."
import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest

from digits_kit.grading import grade
from digits_kit.records import known_numbers
from digits_kit.sample import get_sample

needs = [o for o in ['DIGITS_DATA', 'DIGITS_WEIGHTS'] if not os.environ.get(o)]


@pytest.mark.skipif(bool(needs), reason=f'{" and ".join(needs)} not set')
def test_a5_on_real_photos(tmp_path):
    env = os.environ | {'DIGITS_CACHE': str(tmp_path/'cache')}
    done = subprocess.run([Path(sys.executable).parent/'digits_a5', '--handin', '--out', tmp_path/'out'], cwd=tmp_path, env=env,
                          capture_output=True, encoding='utf-8')
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path/'out').glob('a5-*/a5-model-improvement.*'))) == 3  # the notebook, its page, and the zip
    records = [json.loads(o.read_text(encoding='utf-8')) for o in sorted((tmp_path/'out').glob('*/run.json'))]
    assert [o['name'] for o in records] == ['a3', 'untouched', 'a5']
    assert records[0]['pretrained'] is True  # the baseline starts from the ImageNet weights of `DIGITS_WEIGHTS`
    assert [o['arch'] for o in records] == ['mobilenetv2_035', 'handnet', 'handnet']
    for record in records:
        assert record['data']['root'] == str(Path(os.environ['DIGITS_DATA']).resolve())
    hand_in(next((tmp_path/'out').glob('a5-*/*.zip')), tmp_path/'mine')


def hand_in(packed, folder):
    "What was packed, with a student's own text, passes every check where the photos are not."
    with ZipFile(packed) as archive: archive.extractall(folder)
    known = known_numbers(sorted((folder/'runs').iterdir()))
    told = ', '.join(f'{name} {known[name]:.1f} %' for name in known if ' in production' in name and 'from' not in name)
    words = f'For another architecture I took the network of the kit. a4 is the production row of a3: {told}. ' * 3
    nb = nbformat.read(path := folder/'a5-model-improvement.ipynb', 4)
    for cell in nb.cells:
        if cell.source.startswith('[replace:'): cell.source = words
    nbformat.write(nb, path)
    for command in (['init', '-q'], ['add', '-A'], ['-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'a5']):
        subprocess.run(['git', *command], cwd=folder, check=True)
    graded = grade(folder, get_sample()/'production')
    print(graded.row)
    assert [finding for finding in graded.findings if finding.verdict == 'problem'] == []
    assert graded.row['runs'] and graded.row['score'] == graded.row['max_score'] and graded.row['n'] > 0
