"What a training leaves in a log: one line per step, also of drawing the sample, and no bar."
import os
import re
import subprocess
import sys

TRAINING = 'from digits_kit.recipes import train_few; train_few(epochs=2)'


def test_train_few_to_a_file(tmp_path):
    env = os.environ | {'DIGITS_CACHE': str(tmp_path/'cache'), 'DIGITS_RUNS': str(tmp_path/'runs')}
    env.pop('DIGITS_DATA', None)
    with open(tmp_path/'log', 'wb') as log:
        subprocess.run([sys.executable, '-W', 'ignore', '-c', TRAINING], cwd=tmp_path, env=env, stdout=log,
                       stderr=subprocess.STDOUT, check=True)
    text = (tmp_path/'log').read_bytes().decode('utf-8')
    print(text)
    assert '\r' not in text and '\x1b' not in text and '█' not in text
    lines = text.splitlines()
    assert len(lines) == len(set(lines)) < 40 and max(map(len, lines)) < 160
    assert re.findall(r'^few: epoch (\d) of (\d), train_loss', text, re.M) == [('1', '3'), ('2', '3'), ('3', '3')]
    assert re.search(r'^Drawing the sample: 350 images in \d+ s$', text, re.M)
    assert lines[-1].startswith('Kept: ')
