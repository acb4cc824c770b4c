"Photos from several processes, a kill in the middle, a full disk, a read-only folder: what was said to be saved is there."
import http.server
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from disk import mounted
from PIL import Image

from digits_kit.files import file_sha256
from digits_kit.folder import read_rows
from digits_kit.frames import MIN_CHANGE, frame_change, thumbnail
from digits_kit.hands import draw_hand
from digits_kit.landing import lock_folder
from digits_kit.photos import open_photo

COMMAND = 'from digits_kit.command import digits_capture; raise SystemExit(digits_capture())'
ADDING = '''
import io, sys
import numpy as np
from PIL import Image
from digits_kit.sessions import Session
root, person, first, n = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
session = Session(root, person, 'train')
burst = session.new_burst()
for i in range(first, first + n):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(buffer, 'JPEG')
    print(session.add(buffer.getvalue(), 'one', burst), flush=True)
'''


def start(script, *words, **kwargs):
    "Start `script` in a process of its own; the text it prints comes through a pipe."
    env = os.environ | {'PYTHONIOENCODING': 'utf-8'} | kwargs.pop('env', {})
    return subprocess.Popen([sys.executable, '-c', script, *map(str, words)], env=env, encoding='utf-8', **{
        'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT} | kwargs)


def capture(*words):
    "Run `digits_capture` to its end: status, and what it printed."
    process = start(COMMAND, *words)
    text = process.communicate(timeout=120)[0]
    assert 'Traceback' not in text and '\r' not in text, text  # nobody watches: no bar is drawn
    return process.returncode, text


def check_folder(root):
    "The rows of `root`, after looking that each photo has one, is whole and is the one its row speaks of."
    with lock_folder(root) as rows: pass
    paths = [root/o['path'] for o in rows]
    assert len(set(paths)) == len(paths)
    assert sorted(o for o in paths if o.exists()) == sorted(root.glob('*/*/[!.]*.jpg'))
    for path, row in zip(paths, rows):
        if not path.exists(): continue
        Image.open(path).load()
        assert file_sha256(path) == row['sha256']
    return rows


def leftovers(root): return [o for o in root.rglob('.*') if o.name not in ('.manifest.lock', '.imports.txt')]


def write_video(path, images, fps=10):
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, (width, height))
    for img in images: writer.write(np.ascontiguousarray(img[..., ::-1]))
    writer.release()
    return path


def noise(n, size=(120, 160)):
    "Pictures that have nothing in common."
    rng = np.random.default_rng(0)
    for _ in range(n):
        yield cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def camera(tmp_path_factory):
    "A video that plays the camera: 200 s in which every picture is another."
    return write_video(tmp_path_factory.mktemp('camera')/'camera.mp4', list(noise(2000)))


def test_two_processes(tmp_path):
    begin = time.monotonic()
    both = [start(ADDING, tmp_path, person, first, 500) for person, first in [('anna', 0), ('ben', 500)]]
    printed = [o.communicate(timeout=300)[0].split() for o in both]
    print(f'{time.monotonic() - begin:.0f} s for 1000 photos')
    assert [o.returncode for o in both] == [0, 0]
    assert [len(set(o)) for o in printed] == [500, 500]
    rows = check_folder(tmp_path)
    assert sorted(o['path'] for o in rows) == [f'train/one/{i:08}.jpg' for i in range(1000)]
    assert len({o['sha256'] for o in rows}) == 1000
    assert {str(tmp_path/o['path']) for o in rows if o['person'] == 'anna'} == set(printed[0])
    assert {o['session'][:5] for o in rows} == {'anna-', 'ben-2'}
    assert not leftovers(tmp_path)


def test_kill(tmp_path):
    "`kill -9` at ten moments, each time in the same folder."
    rng, saved = random.Random(0), []
    for i in range(10):
        process = start(ADDING, tmp_path, 'anna', 10_000*i, 10_000)
        first = process.stdout.readline().strip()
        time.sleep(rng.uniform(0, .3))
        process.kill()
        lines = process.stdout.read().split('\n')
        process.wait()
        assert int(Path(first).stem) == len(saved)
        saved += [first, *lines[:-1]]  # what follows the last newline is torn
        rows = check_folder(tmp_path)
        assert {str(tmp_path/o['path']) for o in rows} >= set(saved)
        assert len(rows) - len(saved) <= 1  # one may have landed without being told
        saved = [str(tmp_path/o['path']) for o in rows]
    print(f'{len(saved)} photos')
    status, text = capture('-o', tmp_path/'train'/'one', '--camera', 99)
    assert f'one: {len(saved)} of 40 in train' in text


def test_full_disk(tmp_path):
    video = write_video(tmp_path/'camera.mp4', list(noise(60, (480, 640))))
    with mounted(tmp_path/'disk', '1m') as disk:
        one = disk/'train'/'one'
        (disk/'ballast').write_bytes(bytes(300_000))
        words = ['-o', one, '--person', 'anna', '--camera', video, '--countdown', 0, '--every', .1, '--burst', 60]
        status, text = capture(*words)
        print(text)
        assert status == 1
        assert 'could not be written. The disk is full. Free some space, then try again.' in text
        before = check_folder(disk)
        assert f'\n{len(before)} saved' in text and len(before) > 3
        assert not leftovers(disk)
        (disk/'ballast').unlink()
        status, text = capture(*words)
        rows = check_folder(disk)
        assert rows[:len(before)] == before and len(rows) > len(before) + 3
        assert sorted(o.name for o in one.glob('*.jpg')) == [f'{i:08}.jpg' for i in range(len(rows))]


@contextmanager
def read_only(folder):
    "A folder that cannot be written to; root may write everywhere but to a disk that is mounted so."
    if os.geteuid():
        folder.mkdir()
        yield folder, lambda: [o.chmod(0o500) for o in [folder, *folder.rglob('*')] if o.is_dir()]
        for o in [folder, *folder.rglob('*')]: o.chmod(0o700)
    else:
        with mounted(folder, '10m'):
            yield folder, lambda: subprocess.run(['mount', '-o', 'remount,ro', folder], check=True)


def test_read_only(tmp_path, camera):
    with read_only(tmp_path/'disk') as (disk, protect):
        words = ['-o', disk/'train'/'one', '--camera', camera, '--countdown', 0, '--every', .1, '--burst', 3]
        assert capture(*words, '--person', 'anna')[0] == 0
        before = {o: file_sha256(o) for o in disk.rglob('*.*') if o.is_file()}
        protect()
        status, text = capture(*words)
        print(text)
        assert status == 1
        assert 'The folder is read-only' in text and 'What was saved before is safe' in text
        assert '0 saved' in text and 'one: 3 of 40 in train' in text
        assert {o: file_sha256(o) for o in disk.rglob('*.*') if o.is_file()} == before


def test_deleted(tmp_path, camera):
    one = tmp_path/'train'/'one'
    words = ['-o', one, '--camera', camera, '--countdown', 0, '--every', .1]
    assert capture(*words, '--burst', 4, '--person', 'anna')[0] == 0
    kept = file_sha256(one/'00000003.jpg')
    (one/'00000001.jpg').unlink()
    assert capture(*words, '--burst', 1)[0] == 0
    assert sorted(o.name for o in one.glob('*.jpg')) == [f'{i:08}.jpg' for i in [0, 2, 3, 4]]
    assert file_sha256(one/'00000003.jpg') == kept
    (one/'00000004.jpg').unlink()
    assert capture(*words, '--burst', 2)[0] == 0
    assert sorted(o.name for o in one.glob('*.jpg')) == [f'{i:08}.jpg' for i in [0, 2, 3, 5, 6]]
    assert [o['burst'][-4:] for o in check_folder(tmp_path)] == ['-b01']*4 + ['-b02'] + ['-b03']*2  # no row is written over


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(.01)


def test_ctrl_c(tmp_path, camera):
    one = tmp_path/'train'/'one'
    for n in [3, 20]:
        before = len(read_rows(tmp_path))
        process = start(COMMAND, '-o', one, '--person', 'anna', '--camera', camera, '--countdown', 0, '--every', .1,
                        '--burst', 1999)
        wait_for(lambda: len(list(one.glob('[!.]*.jpg'))) >= before + n)
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=30)[0]
        print(text)
        assert process.returncode == 130
        assert 'Stopped.' in text and 'Traceback' not in text
        assert not leftovers(tmp_path)
        assert f'\n{len(check_folder(tmp_path)) - before} saved' in text


