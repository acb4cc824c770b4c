"The whole assignment on real photos with ImageNet weights; needs `DIGITS_DATA` and `DIGITS_WEIGHTS`."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs = [o for o in ['DIGITS_DATA', 'DIGITS_WEIGHTS'] if not os.environ.get(o)]


@pytest.mark.skipif(bool(needs), reason=f'{" and ".join(needs)} not set')
def test_a5_on_real_photos(tmp_path):
    env = os.environ | {'DIGITS_CACHE': str(tmp_path/'cache')}
    done = subprocess.run([Path(sys.executable).parent/'digits_a5', '--out', tmp_path/'out'], cwd=tmp_path, env=env,
                          capture_output=True, encoding='utf-8')
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path/'out').glob('a5-*/a5-model-improvement.*'))) == 2  # the notebook and its page
    records = [json.loads(o.read_text(encoding='utf-8')) for o in sorted((tmp_path/'out').glob('*/run.json'))]
    assert [o['name'] for o in records] == ['a3', 'untouched', 'a5']
    assert records[0]['pretrained'] is True  # the baseline starts from the ImageNet weights of `DIGITS_WEIGHTS`
    assert [o['arch'] for o in records] == ['mobilenetv2_035', 'test_resnet', 'test_resnet']
    for record in records:
        assert record['data']['root'] == str(Path(os.environ['DIGITS_DATA']).resolve())
