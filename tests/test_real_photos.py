"The whole assignment on real photos with ImageNet weights; needs `DIGITS_DATA` and `DIGITS_WEIGHTS`."
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs = [o for o in ['DIGITS_DATA', 'DIGITS_WEIGHTS'] if not os.environ.get(o)]


@pytest.mark.skipif(bool(needs), reason=f'{" and ".join(needs)} not set')
def test_a5_on_real_photos(tmp_path):
    env = os.environ | {'DIGITS_RUNS': str(tmp_path/'runs'), 'DIGITS_CACHE': str(tmp_path/'cache')}
    done = subprocess.run([Path(sys.executable).parent/'digits_a5', '--out', tmp_path/'out'], cwd=tmp_path, env=env,
                          capture_output=True, encoding='utf-8')
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    kinds = {o.suffix for o in (tmp_path/'out').rglob('*') if o.is_file()}
    assert {'.ipynb', '.html'} <= kinds
    assert len(list((tmp_path/'runs').glob('*/run.json'))) >= 2