def test_asked_for_a_name(tmp_path, camera):
    ours, theirs = pytest.importorskip('pty').openpty()
    words = ['-o', tmp_path/'train'/'one', '--camera', camera, '--countdown', 0, '--every', .1, '--burst', 2]
    process = start(COMMAND, *words, stdin=theirs)
    os.write(ours, b'Anna Lena\n')
    text = process.communicate(timeout=30)[0]
    assert process.returncode == 0 and 'A nickname will do' in text
    status, text = capture(*words)
    assert status == 0 and 'Photos of anna-lena' in text
    assert {o['person'] for o in check_folder(tmp_path)} == {'anna-lena'}


def test_names_of_every_script(tmp_path, camera):
    "The name comes back in ids and in the next call, also in a log on Windows, whose letters are few."
    words = ['-o', tmp_path/'train'/'one', '--camera', camera, '--countdown', 0, '--every', .1, '--burst', 1]
    assert capture(*words, '--person', 'अनिता')[0] == 0
    text = start(COMMAND, *words, env={'PYTHONIOENCODING': 'cp1252'}).communicate(timeout=60)[0]
    assert 'Photos of \\u0905' in text and '1 saved' in text
    assert {o['person'] for o in check_folder(tmp_path)} == {'अनिता'}


def test_kill_then_undo(tmp_path, camera):
    "What landed before the kill is taken back, what was there before it stays, and a torn note is in nobody's way."
    one = tmp_path/'train'/'one'
    burst = ['--camera', write_video(tmp_path/'camera.mp4', list(noise(20, (90, 120)))), '--countdown', 0, '--burst', 2]
    assert capture('-o', one, '--person', 'anna', *burst)[0] == 0
    kept = check_folder(tmp_path)
    for _ in range(3):
        process = start(COMMAND, '-o', one, '--from', camera, '--every', .1)
        wait_for(lambda: len(list(one.glob('[!.]*.jpg'))) > len(kept) + 5)
        process.kill()
        process.communicate()
        n = len(check_folder(tmp_path)) - len(kept)
        with open(tmp_path/'.imports.txt', 'a') as f: f.write('\n2026-11-2')
        status, text = capture('--undo', '-o', one)
        assert status == 0 and f'Photos taken back: {n}.' in text and n > 5
        assert check_folder(tmp_path) == kept
    assert capture('--undo', '-o', one)[0] == 0
    assert not check_folder(tmp_path)
    status, text = capture('--undo', '-o', one)
    assert status == 1 and 'no import or burst left' in text


