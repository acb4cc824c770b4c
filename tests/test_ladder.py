"kill -9 in the middle of `digits_ladder`: the same command goes on, and ends with the same numbers as one that was let be."
import os
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).parent/'digits_ladder'


def start(out):
    env = os.environ | {'PYTHONUNBUFFERED': '1', 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen([COMMAND, '--rung', 'tiny', '--seeds', '1', '--small', '--out', out], env=env, encoding='utf-8',
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for_epoch(process, number):
    lines = []
    while not any(f'epoch {number} of 15' in line for line in lines):
        lines.append(process.stdout.readline())
        assert lines[-1], ''.join(lines)


def test_kill(tmp_path):
    whole, killed = start(tmp_path/'whole'), start(tmp_path/'killed')
    wait_for_epoch(killed, 3)
    killed.kill()
    killed.wait()
    folder, = (tmp_path/'killed').iterdir()
    assert {path.name for path in folder.iterdir()} == {'.lock', 'state.pt'}

    again = start(tmp_path/'killed')
    said, _ = again.communicate()[0], whole.communicate()
    assert (again.returncode, whole.returncode) == (0, 0)
    assert 'epoch 1 of 15' not in said and 'epoch 15 of 15' in said
    numbers = [(tmp_path/name/folder.name/'predictions.csv').read_text() for name in ('whole', 'killed')]
    assert numbers[0] == numbers[1]


def test_errors(tmp_path):
    env = {key: value for key, value in os.environ.items() if key != 'DIGITS_MNIST'} | {'DIGITS_MNIST': str(tmp_path)}
    done = subprocess.run([COMMAND, '--rung', 'step6'], env=env, capture_output=True, encoding='utf-8')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert f'digits_ladder: {tmp_path} must hold train-images-idx3-ubyte or' in done.stderr and '--small' in done.stderr