def test_pipe(tmp_path):
    "Nobody writes into the pipe: whoever opens it waits for ever."
    os.mkfifo(tmp_path/'pipe.mp4')
    (tmp_path/'phone').mkdir()
    os.mkfifo(tmp_path/'phone'/'a.jpg')
    os.mkfifo(tmp_path/'phone'/'b.mp4')
    words = ['-o', tmp_path/'data'/'train'/'one', '--person', 'anna']
    for source in [['--from', tmp_path/'pipe.mp4'], ['--camera', tmp_path/'pipe.mp4'], ['--from', tmp_path/'phone']]:
        process = start(COMMAND, *words, *source)
        text = process.communicate(timeout=20)[0]
        assert process.returncode == 1 and 'Traceback' not in text, text
    Image.new('RGB', (64, 64)).save(tmp_path/'phone'/'c.png')
    status, text = capture(*words, '--from', tmp_path/'phone')
    assert status == 0 and '1 saved' in text and '2 files left out, neither photo nor video: a.jpg, b.mp4' in text


def test_downloaded_videos(tmp_path):
    "Two videos of two days that were downloaded in the same minute are two sessions, one for each split."
    for day, split in enumerate(['train', 'valid']):
        path = write_video(tmp_path/f'{split}.mp4', list(noise(20))[10*day:])
        data = bytearray(path.read_bytes())
        made = data.index(b'mvhd') + 8
        data[made:made + 4] = struct.pack('>I', 2_082_844_800 + 1_760_000_000 + 86_400*day)
        path.write_bytes(data)
        status, text = capture('-o', tmp_path/'data'/split/'one', '--from', path, '--person', 'anna')
        assert status == 0, text
    assert {o['taken_at'][:10] for o in check_folder(tmp_path/'data')} == {'2025-10-09', '2025-10-10'}
    nodate = write_video(tmp_path/'nodate.mp4', list(noise(40))[30:])
    assert capture('-o', tmp_path/'data'/'train'/'one', '--from', nodate)[0] == 0
    status, text = capture('-o', tmp_path/'data'/'valid'/'one', '--from', write_video(nodate, list(noise(60))[50:]))
    assert status == 1 and '--new-session' in text


class Phone(http.server.BaseHTTPRequestHandler):
    "The camera app of a phone: JPEG after JPEG, twenty a second, and after 60 the battery is empty."
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')
        self.end_headers()
        blind = [np.full((120, 160, 3), grey, np.uint8) for grey in (0, 0, 2, 255)]  # as cameras begin
        dazzled = (cv2.convertScaleAbs(img, alpha=.2) for img in noise(8))
        for img in [*blind, *dazzled, *list(noise(60))[12:]]:
            jpeg = cv2.imencode('.jpg', img)[1].tobytes()
            head = f'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n'
            try: self.wfile.write(head.encode() + jpeg + b'\r\n')
            except OSError: return  # the other side has seen enough
            time.sleep(.05)

    def log_message(self, *args): pass


def test_camera_in_the_network(tmp_path):
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Phone) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}/video'
        words = ['-o', tmp_path/'train'/'one', '--camera', address, '--person', 'anna']
        status, text = capture(*words, '--burst', 3, '--every', .4, '--countdown', 1)
        assert status == 0 and '1…\n' in text and '3 saved' in text
        times = [o.stat().st_mtime for o in sorted(tmp_path.glob('train/one/*.jpg'))]
        assert times[2] - times[0] > .5  # .8 s, less what the first one took to be saved
        assert {o['camera'] for o in check_folder(tmp_path)} == {'network camera'}
        status, text = capture(*words, '--burst', 1, '--countdown', 0)
        assert status == 0
        assert np.asarray(Image.open(sorted(tmp_path.glob('train/one/*.jpg'))[-1])).max() > 200
        status, text = capture(*words, '--burst', 20, '--every', .4, '--countdown', 0)
        server.shutdown()
    print(text)
    assert status == 1 and 'The camera has stopped delivering pictures' in text
    assert f'{len(check_folder(tmp_path)) - 4} saved' in text and len(check_folder(tmp_path)) > 6


@pytest.fixture(scope='module')
def phone_video(tmp_path_factory):
    "A minute of a phone held upright: 30 poses of one hand, two seconds each, and the note to turn the picture."
    path = tmp_path_factory.mktemp('phone')/'VID_0001.mp4'
    rng = np.random.default_rng(0)
    grains = [rng.normal(0, 6, (600, 800, 3)) for _ in range(5)]
    poses = [draw_hand(1 + i % 5, seed=i, person=1, scene=2, burst=i, size=(320, 240)).img for i in range(30)]
    laid = [cv2.resize(np.rot90(o), (800, 600)) for o in poses]
    write_video(path, [(o + grain).clip(0, 255).astype(np.uint8) for o in laid for grain in [*grains, *grains]], fps=5)
    data = bytearray(path.read_bytes())
    matrix = data.index(b'tkhd') + 44
    data[matrix:matrix + 20] = struct.pack('>5i', 0, 1 << 16, 0, -1 << 16, 0)
    path.write_bytes(data)
    return path, poses


def test_phone_video(tmp_path, phone_video):
    path, poses = phone_video
    before = file_sha256(path), path.stat().st_mtime_ns
    words = ['--from', path, '--person', 'anna']
    status, text = capture('-o', tmp_path/'whole'/'train'/'one', *words)
    print(text)
    assert status == 0
    rows = check_folder(tmp_path/'whole')
    assert 25 < len(rows) <= 30
    photos = [open_photo(tmp_path/'whole'/o['path']) for o in rows]
    assert {o.size for o in photos} == {(480, 640)}
    for photo in photos: assert min(frame_change(thumbnail(photo), thumbnail(o)) for o in poses) < MIN_CHANGE
    assert len({o['session'] for o in rows}) == 1
    bursts = [o['burst'] for o in rows]
    assert bursts == sorted(bursts) and max(map(bursts.count, bursts)) <= 10 and len(set(bursts)) >= 3

    status, text = capture('-o', tmp_path/'whole'/'train'/'one', *words)
    assert status == 0 and f'0 saved, {300*2//5 - len(rows)} left out as nearly the same, {len(rows)} there already' in text
    assert check_folder(tmp_path/'whole') == rows

    process = start(COMMAND, '-o', tmp_path/'killed'/'train'/'one', *words)
    wait_for(lambda: len(list(tmp_path.glob('killed/train/one/[!.]*.jpg'))) >= 5)
    process.kill()
    process.communicate()
    n = len(check_folder(tmp_path/'killed'))
    assert 5 <= n < len(rows)
    status, text = capture('-o', tmp_path/'killed'/'train'/'one', *words)
    assert status == 0 and f'{len(rows) - n} saved' in text
    assert check_folder(tmp_path/'killed') == rows
    assert (file_sha256(path), path.stat().st_mtime_ns) == before


def test_start():
    script = '''
import sys
from digits_kit.command import digits_capture
try: digits_capture(['--help'])
finally: print(sorted(sys.modules))
'''
    begin = time.monotonic()
    text = start(script).communicate()[0]
    print(f'{time.monotonic() - begin:.2f} s until the help')
    assert '--from VIDEO|FOLDER' in text
    for name in ['torch', 'fastai', 'pandas']: assert f"'{name}'" not in text
